"""Images that are not accepted are drawn again, over the real client, server and files."""

import contextlib
import json
import random
import re
import time
import urllib.request
from pathlib import Path

import numpy
import pytest
from PIL import Image

from common.expression import parse
from generate.launch.acceptance import draws_of, line_of
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits, LiveLeases
from generate.server.page.newest import newest_images
from tests.fakes.luck_score import Luck
from tests.fakes.running_client import ROOT, Run
from tests.fakes.running_server import until

LUCK = f"{ROOT}/tests/fakes/luck_score.py:Luck"
ACCEPT = ["--scores", f"sharpness,{LUCK}", "--accept", "luck > 0", "--max_tries", 20]


def drawn(run) -> set[tuple[int, str]]:
    """(seed, text) of every image that the pipeline has drawn; a batch is padded with its last."""
    path = run.folder / "drawn"
    lines = path.read_text().splitlines() if path.exists() else []
    return {(int(seed), text) for _, seed, text in (line.split("\t") for line in lines)}


def check_scores(run) -> list[dict]:
    """Every JSON's own scores fulfil its own expression, and none of its rejected ones do."""
    records = [json.loads(path.read_bytes()) for path in run.data.glob("*/*_*.json")]
    for record in records:
        accept = parse(record["accept"])
        assert accept.holds(record["scores"])
        assert not any(accept.holds(each["scores"]) for each in record["rejected"])
        seeds = [each["seed"] for each in record["rejected"]] + [record["seed"]]
        assert record["tries"] == len(seeds) == len(set(seeds))
    return records


def test_each_image_is_accepted_and_its_tries_are_told(start_run):
    run, server = start_run(total=6, images=4, options=ACCEPT, FAKE_LOG="drawn")
    assert run.start().wait(60) == 0, run.log()
    run.check()
    records = check_scores(run)
    assert set(records[0]["scores"]) == {"sharpness", "luck"}
    assert records[0]["score_versions"] == ["sharpness 1", "luck 1"]
    told = {
        (seed, record["augmented_prompt"])
        for record in records
        for seed in [record["seed"], *(each["seed"] for each in record["rejected"])]
    }
    assert told == {each for each in drawn(run) if "bird number" in each[1]}
    assert sum(record["tries"] for record in records) > len(records)
    dataset = server.dataset("birds")
    assert dataset["images"] == 24
    tried = sum(record["tries"] for record in records)
    assert dataset["acceptance"] == {
        "accept": "luck > 0",
        "accepted": 24,
        "rejected": tried - 24,
        "share": round(24 / tried, 4),
        "not_accepted": 0,
        "parts": [{"text": "luck > 0", "refused": tried - 24}],
    }
    [newest] = newest_images(run.root, [("birds", 0)])
    last = next(r for r in records if (r["prompt_index"], r["augmentation_idx"]) == (0, 3))
    assert (newest["scores"], newest["tries"]) == (last["scores"], last["tries"])
    line = line_of(dataset["acceptance"])
    assert line in run.run("--status", task=False).stdout
    assert (
        line
        == f"{24 / tried:.0%} of {tried} images accepted; refused: luck > 0 {1 - 24 / tried:.0%}"
    )


def test_scores_judge_what_the_published_file_shows(start_run):
    """A stranger who scores the JPEGs finds the run's own values, and all of them accepted."""
    run, _ = start_run(total=4, images=4, options=[*ACCEPT, "--jpeg_quality", 20])
    assert run.start().wait(60) == 0, run.log()
    for path in run.data.glob("*/*_*.json"):
        scores = json.loads(path.read_bytes())["scores"]
        with Image.open(path.with_suffix(".jpg")) as image:
            [luck] = Luck().score([numpy.asarray(image.convert("RGB"))], [""])
        assert luck == pytest.approx(scores["luck"], rel=1e-6) and luck > 0


