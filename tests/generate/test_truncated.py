"""--truncated: what becomes of texts that are longer than the model reads. Real clients, server."""

import json

import pytest

from tests.fakes.running_server import until

WORDS = 6  # "a painting of bird number 1, view 2" has 8, the original prompt 6


def shorten(run):
    """One variation of each prompt is read whole."""
    items = json.loads((run.folder / "birds.json").read_text())
    for item in items:
        item["variations"][0] = "a bird at sea"
    (run.folder / "birds.json").write_text(json.dumps(items))


@pytest.mark.parametrize("policy, drawn", [("keep", 16), ("skip", 8)])
def test_kept_or_left_out_and_counted(start_run, policy, drawn):
    """Nobody is blamed either way, and the server counts them once."""
    run, server = start_run(
        total=4, images=4, options=["--truncated", policy], FAKE_READS=str(WORDS)
    )
    shorten(run)
    assert run.start().wait(120) == 0, run.log()
    run.check(given_up={f"{i}_{aug}" for i in range(4) for aug in (2, 3)} if drawn == 8 else ())
    cut = [json.loads(path.read_text())["truncated"] for path in run.data.glob("*/*.json")]
    assert len(cut) == drawn and cut.count(["text_encoder"]) == drawn - 8
    counts = server.dataset("birds")
    assert (counts["done"], counts["set_aside"], counts["images"]) == (4, 0, drawn)
    assert counts["truncated"] == 8 and not server.status()["errors"]
    marks = [json.loads(path.read_text()) for path in run.data.glob("*/*.failed")]
    assert len(marks) == 16 - drawn
    assert {(mark["reason"], mark["error"]) for mark in marks} <= {
        ("truncated", "truncated: text_encoder 8 of 6 tokens")
    }
    said = "8 texts are longer than the model reads"  # in a document that is made every 2 s
    until(lambda: said in run.run("--status", task=False).stdout, "the status document", 30)


def test_the_first_one_stops_the_client(start_run):
    """With one line that names it; its leases go back, and nobody is blamed."""
    run, server = start_run(
        total=2, images=4, options=["--truncated", "fail"], FAKE_READS=str(WORDS)
    )
    shorten(run)
    assert run.start().wait(120) == 1, run.log()
    last = run.log().splitlines()[-1]
    assert "longer than the model reads (truncated: text_encoder 8 of 6 tokens)" in last
    counts = server.dataset("birds")
    assert (counts["set_aside"], counts["leased"]) == (0, 0)
    assert set(counts["given_back"]) == {"released"}


def test_a_text_that_one_encoder_has_read_whole_is_not_counted():
    """SD3 and FLUX.1 read with T5 what CLIP has cut. A class without tokenizers says nothing."""
    from generate.pipelines.text_lengths import truncated, unread

    for t5, cut in ((200, False), (300, True)):
        lengths = {"text_encoder": (90, 77), "text_encoder_3": (t5, 256)}
        assert truncated(lengths)[0] == "text_encoder"
        assert unread(truncated(lengths), lengths) is cut
    assert not unread([], {}) and not unread([], {"text_encoder": (9, 77)})


def test_another_policy_is_another_data_set(start_run):
    run, _server = start_run(total=1, images=2, options=["--truncated", "skip"])
    assert run.start().wait(120) == 0, run.log()
    other = run.run("--truncated", "keep")
    assert other.returncode == 1 and "truncated is None" in other.stderr, other.stderr
