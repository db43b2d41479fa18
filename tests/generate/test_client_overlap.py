"""What the client asks for and draws next, so that the device waits neither for a text nor for a lease."""

import threading
import types

from generate.client import client, feeder, job_client
from generate.dataset.captions import read_captions


class FakeJob:
    """A job server's answers without a server: leases of two prompts each, never more than two held."""

    def __init__(self):
        self.stopping, self.lost, self.llm_share, self.granted = threading.Event(), set(), None, 0

    def get_indices(self, chunk_size, limits):
        self.granted += 1
        first = 2 * (self.granted - 1)
        return job_client.Grant(f"1-{self.granted}", [first, first + 1], 60.0, None, False)

    def nudge(self):
        pass


def a_client(folder, images=3):
    items = [{"prompt": f"bird {n}", "source": ["birds"]} for n in range(20)]
    made = client.Client(
        FakeJob(), None, items, {"images_per_prompt": images}, folder, None, {}, chunk_size=2
    )
    made.batch_size, made.publisher.bound, made.publisher.room = (
        images,
        2,
        types.SimpleNamespace(_value=2),
    )
    return made


def answered(made, index, images=3):
    made.feeder._queue(
        index,
        [
            {"text": f"bird {index.number}, view {aug}", "llm_model_name": None, "backend": None}
            for aug in range(images)
        ],
        None,
    )


def test_the_older_lease_is_drawn_first(tmp_path):
    """An answer that comes late must not be drawn behind the whole younger lease: only the end of a lease makes room for the next one."""
    made = a_client(tmp_path)
    made.feeder._lease()
    made.feeder.unasked.clear()
    made.feeder._lease()
    assert [index.turn for index in made.feeder.unasked] == [2, 2] and len(
        made.leases
    ) == feeder.LEASES
    (first, late), younger = (
        sorted(made.leases[lease], key=lambda index: index.number) for lease in ("1-1", "1-2")
    )
    made.feeder.unasked.clear()
    for index in [first, *younger, late]:
        answered(made, index)
    drawn = [sorted({sample.index.number for sample in made.next_batch(3)}) for _ in range(4)]
    assert drawn == [[0], [1], [2], [3]]


def test_no_third_lease_while_two_are_held(tmp_path):
    made = a_client(tmp_path)
    for _ in range(5):
        made.feeder.unasked.clear()
        made.feeder._lease()
    assert made.job.granted == 2
    for index in list(made.leases["1-1"]):
        made.forget(index)
    made.feeder._lease()
    assert made.job.granted == 3 and list(made.leases) == ["1-2", "1-3"]


def test_an_image_drawn_again_comes_before_the_others_of_its_lease(tmp_path):
    made = a_client(tmp_path)
    made.feeder._lease()
    indices = list(made.feeder.unasked)
    made.feeder.unasked.clear()
    made.feeder.no_more = True
    for index in indices:
        answered(made, index)
    batch = made.next_batch(3)
    made.bad(batch[2], "image", "a black image")
    again = made.next_batch(3)
    assert (again[0].index, again[0].aug, again[0].attempt) == (batch[2].index, batch[2].aug, 1)


def test_what_is_ready_stops_the_asking(tmp_path):
    """Texts that wait for the device and prompts that are being asked count alike: memory stays bounded, and the asking never pauses
    until nothing is left."""
    made = a_client(tmp_path, images=200)
    assert made.feeder._has_room()
    made.feeder.asking = dict.fromkeys(range(feeder.ASK_AHEAD - 1))
    assert made.feeder._has_room()
    made.ready.extend([None] * 200)
    assert not made.feeder._has_room()
    made.feeder.asking.popitem()
    assert made.feeder._has_room()


def test_publishing_texts_for_a_lease_that_was_lost_draws_nothing(tmp_path):
    made = a_client(tmp_path)
    made.feeder._lease()
    indices = list(made.feeder.unasked)
    for index in indices:
        answered(made, index)
    made.job.lost.add("1-1")
    made.feeder._drop_lost()
    made.feeder.no_more = True
    assert made.next_batch(3) is None
    assert all(read_captions(tmp_path, index.number) for index in indices), (
        "the texts stand for the next holder"
    )
