"""--scores dhash: images are compared with those of their prompt that were accepted before them."""

import itertools
import json
import random
import re
import signal
import threading
import time
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image

from common.expression import parse
from common.scores.dhash import Dhash, distance, fingerprint, nearest
from generate.client.judge import Judge
from generate.client.publisher import Publisher
from generate.client.work import ClientSettings, Index, Work
from generate.dataset import samples
from generate.dataset.accept_rule import Rule, awaits_dhash
from generate.dataset.scan import IndexFiles
from generate.dataset.tries import Tried
from generate.pipelines.image_generator import Image as Drawn
from postprocess_dataset.packing.pack_folder import Packing
from tests.fakes import fake_pipeline
from tests.fakes.running_client import Run
from tests.fakes.running_server import order, until
from tests.generate.test_accept import LUCK, check_scores
from tests.generate.test_client_publisher import RECIPES, FakeJob
from tests.generate.test_keep_rejected import kept

APART = 14  # bits; of two FakePipeline images a fifth are nearer
RULE = f"luck > 0 and dhash > {APART}"
ACCEPT = ["--scores", f"dhash,{LUCK}", "--accept", RULE, "--max_tries", 40]


def print_of(path):
    with Image.open(path) as image:
        return fingerprint(numpy.asarray(image.convert("RGB")))


def prints(run):
    """{prompt: {caption: fingerprint of its published image}}"""
    found: dict[int, dict[int, int]] = {}
    for path in run.data.glob("*/*_*.jpg"):
        index, aug = map(int, path.stem.split("_"))
        found.setdefault(index, {})[aug] = print_of(path)
    return found


def check(run):
    """Each dhash is the distance to the published images of lower number; {name: what is told}."""
    there = prints(run)
    records = check_scores(run)
    for record in records:
        index, aug = record["prompt_index"], record["augmentation_idx"]
        lower = [print for number, print in there[index].items() if number < aug]
        assert record["scores"]["dhash"] == nearest(there[index][aug], lower)
        for each in record["rejected"]:  # compared only where nothing else refuses them
            assert (each["scores"]["dhash"] is None) == (each["scores"]["luck"] <= 0)
    return {
        (record["prompt_index"], record["augmentation_idx"]): [
            record["seed"],
            record["scores"],
            [(each["seed"], each["scores"]["luck"]) for each in record["rejected"]],
        ]
        for record in records
    }


def alone(folder, **settings):
    """What one client tells that nobody disturbs."""
    folder.mkdir()
    run = Run(folder, options=ACCEPT, **settings)
    assert run.run("--num_workers", 1, task=False).returncode == 0
    return check(run)


def test_near_copies_are_drawn_again(start_run):
    options = [*ACCEPT, "--keep_rejected", 1000]
    run, server = start_run(total=5, images=6, options=options)
    assert run.start().wait(120) == 0, run.log()
    run.check()
    check(run)
    there = prints(run)
    for each in there.values():
        assert all(distance(*pair) > APART for pair in itertools.combinations(each.values(), 2))
    near = 0
    for (index, aug, _), says in kept(run).items():
        if (dhash := says["scores"]["dhash"]) is not None:
            near += 1
            assert dhash <= APART
            lower = [print for number, print in there[index].items() if number < aug]
            path = next(
                path
                for path in (run.root / "rejected_images" / "birds").glob(f"*/{index}/*_{aug}.*")
                if samples.read_comment(path.read_bytes())["seed"] == says["seed"]
            )
            assert nearest(print_of(path), lower) <= dhash, "of those that were published then"
    assert near > 3
    acceptance = server.dataset("birds")["acceptance"]
    parts = {part["text"]: part["refused"] for part in acceptance["parts"]}
    assert parts == {"luck > 0": acceptance["rejected"] - near, f"dhash > {APART}": near}


def test_batches_and_clients_change_nothing(start_run, tmp_path):
    """Two clients with batches of other sizes, of which one image alone has room on its way."""
    settings = {"total": 6, "images": 6}
    run, _ = start_run(options=ACCEPT, **settings)
    clients = [run.start("--batch_size", size) for size in (1, 7)]
    assert [client.wait(150) for client in clients] == [0, 0], run.log()
    run.check()
    assert check(run) == alone(tmp_path / "alone", **settings)