def test_captions_whose_tries_are_used_up(start_run):
    """Nobody's fault: the prompts are done, and nothing of them is drawn again."""
    never = [*ACCEPT[:3], "luck > 1000", "--max_tries", 3]
    run, server = start_run(total=3, images=2, options=never, FAKE_LOG="drawn")
    assert run.start().wait(60) == 0, run.log()
    found = [json.loads(path.read_bytes()) for path in run.data.glob("*/*.failed")]
    assert [record["reason"] for record in found] == ["not accepted"] * 6
    assert all(len({each["seed"] for each in record["rejected"]}) == 3 for record in found)
    assert not list(run.data.glob("*/*.jpg")) and not list(run.data.glob("*/.[0-9]*"))
    dataset = server.dataset("birds")
    assert (dataset["done"], dataset["set_aside"], dataset["images"]) == (3, 0, 0)
    acceptance = dataset["acceptance"]
    assert (acceptance["rejected"], acceptance["not_accepted"]) == (18, 6)
    secret = (run.root / ".server" / "metrics_secret").read_text()
    bearer = {"Authorization": f"Bearer {secret}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=bearer)
    figures = (
        'generate_captions_not_accepted_total{dataset="birds"} 6.0',
        'generate_images_judged_total{dataset="birds",verdict="rejected"} 18.0',
    )

    def shown() -> bool:  # the page's document is made every two seconds
        metrics = urllib.request.urlopen(asked, timeout=60).read().decode()
        return all(figure in metrics for figure in figures)

    until(shown, "the figures of what was not accepted")
    assert server.status()["quarantined"] == []
    before = drawn(run)
    server.stop()
    server.start()
    assert run.start().wait(60) == 0, run.log()
    assert drawn(run) == before


def test_which_images_are_accepted_does_not_depend_on_who_draws_them(start_run, tmp_path):
    """Nor on batches: two clients of other batches end with the seeds of one alone."""
    run, _ = start_run(total=8, images=4, options=ACCEPT, FAKE_BATCH_S="0.05")
    clients = [run.start("--batch_size", size) for size in (1, 3)]
    assert [client.wait(60) for client in clients] == [0, 0], run.log()
    (tmp_path / "alone").mkdir()
    alone = Run(tmp_path / "alone", total=8, images=4, options=ACCEPT)
    assert alone.run("--num_workers", 1, task=False).returncode == 0
    seeds = [
        {
            (record["prompt_index"], record["augmentation_idx"]): (
                record["seed"],
                [each["seed"] for each in record["rejected"]],
            )
            for record in check_scores(each)
        }
        for each in (run, alone)
    ]
    assert seeds[0] == seeds[1] and len(seeds[0]) == 32


def test_clients_killed_at_any_instant(start_run):
    """Nothing is lost, nothing doubled, and no seed that was tried in vain is tried again."""
    run, _ = start_run(
        total=12, images=4, options=ACCEPT, ttl_s=1, FAKE_LOG="drawn", FAKE_BATCH_S="0.1"
    )
    chance = random.Random(11)
    seen: set[int] = set()
    for number in range(6):
        if number > 2 and seen:
            break  # a busy machine may kill a client just after all its prompts are done
        killed_after(run, 8, chance.uniform(0, 0.2))
        noted = noted_tries(run)
        seen |= noted
        (run.folder / "drawn").rename(run.folder / f"drawn.{number}")
        assert run.start("--max_leases", 1).wait(60) == 0, run.log()
        assert not {seed for seed, _ in drawn(run)} & noted
    assert seen
    assert run.start().wait(60) == 0, run.log()
    run.check()
    check_scores(run)


def killed_after(run, images: int, seconds: float) -> None:
    """Start a client and kill it that long after it has drawn so many images and rejected one, or
    at its end."""
    client = run.start()
    until(
        lambda: (len(drawn(run)) > images and noted_tries(run)) or client.poll() is not None,
        run.log,
    )
    time.sleep(seconds)  # at another place each time
    client.kill()
    client.wait()


def noted_tries(run) -> set[int]:
    """The seeds that the folder says were tried in vain."""
    lines: list[bytes] = []
    for path in run.data.glob("*/.*.tries.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its prompt is done
            lines += path.read_bytes().splitlines()
    return {json.loads(line)["seed"] for line in lines}


def test_the_device_goes_on_while_images_are_scored(start_run):
    run, _ = start_run(
        total=8,
        images=4,
        options=ACCEPT,
        FAKE_LOG="drawn",
        FAKE_BATCH_S="0.2",  # or all is drawn before the first image is encoded
        LUCK_WAITS_FOR="drawn:13",  # the warm-up batch and two more
    )
    assert run.start().wait(90) == 0, run.log()
    run.check()


@pytest.mark.parametrize(
    "kind, says",
    [
        ("RuntimeError", "the score luck failed: RuntimeError: out of luck"),
        ("SystemExit", "the score luck failed: SystemExit: out of luck"),  # a library's sys.exit()
        ("KeyboardInterrupt", "a score failed: KeyboardInterrupt"),
        ("GeneratorExit", "a score failed: GeneratorExit"),
    ],
)
def test_a_score_that_fails_is_one_line_and_nobodys_fault(start_run, kind, says):
    """Without its thread the client waited for ever, and kept its leases."""
    run, server = start_run(total=3, images=2, options=ACCEPT, LUCK_FAILS=kind)
    assert run.start().wait(60) == 1
    last = run.log().splitlines()[-1]
    assert says in last
    dataset = server.dataset("birds")
    assert (dataset["waiting"], dataset["set_aside"]) == (3, 0)
    assert not list(run.data.glob("*/*.failed"))


def test_an_expression_that_no_image_fulfils_ends_the_client(start_run):
    """One line instead of a burnt allocation."""
    never = [*ACCEPT[:3], "luck > 1000", "--max_tries", 20]
    run, server = start_run(total=20, images=4, options=never, FAKE_LOG="drawn")
    assert run.start().wait(120) == 1
    last = run.log().splitlines()[-1]
    assert "none of the first 500 images was accepted by 'luck > 1000'" in last
    assert len(drawn(run)) < 700
    assert server.dataset("birds")["leased"] == 0


def test_another_expression_is_another_data_set(start_run):
    run, _ = start_run(total=2, images=2, options=ACCEPT)
    assert run.start().wait(60) == 0, run.log()
    for words, field in (
        (["--accept", "luck > 1"], "accept is 'luck > 1'"),
        (
            ["--accept", "luck > 2"],
            "--extend takes appended prompts, more images, another",
        ),
        (["--max_tries", 7], "max_tries is 7"),
        (["--scores", LUCK], "scores is 'luck 1, sha256"),
    ):
        refused = run.run(*words)
        assert refused.returncode == 1
        assert field in refused.stderr.splitlines()[-1] + refused.stdout


def test_a_preview_tells_what_an_expression_costs(tmp_path: Path) -> None:
    """Its contact sheet marks what is not accepted, and the estimate takes it into account."""
    run = Run(tmp_path, total=4, images=4, options=ACCEPT)
    said = run.run("--preview", 4, task=False).stdout
    assert re.search(r"^luck: -?[\d.]+ ", said, re.M)
    assert re.search(r"^    -?[\d.]+ \|[ ▁▂▃▄▅▆▇█]{24}\| [\d.]+$", said, re.M), "a histogram"
    held = int(re.search(r"luck > 0: holds for (\d+) of 16 images", said)[1])
    assert 0 < held < 16
    draws = draws_of(held / 16, 20)[0]
    line = f"{held / 16:.0%} of the images are accepted (of 16 here): {draws:.1f} drawn for each"
    assert line in said
    sheet = numpy.asarray(Image.open(tmp_path / "preview_birds.jpg").convert("RGB")).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1:].max(2) < 80)
    frames = red[1].reshape(-1)[: 4 * 264].reshape(4, 264)[:, 50:200].all(1)
    assert frames.sum() < 4, "some of the first prompt's images"
    estimated = run.run("--dry_run", task=False).stdout
    assert line.replace("of 16 here", "in --preview") in estimated
    assert run.run("--accept", "luck > 1", "--dry_run", task=False).stdout.count("is not known yet")


