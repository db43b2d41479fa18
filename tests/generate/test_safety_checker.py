"""Images that the model's own safety checker blackens: nobody is blamed. Real clients and server.

The checker of SD 1.5 itself: test_recipe_pipelines.py.
"""

import json


def test_a_flagged_image_is_given_up_and_nobody_is_blamed(start_run):
    """Five flagged images in a row: the prompt is done with the others, no strike, no error."""
    run, server = start_run(
        total=4, images=8, FAKE_FLAGGED="number 2, view [1-5]$", server=["--max_failures", 2]
    )
    assert run.start().wait(60) == 0, run.log()
    given_up = {f"2_{aug}" for aug in range(2, 7)}
    run.check(given_up=given_up)
    for name in given_up:
        mark = json.loads((run.data / "000000" / f"{name}.failed").read_text())
        assert mark["reason"] == "safety checker"
    assert run.log().count("generated again with the next seed") == 5
    assert "5 images fewer than asked for" in run.log()
    counts = server.dataset("birds")
    assert counts["done"] == 4 and counts["set_aside"] == 0
    assert counts["images"] == 4 * 8 - 5
    assert not server.status()["errors"] and not server.status()["quarantined"]


def test_the_next_seed_may_not_be_flagged(start_run):
    run, server = start_run(
        total=4, images=4, FAKE_FLAGGED="number 1, view 2", FAKE_FLAGGED_ONCE="1"
    )
    assert run.start().wait(60) == 0, run.log()
    run.check()
    assert server.dataset("birds")["images"] == 16
