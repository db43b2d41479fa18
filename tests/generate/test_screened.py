"""A prompts file that enters a run: what is refused is not generated, and says so."""

import json

import pytest

from common.command_line import UserError
from common.screening import Rules, Screen
from common.validation_set import ValidationSet
from generate.dataset.captions import read_captions
from generate.dataset.prompts_file import read_prompts
from generate.dataset.scan import scan_folder
from generate.dataset.screened import refused_line, screen_of, screened
from tests.fakes.running_server import until

ITEMS = [
    {"prompt": "a bird", "variations": ["a bird at night", "1girl, nude", "ein Vogel im Schnee"]},
    "a 15 year old in lingerie",
    {"prompt": "a [subject] in the snow", "variations": ["a bird in the snow"]},
]


def write(folder, items=ITEMS):
    path = folder / "birds.json"
    path.write_text(json.dumps(items))
    return path


def test_items_and_their_variations_are_judged(tmp_path):
    path = write(tmp_path)
    items = read_prompts(path)
    screen = screen_of(path)
    first, second, third = (screened(screen, item) for item in items)
    assert first.refusal == "" and first.variations == ["a bird at night"]
    assert first.refused == {"sexual content and an age word": 1, "not English": 1}
    assert second.refusal.startswith("refused: sexual content and an age word (15 year old")
    assert third.refusal == "refused: placeholder ([subject])"
    line = refused_line(path, items, screen)
    assert line.startswith("not generated: 2 of 3 prompts (1 placeholder, 1 sexual content and an")
    assert "2 variations" in line and "first item 1: 15 year old + lingerie" in line


def test_the_rules_and_the_validation_set_of_the_combined_file_hold(tmp_path):
    path = write(tmp_path, [{"prompt": "a quiet harbor at dawn", "variations": ["a naked man"]}])
    validation = ValidationSet.of(["a snowy mountain seen from a train window"])
    screen = Screen(Rules(sexual="keep"), validation)
    screen.save_beside(path)
    assert screened(screen_of(path), read_prompts(path)[0]).variations == ["a naked man"]
    leak = {
        "prompt": "a harbor at dawn",
        "variations": ["a train window, a snowy mountain seen from a"],
    }
    assert screened(screen_of(path), leak).refused == {"validation set: same words": 1}
    path.with_name("birds.screening.npz").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"birds\.screening\.npz"):
        screen_of(path)


def test_a_run_ends_and_a_refused_prompt_keeps_its_place(start_run):
    """Index 1 has no image, its .prompts says why; the others have theirs; all three are done."""
    run, server = start_run(total=3, images=3)
    items = json.loads((run.folder / "birds.json").read_text())
    items[1]["prompt"] = "a nude teenager"
    items[2]["variations"][0] = "a bird and a n4ked woman"
    (run.folder / "birds.json").write_text(json.dumps(items))
    assert run.start().wait(60) == 0, run.log()
    until(lambda: server.dataset("birds")["done"] == 3, run.log)
    assert server.dataset("birds")["images"] == 6 and run.count() == 6
    refused = read_captions(run.data, 1)
    assert refused["texts"] == [] and refused["short"] == {
        "missing": 3,
        "reason": "refused: sexual content and an age word (teenager + nude)",
    }
    texts = [caption["text"] for caption in read_captions(run.data, 2)["texts"]]
    assert texts == [items[2]["prompt"], *items[2]["variations"][1:3]]
    assert all(files.done(3) for files in scan_folder(run.data, 0).values())
    assert "prompt 1 is not generated: refused: sexual content and an age word" in run.log()
