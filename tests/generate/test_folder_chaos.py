"""What people do to folders while a run goes on, in any order; `make soak` does it 10,000 times.

After each step every sample must be whole and its captions asked for once; at the end of each
history the run comes to its end with each sample there once.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from generate.dataset.definition import stored_definition
from tests.fakes.chaos_run import ChaosClient, ChaosRun, copy_over, sha_of
from tests.fakes.folder_checker import plain

NUMBERS = st.integers(0, 10**6)
NAMES = [
    *("{}_{}.jpg", "{}_{}.json", "{}_{}.failed", "{}.samples", "{}.prompts", "{}.prompts2"),
    *("{}.prompts3", ".{}_{}.jpg.9-9.tmp", ".{}.prompts.9-9.tmp", "COMPLETE", "PACKED"),
]
LINKS = [
    *("nowhere", "../dataset.yaml/x", "x" * 300, "/etc/passwd"),
    *("/proc/self/mem", "/proc/self/ns/mnt", "/dev/zero"),
]
KINDS = ["folder", "pipe", "empty", "link to itself", *LINKS]
MEMORY = Path("/dev/shm")  # what a crash of the machine does is not asked here


class Chaos(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.home = Path(tempfile.mkdtemp(prefix="chaos_", dir=MEMORY if MEMORY.exists() else None))
        self.run = ChaosRun(self.home, self.patches)
        self.away = self.home / "elsewhere"
        self.copies = []

    def teardown(self):
        try:
            if self.away.exists() and not self.run.folder.exists():
                self.bring_it_back()
            self.give_the_place_back()
            self.run.finish()
        finally:
            self.run.kill_server()
            self.patches.undo()
            shutil.rmtree(self.home)

    def bring_it_back(self):
        """Unless the data set was begun anew and extended since: then it is another one."""
        if self.is_of_now(self.away):
            shutil.move(self.away, self.run.folder)

    def is_of_now(self, folder):
        here = self.run.definition
        return sizes_of(folder) in (None, (here["total"], here["images_per_prompt"]))

    @invariant()
    def samples_are_whole(self):
        self.run.look_who_vouches()
        self.run.checker().check()

    # ------------------------------------------------ the run goes on

    @rule(number=NUMBERS, images=st.integers(0, 5))
    def work(self, number, images):
        run = self.run
        if len(run.clients) < 2:
            run.clients.append(ChaosClient(run))
        client = run.clients[number % len(run.clients)]
        client.step(images)
        if client.over:
            run.clients.remove(client)

    @rule(number=NUMBERS)
    @precondition(lambda self: self.run.clients)
    def kill_client(self, number):
        self.run.clients.pop(number % len(self.run.clients))

    @rule()
    def kill_server(self):
        self.run.kill_server()

    @rule()
    def start_server(self):
        self.run.start_server()

    @rule(seconds=st.sampled_from([1, 5, 15]))
    def time_passes(self, seconds):
        self.run.turn_clock(seconds)

    @rule(more=st.integers(1, 2), images=st.booleans())
    @precondition(lambda self: self.run.definition["total"] < 8 and self.run.server)
    def extend(self, more, images):
        """More images a prompt, or more prompts; clients of before go on as they may."""
        run = self.run
        total, per = run.definition["total"], run.definition["images_per_prompt"]
        if not (run.folder / "dataset.yaml").exists():
            return
        run.define(total if images else total + more, per + more if images else per)
        client = ChaosClient(run)
        client.job.definition = run.definition | {
            "extend": True,
            "prefix_total": total,
            "prefix_sha256": sha_of(total),
        }
        client.step(1)
        run.clients.append(client)
        stands = (run.folder / "dataset.2.yaml").exists() or any(run.folder.glob("dataset.*.yaml"))
        if not stands:  # the server was away: nothing was extended
            run.define(total, per)
            run.clients.remove(client)

    # ------------------------------------------------ what people do to files

    def files(self, *patterns):
        found = sorted(path for pattern in patterns for path in self.run.folder.glob(pattern))
        return [path for path in found if plain(path)]

    @rule(number=NUMBERS, pattern=st.sampled_from(["*/*.jpg", "*/*.json", "*/*.prompts*"]))
    def delete_a_file(self, number, pattern):
        if found := self.files(pattern):
            found[number % len(found)].unlink()

    @rule(number=NUMBERS, content=st.sampled_from([b"", b"{", b"[]", b"null", b"\xff\xfe"]))
    def damage_captions(self, number, content):
        if found := self.files("*/*.prompts*"):
            found[number % len(found)].write_bytes(content)

    @rule(content=st.sampled_from([b"", b"{", b"[]", b'{"indices": 4}']))
    def damage_a_mark(self, content):
        for mark in self.files("*/COMPLETE"):
            mark.write_bytes(content)

    @rule()
    def delete_a_sub_folder(self):
        for folder in self.run.folder.glob("00*"):
            if not folder.is_symlink() and folder.is_dir():
                shutil.rmtree(folder)

    @rule(kind=st.sampled_from(["pipe", "empty", "link to itself", "nowhere", "/dev/zero"]))
    def take_the_place_of_a_sub_folder_or_give_it_back(self, kind):
        folder = self.run.folder / "000000"
        if (self.home / "000000").exists():
            self.give_the_place_back()
        elif folder.is_dir():
            shutil.move(folder, self.home)
            self.put(folder, kind)

    def give_the_place_back(self):
        """The sub-folder is back where it was, or lost with its data set."""
        folder, kept = self.run.folder / "000000", self.home / "000000"
        if os.path.lexists(folder) and not folder.is_dir():
            folder.unlink()
            shutil.move(kept, folder)
        shutil.rmtree(kept, ignore_errors=True)

    @rule(content=st.sampled_from([None, b"", b"total: x", b"[" * 50, b"created: 2026-01-01"]))
    def damage_the_definition(self, content):
        for path in self.files("dataset*.yaml"):
            path.unlink() if content is None else path.write_bytes(content)

    @rule(number=NUMBERS, name=st.sampled_from(NAMES), kind=st.sampled_from(KINDS))
    def put_something_in_the_way(self, number, name, kind):
        """Under a name of a prompt's files lies something that is none of them."""
        folder = self.run.folder / "000000"
        path = folder / name.format(number % self.run.definition["total"], number // 10 % 5)
        if not folder.is_dir() or path.is_dir():
            return
        if path.suffix in (".jpg", ".json") and kind == "empty" and os.path.lexists(path):
            return  # a file counts by its name, until it is verified
        path.unlink(missing_ok=True)
        self.put(path, kind)

    def put(self, path, kind):
        if kind == "folder":
            (path / "of others").mkdir(parents=True)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "empty":
            path.touch()
        else:
            path.symlink_to(path if kind == "link to itself" else kind)

    # ------------------------------------------------ what people do to folders

    @rule()
    def delete_the_data_set(self):
        shutil.rmtree(self.run.folder, ignore_errors=True)

    @rule()
    def move_it_away_or_back(self):
        if self.away.exists() and not self.run.folder.exists():
            self.bring_it_back()
        elif self.run.folder.exists() and not self.away.exists():
            shutil.move(self.run.folder, self.away)

    @rule()
    def copy_it_beside(self):
        if self.run.folder.exists():
            copy_over(self.run.folder, self.run.folder.with_name("birds_backup"))

    @rule()
    def keep_a_copy(self):
        if self.run.folder.exists():
            self.copies.append(self.home / f"copy_{len(self.copies)}")
            copy_over(self.run.folder, self.copies[-1])

    @rule(number=NUMBERS)
    @precondition(lambda self: self.copies)
    def restore_a_copy(self, number):
        """Of the definition that stands now: an older one is another data set."""
        source = self.copies[number % len(self.copies)]
        if self.is_of_now(source):
            copy_over(source, self.run.folder)

    @rule()
    @precondition(lambda self: self.run.server)
    def forget(self):
        status, _ = self.run.order(forget=self.run.name)
        assert status in (200, 400)

    @rule(
        name=st.sampled_from(
            ["server.json", "run.json", "ledger.sqlite", "history.json", "epochs", "metrics_secret"]
        ),
        content=st.sampled_from([None, b"", b"{", b"[]"]),
    )
    def damage_the_servers_files(self, name, content):
        path = self.run.root / ".server" / name
        if path.is_dir():
            shutil.rmtree(path)
        elif content is None or name in ("ledger.sqlite", "epochs"):
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
        if name == "ledger.sqlite" and content == b"{":
            self.run.tick()  # the server that runs writes it again
        elif name in ("ledger.sqlite", "epochs", "run.json"):  # seen at the next start
            self.run.start_server()

    @rule()
    def delete_dot_server(self):
        shutil.rmtree(self.run.root / ".server")
        self.run.tick()
        os.makedirs(self.run.root / ".server", exist_ok=True)


def sizes_of(folder):
    """(total, images_per_prompt) of a copied data set; None where its definition is damaged."""
    with contextlib.suppress(ValueError):
        definition = stored_definition(folder)
        return definition and (definition["total"], definition["images_per_prompt"])


COMMON = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}
TestFolderChaos = Chaos.TestCase
# The same histories each time: `make test` fails for a change, `make soak` finds what is new.
TestFolderChaos.settings = settings(
    max_examples=300, stateful_step_count=15, derandomize=True, **COMMON
)