def test_what_an_acceptance_costs() -> None:
    assert draws_of(1.0, 8) == (1.0, 1.0)
    assert draws_of(0.0, 8) == (8.0, 0.0)
    draws, ends = draws_of(0.5, 2)
    assert (draws, ends) == (1.5, 0.75)


@pytest.mark.parametrize(
    "words, says",
    [
        (["--accept", "luck > 0"], "--accept, --max_tries and --keep_rejected need --scores"),
        (["--scores", "sharpness", "--max_tries", "3"], "--max_tries needs --accept"),
        (["--scores", "sharpness", "--keep_rejected", "3"], "--keep_rejected needs --accept"),
        (["--scores", "sharpness", "--accept", "luck > 0"], "--accept names luck, and --scores"),
        (["--scores", "sharpness", "--accept", "sharpness >"], "the expression"),
        (["--scores", "beauty"], "no such score"),
    ],
)
def test_options_that_do_not_fit_together(tmp_path: Path, words: list[str], says: str) -> None:
    refused = Run(tmp_path).run(*words, task=False)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_client_whose_images_are_all_rejected_does_not_stand_still() -> None:
    live = LiveLeases(LeaseLimits(ttl_s=10, stall_s=30), 0)
    live.add(0, "1-1", "c", bare=False)
    for now in range(0, 100, 5):
        said = Heartbeat("c", ["1-1"], "drawing", rejected=now)
        assert live.heartbeat(now, said) == []
        assert live.expired(now) == []
    for now in range(100, 150, 5):
        live.heartbeat(now, Heartbeat("c", ["1-1"], "drawing", rejected=95))
    assert live.expired(150) == ["1-1"]