def ended_by(run, how, client, seconds):
    """So long after its first image."""
    count = run.count()
    until(lambda: run.count() > count or client.poll() is not None, run.log)
    time.sleep(seconds)
    client.send_signal(how)
    assert client.wait(60) in (0, -how), run.log()


def test_deaths_and_take_overs_change_nothing(start_run, tmp_path):
    """A prompt that was begun is ended by others, with the images that one client would accept."""
    settings = {"total": 6, "images": 6}
    run, _ = start_run(options=ACCEPT, ttl_s=1, FAKE_BATCH_S="0.1", **settings)
    chance = random.Random(7)
    taken_over = 0
    for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        ended_by(run, how, run.start("--batch_size", chance.randint(2, 5)), chance.uniform(0, 0.3))
        taken_over += any(0 < len(each) < 6 for each in prints(run).values())
    assert taken_over > 1, "some prompts were taken over in their middle"
    assert run.start().wait(150) == 0, run.log()
    run.check()
    assert check(run) == alone(tmp_path / "alone", **settings)


def test_what_lies_packed_is_compared_too(start_run):
    """More images of finished prompts differ from those that were there."""
    run, _ = start_run(total=4, images=3, options=ACCEPT)
    assert run.start().wait(90) == 0, run.log()
    folder = run.data / "000000"
    until((folder / "COMPLETE").exists, "the mark", 60)
    before = prints(run)
    assert Packing(folder).run().prompts == 4 and not prints(run)
    run.images = 6
    assert run.start("--extend").wait(90) == 0, run.log()
    for index, more in prints(run).items():
        assert sorted(more) == [3, 4, 5]
        every = [*before[index].values(), *more.values()]
        assert all(distance(*pair) > APART for pair in itertools.combinations(every, 2))


def test_a_caption_that_fails_holds_up_no_other(start_run):
    """Those above are judged without it; it is compared with all of them when it succeeds."""
    run, server = start_run(total=4, images=6, options=ACCEPT)
    bad = run.start(FAKE_NAN="number 2, view 1$")
    assert bad.wait(150) in (0, 3), run.log()
    assert server.dataset("birds")["set_aside"] == 1
    assert sorted(prints(run)[2]) == [0, 1, 3, 4, 5]
    assert order(server, "--retry_failed", "birds").returncode == 0
    assert run.start().wait(90) == 0, run.log()
    run.check()
    check_scores(run)
    there = prints(run)[2].values()
    assert all(distance(*pair) > APART for pair in itertools.combinations(there, 2))


def test_scores_alone_are_told_in_order(start_run):
    run, _ = start_run(total=3, images=5, options=["--scores", "dhash"])
    assert run.start().wait(90) == 0, run.log()
    there = prints(run)
    for path in run.data.glob("*/*_*.json"):
        record = json.loads(path.read_bytes())
        index, aug = record["prompt_index"], record["augmentation_idx"]
        lower = [there[index][number] for number in range(aug)]
        assert record["scores"] == {"dhash": nearest(there[index][aug], lower)}
        assert record["score_versions"] == ["dhash 1"]


def test_a_preview_compares_its_images(tmp_path):
    run = Run(tmp_path, total=3, images=6, options=["--scores", "dhash", "--accept", "dhash > 14"])
    said = run.run("--preview", 3, task=False).stdout
    held = int(re.search(r"dhash > 14: holds for (\d+) of 18 images", said)[1])
    assert 3 < held < 18
    assert re.search(r"^dhash: \d+ .* 64  \(least", said, re.M), said


TEXT = {"text": "a bird", "llm_model_name": None, "backend": None}


class Bench:
    """A prompt of four captions in a folder, whose images are all one picture.

    published: captions whose images lie there.
    """

    def __init__(self, folder, published=()):
        for aug in published:
            samples.publish_sample(folder, PIXELS, metadata(aug), samples.Place("1-0"))
        self.work = Work(threading.Event(), RECIPES)
        judge = Judge([Dhash()], parse("dhash > 6"), 4)
        settings = ClientSettings(folder, 4, RECIPES, judge=judge)
        self.publisher = Publisher(
            self.work, FakeJob(), lambda each, _: metadata(each.aug), samples.Place(""), settings
        )
        files = IndexFiles(4, images=set(published), jsons=set(published))
        record = {"prompt_index": 3, "original_prompt": "", "source": [], "texts": [TEXT] * 4}
        item = {"prompt": "a bird", "source": []}
        self.index = Index(3, "1-1", item, files, turn=1, record={**record, "short": None})
        self.work.add_lease("1-1", [self.index])
        self.work.enqueue(self.index, set(range(4)) - set(published))
        self.publisher.start(bound=1)

    def put(self, aug):
        self.work.take([each for each in self.work.ready if each.aug == aug])
        self.publisher.put(self.work.sample(self.index, aug), Drawn(DRAWN, 1))


