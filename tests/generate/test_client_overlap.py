"""What the client asks for and generates next: the device waits neither for captions nor leases."""

import dataclasses
import threading
from concurrent.futures import Future
from pathlib import Path

from generate.client import feeder
from generate.client.client import Client
from generate.client.recipes import Recipes
from generate.client.work import ClientSettings, Index
from generate.dataset.captions import read_captions
from generate.dataset.samples import Place
from generate.dataset.sizes import Mix
from generate.pipelines.pipeline import GeneratorSettings
from generate.protocol.answers import Grant

RECIPES = Recipes(GeneratorSettings("tiny", height=8, width=8).resolved())


class FakeJob:
    """A job server's answers without a server: leases of two prompts each."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.lost: set[str] = set()
        self.llm_share = None
        self.granted = 0

    def get_indices(self, chunk_size: int, limits: object) -> Grant:
        self.granted += 1
        first = 2 * (self.granted - 1)
        return Grant(f"1-{self.granted}", [first, first + 1], 60.0)

    def nudge(self) -> None:
        pass


def a_client(folder: Path, images: int = 3, mix: str | None = None) -> Client:
    recipes = dataclasses.replace(RECIPES, mix=Mix.from_text(mix) if mix else None)
    items = [{"prompt": f"bird {n}", "source": ["birds"]} for n in range(20)]
    settings = ClientSettings(folder, images, recipes, chunk_size=2)
    return Client(FakeJob(), None, items, lambda sample, image: {}, Place(""), settings)


def answered(made: Client, index: Index, images: int = 3) -> None:
    """An LLM has answered for an index."""
    captions = [
        {"text": f"bird {index.number}, view {aug}", "llm_model_name": None, "backend": None}
        for aug in range(images)
    ]
    made.feeder.captioner._use(index, captions, None)


def leased(made: Client) -> list[Index]:
    """Take a lease; its indices."""
    made.feeder._lease()
    indices = list(made.work.unasked)
    made.work.unasked.clear()
    return indices


def test_the_older_lease_is_generated_first(tmp_path):
    """A late answer comes before the whole younger lease: only a lease's end makes room."""
    made = a_client(tmp_path)
    first, late = leased(made)
    younger = leased(made)
    assert [index.turn for index in younger] == [2, 2] and len(made.work.leases) == feeder.LEASES
    for index in [first, *younger, late]:
        answered(made, index)
    taken = [
        sorted({sample.index.number for sample in made.next_batch(lambda _: 3)}) for _ in range(4)
    ]
    assert taken == [[0], [1], [2], [3]]


def test_no_third_lease_while_two_are_held(tmp_path):
    made = a_client(tmp_path)
    for _ in range(5):
        leased(made)
    assert made.job.granted == 2
    for index in list(made.work.leases["1-1"]):
        made.work.forget(index)
    leased(made)
    assert made.job.granted == 3 and list(made.work.leases) == ["1-2", "1-3"]


def test_an_image_generated_again_comes_before_the_others_of_its_lease(tmp_path):
    made = a_client(tmp_path)
    indices = leased(made)
    made.work.no_more_leases = True
    for index in indices:
        answered(made, index)
    batch = made.next_batch(lambda _: 3)
    made.work.retry_or_fail(batch[2], "image", "a black image")
    again = made.next_batch(lambda _: 3)
    assert (again[0].index, again[0].aug, again[0].attempt) == (batch[2].index, batch[2].aug, 1)


def test_what_is_ready_stops_the_asking(tmp_path):
    """Captions that wait for the device and prompts that are being asked count alike.

    Memory stays bounded, and the asking never pauses until nothing is left.
    """
    made = a_client(tmp_path, images=200)
    assert made.feeder._has_room()
    made.feeder.captioner.asking = {Future(): None for _ in range(feeder.ASK_AHEAD - 1)}
    assert made.feeder._has_room()
    made.work.ready.extend([None] * 200)
    assert not made.feeder._has_room()
    made.feeder.captioner.asking.popitem()
    assert made.feeder._has_room()


def test_captions_published_for_a_lost_lease_generate_nothing(tmp_path):
    made = a_client(tmp_path)
    indices = leased(made)
    for index in indices:
        answered(made, index)
    made.job.lost.add("1-1")
    made.work.no_more_leases = True
    made.feeder.step()
    assert made.next_batch(lambda _: 3) is None
    assert all(read_captions(tmp_path, index.number) for index in indices), (
        "the captions stand for the next holder"
    )


def test_the_progress_line_counts_recompiles(tmp_path):
    """A run whose shapes are never done compiling must not look merely slow."""
    client = a_client(tmp_path)
    client.batch_took(1.0)
    assert "recompiles" not in client.line()
    client.batch_took(1.0, recompiles=2)
    assert client.line().endswith(", 2 recompiles")
