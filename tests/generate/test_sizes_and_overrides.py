"""A mix of sizes, and what single items of the prompts file ask for: drawn so, and recorded so."""

import json
import sys
from argparse import Namespace
from collections import Counter

import numpy
import pytest

from common.command_line import UserError
from generate.client.recipes import Recipes
from generate.dataset.definition import Differs, compare
from generate.dataset.overrides import read_overrides
from generate.dataset.prompts_file import list_sha256, read_item
from generate.dataset.sizes import EXAMPLE, Mix, size_from
from generate.image_models.model_recipes import family_of
from generate.launch.sizes import check_batch_size, check_items, sizes_of
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import CannotGenerate, GeneratorSettings
from tests.generate.test_client_overlap import a_client, answered, leased

MIX = "32x32:0.5,48x32:0.25,32x48:0.25"
OWN = {
    "size": "64x48",
    "negative_prompt": "people",
    "seed": 7,
    "num_inference_steps": 2,
    "guidance_scale": 1.5,
}


def test_the_shares_of_a_mix_are_what_is_drawn():
    """Each size as often as its share says, by the image's place alone."""
    mix = Mix.from_text(EXAMPLE)
    sizes = [mix.size(0, index, aug) for index in range(400) for aug in range(10)]
    drawn = Counter(sizes)
    assert drawn.keys() == {(1024, 1024), (768, 1344), (1344, 768)} == set(mix.sizes)
    # 6 standard deviations of 4,000 draws
    assert abs(drawn[1024, 1024] - 2000) < 190 and abs(drawn[768, 1344] - 1000) < 165
    assert mix.size(0, 12345, 3) == (1024, 1024)  # on every machine, for ever
    assert sizes != [mix.size(1, index, aug) for index in range(400) for aug in range(10)]
    assert Mix.from_text(mix.text()) == mix and mix.largest == (1024, 1024)
    assert Mix.from_text("64x32, 32x64").shares == (0.5, 0.5)


@pytest.mark.parametrize("text", ["1024", "0x64", "64x-64", "64x64:0", "64x64:nan", "64x64,64X64"])
def test_what_is_no_mix_is_said(text):
    with pytest.raises(ValueError, match=r"size|share"):
        Mix.from_text(text)


def test_an_item_holds_overrides_and_they_are_part_of_the_list():
    item = read_item({"prompt": "a bird", "size": "64X48", "guidance_scale": 3, "seed": None})
    assert item == {"prompt": "a bird", "source": [], "size": "64x48", "guidance_scale": 3.0}
    assert list_sha256([item]) != list_sha256([read_item("a bird")])
    assert list_sha256([read_item("a bird")]).startswith("1319e598")  # as before there were any


@pytest.mark.parametrize(
    "name, value",
    [
        ("size", "64"),
        ("size", 64),
        ("negative_prompt", ["people"]),
        ("seed", -1),
        ("seed", True),
        ("num_inference_steps", 0),
        ("guidance_scale", "high"),
        ("guidance_scale", 1e9),
        ("guidance_scale", 10**400),
    ],
)
def test_an_override_that_cannot_be_used_is_named(name, value):
    with pytest.raises(ValueError, match=f'has a "{name}" that cannot be used: .*(expected|size)'):
        read_overrides({"prompt": "a bird", name: value})


def test_what_a_model_cannot_is_said_when_the_file_enters_a_run():
    args = Namespace(pipeline=None, model="tiny", data_path="p.json", resolution=None, size=None)
    good = read_item({"prompt": "a bird", **OWN})
    bad = read_item({"prompt": "a bird", "size": "70x64"})
    tiny = family_of("tiny")
    check_items(args, tiny, [good])
    with pytest.raises(UserError, match=r"p\.json: item 1: tiny makes multiples of 16 .*70x64"):
        check_items(args, tiny, [good, bad])
    args.model = "black-forest-labs/FLUX.1-schnell"
    with pytest.raises(UserError, match=r"item 0: .* takes no negative prompt"):
        check_items(args, family_of(args.model), [good])
    args.sizes = "1024x1024,100x1024"
    with pytest.raises(UserError, match="multiples of 16 pixels only, not 100x1024"):
        sizes_of(args, family_of(args.model))
    args.sizes, args.size = None, "1024x768"
    hidream = "HiDream-ai/HiDream-I1-Full"
    with pytest.raises(UserError, match=r"makes only 1024x1024, 1360x768, .* not 1024x768"):
        sizes_of(args, family_of(hidream))
    args.sizes, args.size = "64x64,64x32", "64x64"
    with pytest.raises(UserError, match="--size and --sizes cannot be given together"):
        sizes_of(args, tiny)