DRAWN = fake_pipeline.draw("a bird", 1, 32, 32).astype(numpy.float32)
PIXELS = (DRAWN * 255).round().astype(numpy.uint8).transpose(1, 2, 0)


def metadata(aug):
    return {"prompt_index": 3, "augmentation_idx": aug, "seed": 1}


def test_a_client_that_leaves_waits_for_no_image_that_is_not_drawn(tmp_path):
    """The next holder draws and judges it, after the one that is missing."""
    bench = Bench(tmp_path)
    bench.put(1)
    until(lambda: bench.publisher.order.blocked == 1, "it waits")
    ended = threading.Thread(target=bench.publisher.finish, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive() and bench.index.todo == {0, 1, 2, 3}
    assert not list(tmp_path.glob("*/*.jpg"))


def test_near_copies_of_what_is_published_are_drawn_again_together(tmp_path):
    """Before their turn: caption 1 is still to be drawn."""
    bench = Bench(tmp_path, published=[0])
    for aug in (2, 3):
        bench.put(aug)
    until(lambda: bench.index.tried.keys() == {2, 3}, "both are refused", 20)
    assert {each.scores["dhash"] for ones in bench.index.tried.values() for each in ones} == {0}
    assert sorted(each.aug for each in bench.work.ready) == [1, 2, 3]


def test_what_other_conditions_refuse_is_compared_with_nothing():
    accept = parse("(luck > 0 or luck < -5) and dhash > 6")
    assert awaits_dhash(accept, {"luck": 1, "dhash": None})
    assert not awaits_dhash(accept, {"luck": -1, "dhash": None})
    assert not awaits_dhash(accept, {"luck": 1, "dhash": 3}), "it is known"
    assert not awaits_dhash(accept, {"luck": 1}), "it is not asked for"
    assert not awaits_dhash(accept, {"luck": None, "dhash": None})
    assert awaits_dhash(parse("luck > 0"), {"luck": 1, "dhash": None}), "it is told all the same"
    assert not awaits_dhash(accept, {"luck": 1, "dhash": None}, 6), "more images make it no farther"
    assert awaits_dhash(accept, {"luck": 1, "dhash": None}, 7)
    assert awaits_dhash(parse("dhash < 20"), {"dhash": None}, 40), "a nearer one may come"


def test_a_changed_rule_opens_what_was_never_compared():
    """An image that only `luck` refused is drawn again, and compared, where luck is enough."""
    tries = [
        Tried(0, 11, {"luck": -9.0, "dhash": None}),
        Tried(1, 12, {"luck": -1.0, "dhash": None}),
        Tried(2, 13, {"luck": 5.0, "dhash": 2.0}),
    ]
    for accept, left in ((RULE, 3), ("luck > -5 and dhash > 14", 1), ("luck > 9 and dhash > 1", 3)):
        rule = Rule.of({"accept": accept, "max_tries": 3})
        assert rule.refused(tries) == tries[:left]


def test_the_report_counts_who_refused():
    judge = Judge([Dhash(), SimpleNamespace(name="luck")], parse(RULE), 9)
    tried = [
        Tried(0, 11, {"luck": -9.0, "dhash": None}),
        Tried(1, 12, {"luck": 5.0, "dhash": 2.0}),
    ]
    assert judge.report({0: tried})["refused"] == [1, 1]


@pytest.mark.parametrize("name", ["dhash"])
def test_no_class_of_ones_own_takes_its_name(tmp_path, name):
    (tmp_path / "own.py").write_text(
        f"class Own:\n    name, version, licence = {name!r}, '1', 'CC0-1.0'\n"
        "    def score(self, images, texts):\n        return [1.0 for _ in images]\n"
    )
    refused = Run(tmp_path).run("--scores", f"{tmp_path}/own.py:Own", task=False)
    assert refused.returncode == 1 and "has the name 'dhash'" in refused.stderr
