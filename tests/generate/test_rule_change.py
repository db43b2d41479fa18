"""--extend with another --accept or --max_tries: captions are tried again, and nothing is lost."""

import json
import random
import signal
import time

import pytest

from common.expression import parse
from generate.dataset import samples, tries
from generate.dataset.accept_rule import Rule
from generate.dataset.definition import change_rule, stored_definition
from generate.dataset.scan import scan_folder
from generate.protocol.connection import Extended
from postprocess_dataset.packing.pack_folder import Packing
from tests.fakes.forking import Forking
from tests.fakes.rule_holder import RECIPES, taken
from tests.fakes.running_client import ROOT, Run
from tests.fakes.running_server import granted, until
from tests.fakes.sample_holder import INDEX
from tests.generate.test_accept import drawn

SCORES = ["--scores", f"{ROOT}/tests/fakes/luck_score.py:Luck"]
STRICT = ["--accept", "luck > 20", "--max_tries", 2]
LOOSER = ["--accept", "luck > 0", "--max_tries", 2]
LONGER = ["--accept", "luck > 20", "--max_tries", 9]


def begun(start_run, total=6, images=4, **settings):
    """A run that has ended under the strict rule; several of its captions were given up."""
    run, server = start_run(
        total=total, images=images, options=SCORES, FAKE_LOG="drawn", **settings
    )
    assert run.start(*STRICT).wait(60) == 0, run.log()
    assert 0 < len(given_up(run)) < total * images
    return run, server


def given_up(run):
    """{caption: seeds that were tried}, by the .failed."""
    found = {path.stem: json.loads(path.read_bytes()) for path in run.data.glob("*/*.failed")}
    return {name: [each["seed"] for each in one["rejected"]] for name, one in found.items()}


def change(run, accept, max_tries):
    """As the command does, but for what it says."""
    assert change_rule(run.data, {"accept": accept, "max_tries": max_tries})


def check(run, before, max_tries):
    """Published images are as they were; each JSON and each .failed is right by itself."""
    now = run.snapshot()
    assert all(now[name] == was for name, was in before.items() if name.suffix in (".jpg", ".json"))
    for path in run.data.glob("*/*_*.json"):
        record = json.loads(path.read_bytes())
        accept = parse(record["accept"])
        assert accept.holds(record["scores"])
        assert not any(accept.holds(each["scores"]) for each in record["rejected"])
        seeds = [each["seed"] for each in record["rejected"]] + [record["seed"]]
        assert record["tries"] == len(seeds) == len(set(seeds))
    left = given_up(run)
    assert all(len(set(seeds)) == max_tries for seeds in left.values())
    run.check(given_up=left)


def from_the_start(tmp_path, start_run, options):
    """{caption: seed} of the same run, begun with these options."""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    run = Run(fresh, total=6, images=4, options=[*SCORES, *options])
    ended = run.run("--num_workers", 1, task=False)
    assert ended.returncode in (0, 3), ended.stderr
    return seeds_of(run)


def seeds_of(run):
    records = {p.stem: json.loads(p.read_bytes()) for p in run.data.glob("*/*_*.json")}
    return {name: record["seed"] for name, record in records.items()}