def test_a_batch_where_neighbours_would_change_images_is_refused():
    kandinsky = "kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers"
    args = Namespace(pipeline=None, model=kandinsky, batch_size=4)
    with pytest.raises(UserError, match="generates one by one"):
        check_batch_size(args, family_of(kandinsky))
    check_batch_size(args, family_of("tiny"))
    args.batch_size = 1
    check_batch_size(args, family_of(kandinsky))


def test_a_mix_is_part_of_the_definition():
    """Also of one that was begun before there were mixes."""
    older = {"total": 1, "images_per_prompt": 1, "height": 64}
    compare(older, older | {"sizes": None}, "dataset.yaml")
    for stored in (older, older | {"sizes": "64x64:1"}):
        with pytest.raises(Differs, match="sizes"):
            compare(stored, older | {"sizes": MIX}, "dataset.yaml")


def test_an_item_is_drawn_as_it_asks():
    """By the tiny model: size, steps, guidance, negative prompt and seed reach the pipeline."""
    generator = ImageGenerator(GeneratorSettings("tiny", batch_size=2))
    generator.load()
    recipes = Recipes(generator.recipe, run_seed=3, mix=Mix.from_text(MIX))
    asked = recipes.of(0, 0, OWN)
    assert asked.alike == (48, 64, 2, 1.5) and asked.negative_prompt == "people"
    assert [recipes.seed(0, aug, OWN) for aug in (0, 2)] == [7, 9]
    assert recipes.seed(0, 0, OWN, attempt=1) != 7 and recipes.of(0, None, OWN) == generator.recipe
    text = "a red circle on a white background"

    def drawn(**other):
        wanted = recipes.of(0, 0, OWN | other)
        return generator.generate([text], [recipes.seed(0, 0, OWN | other)], [wanted])[0].pixels

    own = drawn()
    assert own.shape == (48, 64, 3) and numpy.array_equal(own, drawn())
    others = {
        "size": "32x48",
        "negative_prompt": "a blue star",
        "seed": 8,
        "num_inference_steps": 1,
        "guidance_scale": 6.0,
    }
    for name, value in others.items():
        assert not numpy.array_equal(own, drawn(**{name: value})), name
    # larger images, fewer at a time; and what does not fit is the item's fault, not the device's
    assert generator.batch_size_of(recipes.of(0, 0, {"size": "96x64"})) == 1
    generator.pipeline.pipe = Full()
    with pytest.raises(CannotGenerate, match="not even one image of 64x96"):
        generator.generate([text], [1], [recipes.of(0, 0, {"size": "96x64"})])


class Full:
    """A pipeline on a device without memory."""

    def __call__(self, prompt, height, width, **rest):
        raise MemoryError("out of memory")


def test_a_batch_holds_one_shape(tmp_path):
    """The oldest full one first; nothing waits for ever to become full."""
    made = a_client(tmp_path, images=4, mix="8x8,16x8")
    indices = leased(made) + leased(made)
    for index in indices:
        answered(made, index, images=4)
    sizes = Counter(sample.recipe.alike for sample in made.work.ready)
    assert len(sizes) == 2 and sizes.total() == 16
    made.work.no_more_leases = True
    batches = []
    while made.work.ready:
        batches.append(made.next_batch(lambda recipe: 3))
    assert all(len({sample.recipe.alike for sample in batch}) == 1 for batch in batches)
    short = [batch for batch in batches if len(batch) < 3]
    assert sum(map(len, batches)) == 16 and len(short) <= 2 and short == batches[-len(short) :]


def test_a_run_of_many_sizes(start_run):
    """Server and client as processes of their own: each image has its size, its JSON says so."""
    run, _server = start_run(total=6, images=4, options=["--sizes", MIX, "--seed", "5"])
    items = json.loads((run.folder / "birds.json").read_text())
    items[2] |= OWN | {"guidance_scale": None}
    (run.folder / "birds.json").write_text(json.dumps(items))
    command = run.command()
    command[command.index("--resolution") : command.index("--resolution") + 2] = []
    assert run.begin(command).wait(120) == 0, run.log()
    run.check()
    mix = Mix.from_text(MIX)
    for path in run.data.glob("*/*.json"):
        sample = json.loads(path.read_text())
        index, aug = sample["prompt_index"], sample["augmentation_idx"]
        size = (sample["height"], sample["width"])
        own = index == 2
        assert size == (size_from(OWN["size"]) if own else mix.size(5, index, aug)), path
        said = (sample["num_inference_steps"], sample["negative_prompt"], sample["guidance_scale"])
        assert said == ((2, "people", 1.0) if own else (1, None, 1.0))
        assert (sample["seed"] == 7 + aug) == own


def test_the_command_line_takes_a_mix(monkeypatch, capsys):
    from generate import generate_images

    monkeypatch.setattr(sys, "argv", ["generate_images.py", "p.json", "--sizes", MIX])
    assert generate_images.options().sizes == MIX