def test_definition_and_ledger_are_both_lost():
    """Nobody vouches for the data set: the client is refused with what a person can do."""
    chaos = Chaos()
    chaos.work(images=0, number=0)
    chaos.damage_the_definition(content=b"[" * 50)
    chaos.delete_dot_server()
    chaos.delete_a_file(number=0, pattern="*/*.jpg")
    chaos.damage_captions(content=b"", number=0)
    chaos.delete_dot_server()
    chaos.damage_captions(content=b"[]", number=0)
    chaos.damage_the_definition(content=b"")
    chaos.samples_are_whole()
    chaos.teardown()


@pytest.mark.parametrize("images", [True, False])
def test_a_folder_that_leaves_after_an_extension(images):
    """A client of before does not begin the data set anew with its old definition."""
    chaos = Chaos()
    chaos.work(images=0, number=0)
    chaos.work(images=0, number=1)
    chaos.extend(images=images, more=1)
    chaos.move_it_away_or_back()
    chaos.work(images=0, number=1)
    chaos.samples_are_whole()
    chaos.teardown()


def test_a_ledger_written_again_knows_of_the_extension():
    """Written from dataset.2.yaml, which goes after that: a client of before begins nothing."""
    chaos = Chaos()
    chaos.work(images=0, number=0)
    chaos.extend(images=True, more=1)
    chaos.delete_dot_server()
    chaos.damage_the_definition(content=None)
    chaos.work(images=0, number=0)
    chaos.delete_dot_server()
    chaos.work(images=0, number=0)
    chaos.samples_are_whole()
    chaos.teardown()


def test_folder_and_ledger_are_lost_after_an_extension():
    """A client of before begins the data set anew, smaller: nobody is left who knows better."""
    chaos = Chaos()
    chaos.work(images=0, number=0)
    chaos.extend(images=True, more=2)
    chaos.delete_the_data_set()
    chaos.delete_dot_server()
    chaos.samples_are_whole()
    chaos.work(images=2, number=0)
    chaos.samples_are_whole()
    chaos.teardown()


def test_definition_and_ledger_are_lost_one_after_the_other():
    chaos = Chaos()
    chaos.work(images=0, number=0)
    chaos.extend(images=True, more=1)
    chaos.move_it_away_or_back()
    chaos.delete_dot_server()
    chaos.samples_are_whole()
    for _ in range(2):
        chaos.work(images=0, number=0)
        chaos.delete_dot_server()
    chaos.work(images=0, number=0)
    chaos.samples_are_whole()
    chaos.teardown()


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_ten_thousand_histories():
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(max_examples=10_000, stateful_step_count=40, **COMMON)
    run_state_machine_as_test(Chaos, settings=many)
