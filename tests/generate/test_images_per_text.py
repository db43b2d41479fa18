"""--images_per_text: several images of each text, which differ in their seeds alone."""

import json

from generate.dataset.captions import read_captions


def texts_of(run, index):
    """(the distinct texts of a prompt in order, how many images each has)."""
    texts = [text["text"] for text in read_captions(run.data, index)["texts"]]
    places = list(dict.fromkeys(texts))
    assert texts == [text for text in places for _ in range(3)], "not one after the other"
    return places


def test_each_text_is_drawn_with_several_seeds(start_run):
    """Also after an extension, beyond the texts that the file has, and for lost captions."""
    run, server = start_run(total=2, images=6, options=["--images_per_text", "3"])
    assert run.start().wait(120) == 0, run.log()
    run.check()
    bird = "a painting of bird number 1"
    assert texts_of(run, 1) == [bird, f"{bird}, view 0"]
    samples = [json.loads(path.read_text()) for path in run.data.glob("*/*.json")]
    assert len({sample["seed"] for sample in samples}) == 12
    (run.data / "000000" / "0.prompts").unlink()
    (run.data / "000000" / "0_4.jpg").unlink()

    run.images = 33  # 11 texts, of which the file has 10
    assert run.start("--extend").wait(120) == 0, run.log()
    run.check(images=30)
    for index in range(2):
        assert len(texts_of(run, index)) == 10
        assert read_captions(run.data, index)["short"]["missing"] == 3
    counts = server.dataset("birds")
    assert (counts["done"], counts["images"], counts["short_images"]) == (2, 60, 6)


def test_no_llm_is_asked_for_one_text(start_run):
    """--augment_prompts=False: each prompt as often as said."""
    run, _server = start_run(
        total=2,
        variations=False,
        options=["--images_per_text", "3", "--augment_prompts=False"],
    )
    assert run.start().wait(120) == 0, run.log()
    run.check(images=3)
    assert texts_of(run, 1) == ["a painting of bird number 1"]
    uneven = run.run("--augment_prompts", "--expected_samples_per_index", "7")
    assert uneven.returncode == 1
    assert "7 is no multiple of --images_per_text 3" in uneven.stderr