@pytest.mark.parametrize("options", [LOOSER, LONGER])
def test_what_was_given_up_ends_as_if_begun_with_the_new_rule(start_run, tmp_path, options):
    run, server = begun(start_run)
    open_before, before = given_up(run), run.snapshot()
    said = run.run("--extend", *options, "--dry_run", task=False)
    assert said.returncode == 0, said.stderr
    assert f"of {len(open_before)} captions that were given up are tried again" in said.stdout
    assert "; before: luck > 20, 2 tries" in said.stdout
    assert run.snapshot() == before and not (run.data / "dataset.2.yaml").exists()
    ended = run.run("--extend", *options, task=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert said.stdout.splitlines()[0] in ended.stdout
    check(run, before, options[-1])
    assert len(given_up(run)) < len(open_before)
    fresh = from_the_start(tmp_path, start_run, options)
    seeds = seeds_of(run)
    assert {name: seeds.get(name) for name in open_before} == {
        name: fresh.get(name) for name in open_before
    }
    dataset = server.dataset("birds")
    assert dataset["done"] == 6 and dataset["sum_ok"] and dataset["set_aside"] == 0
    assert dataset["acceptance"]["accept"] == options[1]
    again = run.run("--extend", *options, task=False)
    assert again.returncode == 0 and "tried again" not in again.stdout
    assert not (run.data / "dataset.3.yaml").exists()


def test_no_seed_is_drawn_again_but_one_that_the_new_rule_accepts(start_run):
    run, _ = begun(start_run)
    tried = given_up(run)
    (run.folder / "drawn").unlink()
    change(run, "luck > 20", 9)
    assert run.start(*LONGER).wait(60) == 0, run.log()
    seeds = {seed for seed, _ in drawn(run)}
    assert not seeds & {seed for each in tried.values() for seed in each}


def test_published_images_stay_under_a_stricter_rule(start_run):
    """The command says how many do not fulfil it, and the expression that leaves them out."""
    run, _ = begun(start_run, images=2)
    before = run.snapshot()
    values = [json.loads(path.read_bytes())["scores"]["luck"] for path in run.data.glob("*/*.json")]
    fulfil = sum(value > 25 for value in values)
    ended = run.run("--extend", "--accept", "luck > 25", "--max_tries", 2, task=False)
    assert ended.returncode == 0, ended.stderr
    assert f"0 of {len(given_up(run))} captions" in ended.stdout
    assert f"the {len(values)} images that are published stay; by their own scores {fulfil}" in (
        ended.stdout
    )
    assert "--where 'score_luck > 25'" in ended.stdout
    assert {k: v for k, v in run.snapshot().items()} == before
    more = run.run("--extend", "--accept", "luck > 25", "--max_tries", 2, task=False)
    assert more.returncode == 0 and run.snapshot() == before


def test_clients_of_the_older_rule_finish_what_they_hold_and_follow(start_run):
    """Also those whose command line has --extend: none of them brings its older rule back."""
    run, server = start_run(
        total=8, images=3, options=SCORES, ttl_s=60, FAKE_LOG="drawn", FAKE_BATCH_S="0.3"
    )
    older = [run.start(*STRICT)]
    until((run.data / "dataset.yaml").exists, "the data set")
    older.append(run.start(*STRICT, "--extend"))
    until(lambda: run.count() >= 2 and given_up(run), f"images\n{run.log()}")
    change(run, "luck > 0", 5)
    late = run.start(*STRICT, "--extend")
    assert [client.wait(120) for client in (*older, late)] == [0, 0, 0], run.log()
    assert "the data set was extended; starting again" in run.log()
    assert stored_definition(run.data)["accept"] == "luck > 0"
    assert not (run.data / "dataset.3.yaml").exists()
    records = [json.loads(path.read_bytes()) for path in run.data.glob("*/*_*.json")]
    assert {record["accept"] for record in records} == {"luck > 20", "luck > 0"}
    check(run, {}, 5)
    dataset = server.dataset("birds")
    assert dataset["done"] == 8 and dataset["sum_ok"]
    assert "does not see files" not in run.log() and "Traceback" not in run.log()


def test_the_server_tells_a_client_of_the_older_rule(start):
    """Its own look at the folder may be late: a new name is not seen at once everywhere."""
    server = start()
    for extend in ({}, {"extend": True, "prefix_total": 6, "prefix_sha256": "0" * 64}):
        older = server.client(total=6)
        older.definition |= {"accept": "luck > 20", "max_tries": 2} | extend
        if not extend:
            granted(older)
            change_rule(server.root / "generated_images" / "storm", {"accept": "luck > 0"})
        with pytest.raises(Extended):
            older.get_indices(1)
    assert stored_definition(server.root / "generated_images" / "storm")["accept"] == "luck > 0"


def test_clients_and_server_killed_while_captions_are_tried_again(start_run):
    run, server = begun(start_run, total=8, ttl_s=1, FAKE_BATCH_S="0.1")
    tried, before = given_up(run), run.snapshot()
    server.kill()
    change(run, "luck > 20", 12)
    server.start()
    chance = random.Random(3)
    for _ in range(6):
        killed_after_a_while(run, run.start(*LONGER[:3], 12), tried, chance.uniform(0, 0.6))
        if chance.random() < 0.5:
            server.kill()
            server.start()
    assert run.start(*LONGER[:3], 12).wait(90) == 0, run.log()
    check(run, before, 12)
    for name, seeds in tried.items():  # what was tried before is told by what came of it
        path = run.data / "000000" / f"{name}.json"
        path = path if path.exists() else path.with_suffix(".failed")
        told = [each["seed"] for each in json.loads(path.read_bytes())["rejected"]]
        assert told[: len(seeds)] == seeds


def killed_after_a_while(run, client, tried, seconds):
    """Not before it has begun with a caption that was given up, or ended."""
    until(lambda: given_up(run).keys() != tried.keys() or client.poll() is not None, run.log)
    time.sleep(seconds)
    client.kill()
    client.wait()


def test_packed_folders(start_run):
    run, server = begun(start_run)
    folder = run.data / "000000"
    until((folder / "COMPLETE").exists, "the mark", 60)
    opened, count = given_up(run), run.count()
    assert Packing(folder).run().prompts == 6 and not list(folder.glob("*_*.jpg"))
    change(run, "luck > 0", 9)
    assert run.start("--accept", "luck > 0", "--max_tries", 9).wait(60) == 0, run.log()
    loose = {path.stem for path in folder.glob("*_*.json")}
    assert loose | given_up(run).keys() == opened.keys() and loose
    dataset = server.dataset("birds")
    assert (dataset["done"], dataset["images"]) == (6, count + len(loose))
    until((folder / "COMPLETE").exists, "the mark again", 60)
    assert Packing(folder).run().prompts == 6 and not list(folder.glob("*_*.jpg"))


def test_nothing_changes_where_more_than_that_differs(start_run):
    run, _ = begun(start_run, total=2)
    for words, says in (
        (["--num_inference_steps", 7], "num_inference_steps is 7"),
        (["--scores", "sharpness", "--accept", "sharpness > 1"], "scores is 'sharpness 1'"),
    ):
        refused = run.run("--extend", *LOOSER, *words, task=False)
        assert refused.returncode == 1 and says in refused.stderr, refused.stderr
    refused = run.run(*LOOSER, task=False)
    assert refused.returncode == 1 and "--extend takes" in refused.stderr
    assert not (run.data / "dataset.2.yaml").exists()


def test_a_user_who_types_the_older_rule_is_told(start_run):
    run, _ = begun(start_run, total=2)
    change(run, "luck > 0", 9)
    refused = run.run(*STRICT, task=False)
    assert refused.returncode == 1
    assert "accepted by 'luck > 0', 9 tries" in refused.stderr.splitlines()[-1]


SEEDS = [RECIPES.seed(INDEX, 1, {}, attempt) for attempt in range(5)]


def failed_folder(folder):
    """Caption 0 is given up for another reason; caption 1 after its attempts 0, 2 and 3."""
    images = [tries.Tried(n, SEEDS[n], {"luck": luck}) for n, luck in ((0, -9), (2, -5), (3, 4))]
    samples.publish_failed(folder, INDEX, 0, "safety checker", "black", "1-1")
    tries.publish_not_accepted(folder, INDEX, "1-1", 1, images)
    return images


@pytest.mark.parametrize(
    "accept, max_tries, opened, left",
    [
        ("luck > 5", 3, False, 3),
        ("luck > 5", 2, False, 3),
        ("luck > 5", 4, True, 3),
        ("luck > 0", 3, True, 2),
        ("luck > -10", 3, True, 0),
        (None, None, True, 0),
    ],
)
def test_what_a_rule_opens(tmp_path, accept, max_tries, opened, left):
    """The attempts are those of the seeds, though a .failed does not tell them."""
    images = failed_folder(tmp_path)
    rule = Rule.of({"accept": accept, "max_tries": max_tries})
    files = scan_folder(tmp_path, INDEX // 1000, rule=rule)[INDEX]
    assert (files.failed, files.opened) == (({0}, {1}) if opened else ({0, 1}, set()))
    assert rule.refused(images) == images[:left]
    index = taken(tmp_path, "1-2", accept, max_tries)
    assert index.tried.get(1, []) == (images[:left] if opened else [])


def test_killed_at_every_step_of_taking_such_a_prompt(tmp_path):
    """The next holder knows each seed that was tried, and the .failed is gone."""
    with Forking("rule_holder") as forked:
        for step in range(1, 100):
            folder = tmp_path / str(step)
            folder.mkdir()
            images = failed_folder(folder)
            status = forked("killed_at", folder, step)
            assert status in (0, -signal.SIGKILL)
            index = taken(folder, "1-3", "luck > 5", 4)
            assert index.tried == {1: images}
            assert index.files.failed == {0}
            assert not (folder / "000012" / f"{INDEX}_1.failed").exists()
            assert (folder / "000012" / f"{INDEX}_0.failed").exists()
            if status == 0:
                break
        assert step > 5
