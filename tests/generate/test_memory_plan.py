"""What of a model goes where: the plan for a Fake card, and batch sizes that were halved."""

import json
import re
import time

import pytest

from common.files import CHECKOUT
from generate.image_models.model_recipes import family_of
from generate.launch import task_memory
from generate.pipelines import memory_plan
from generate.pipelines.batch_sizes import KEPT_S, BatchSizes
from generate.pipelines.faults import MEMORY, PASSING, CannotStart
from generate.pipelines.memory_plan import Card, host_memory_gib, plan_for
from generate.pipelines.pipeline import GeneratorSettings

SD3 = "stabilityai/stable-diffusion-3-medium-diffusers"
FLUX = "black-forest-labs/FLUX.1-schnell"
FLUX2 = "black-forest-labs/FLUX.2-dev"
QWEN = "Qwen/Qwen-Image"
CHROMA = "lodestones/Chroma1-HD"


def fake(gib, free=None, name="Fake card"):
    return Card(name, gib, gib - 0.5 if free is None else free, (9, 0))


def plan(model, card, without_t5=False, **settings):
    given = GeneratorSettings(model, **({"height": 1024, "width": 1024} | settings))
    return plan_for(given.resolved(), given, card, without_t5)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    monkeypatch.setattr(memory_plan, "host_memory_gib", lambda: None)


@pytest.mark.parametrize(
    "model, gib, batch, offload, slicing",
    [
        (SD3, 79.1, 16, "none", False),
        (SD3, 39.5, 8, "none", True),
        (SD3, 23.6, 4, "none", True),
        (FLUX, 79.1, 16, "none", True),
        (FLUX, 39.5, 4, "none", True),
        (QWEN, 79.1, 15, "none", True),
        (QWEN, 47.4, 5, "model", True),
        (FLUX2, 79.1, 11, "model", True),
        (CHROMA, 23.6, 3, "model", True),
    ],
)
def test_a_plan_fits_the_weights_to_the_card(model, gib, batch, offload, slicing):
    found = plan(model, fake(gib))
    assert (found.batch_size, found.offload, found.vae_slicing) == (batch, offload, slicing)
    assert f"offload {offload}" in found.line and f"{batch} images a batch" in found.line


def test_the_largest_part_of_a_model_is_on_the_card_when_it_is_offloaded():
    """FLUX.2's transformer of 60 GiB, not 0.87 of all 105; the table against the real sizes."""
    from benchmarks.real_configs import REAL_MODELS

    gib = 2e9 / memory_plan.GIB
    for name, real in REAL_MODELS.items():
        row = family_of(name)
        assert row.weights_gib and row.largest_gib and row.largest_gib < row.weights_gib, name
        digits = 0.5 / 10 ** len(real.billions.partition(".")[2])
        assert row.largest_gib > (float(real.billions) - digits) * gib * 0.98, name
        others = row.weights_gib - row.largest_gib
        assert others < row.largest_gib * 1.1, (name, "another part is larger")
    with pytest.raises(CannotStart, match="not even part by part"):
        plan(FLUX2, fake(47.5))


def test_the_page_of_models_says_what_is_planned():
    """Its table of models: pixels, steps, GiB, and the batches on cards of 24 and 80 GB."""
    lines = (CHECKOUT / "docs" / "models.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| `[^ ]+/", line)]
    assert len(rows) >= 10
    for model, _, numbers, gib, *cards, _ in rows:
        row = family_of(model.strip("`"))
        said = f"{row.size}, {row.steps}" + " with guidance" * (row.negative_prompt is not None)
        assert (numbers, gib) == (said, f"{row.weights_gib:g}"), model
        for words, memory in zip(cards, (23.6, 79.1), strict=True):
            try:
                found = plan(model.strip("`"), fake(memory), height=row.size, width=row.size)
                planned = f"{found.batch_size}" + ", parts" * (found.offload == "model")
            except CannotStart:
                planned = "no"
            assert words == planned, (model, memory)


def test_options_stand_and_small_images_fit_better():
    assert plan(FLUX, fake(39.5), batch_size=6).batch_size == 6
    assert plan(SD3, fake(79.1), offload="model").offload == "model"
    assert plan(SD3, fake(23.6), height=512, width=512).batch_size == 16
    assert plan(QWEN, fake(39.5), quantize="bitsandbytes_4bit").offload == "none"
    assert plan(SD3, fake(15.7), without_t5=True).offload == "none"
    assert plan("tiny", None).batch_size == 1, "on a CPU nothing is planned"
    unknown = plan("nobody/a-model", fake(8.0))
    assert (unknown.offload, unknown.line) == ("model", "")


def test_the_weights_of_an_unknown_model_are_counted_once_it_is_loaded():
    """As files of the tiny model say: each of its weights is stored once."""
    import safetensors
    import torch

    from generate.image_models.model_recipes import TINY
    from generate.pipelines.diffusers_pipeline import counted_gib
    from generate.pipelines.image_generator import ImageGenerator

    generator = ImageGenerator(GeneratorSettings("tiny"))
    generator.load()
    stored = 0
    for path in TINY.rglob("*.safetensors"):
        with safetensors.safe_open(path, "pt") as file:
            stored += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    counted, largest = (
        gib * memory_plan.GIB / torch.float32.itemsize
        for gib in counted_gib(generator.pipeline.pipe)
    )
    assert stored <= counted < stored * 1.02, "besides buffers that are made anew"
    assert stored / 5 < largest < stored, "of its five parts"
    given = GeneratorSettings("nobody/a-model", height=1024, width=1024)
    fits, does_not = (
        plan_for(given.resolved(), given, fake(23.6), False, (gib, 14.0)) for gib in (15.0, 22.0)
    )
    assert (fits.batch_size, fits.offload, fits.vae_slicing) == (4, "none", True)
    assert (does_not.batch_size, does_not.offload) == (4, "model")
    with pytest.raises(CannotStart, match="not even part by part"):
        plan_for(given.resolved(), given, fake(23.6), False, (60.0, 40.0))


QWENS_LINE = (
    "53.7 GiB of weights do not fit on Fake card (39.5 GiB), not even part by part: the largest "
    "has 38.1, and a step needs 1.8 beside; --offload model, --quantize, a smaller --size or"
)


@pytest.mark.parametrize(
    "model, card, settings, fault, says",
    [
        (FLUX2, fake(39.5), {}, MEMORY, "105.0 GiB of weights do not fit on Fake card (39.5 GiB)"),
        (QWEN, fake(39.5), {"height": 1328, "width": 1328}, MEMORY, QWENS_LINE),
        (FLUX, fake(23.6), {}, MEMORY, "the largest has 22.2, and a step needs 1.5 beside"),
        (QWEN, fake(39.5), {"offload": "none"}, MEMORY, "--offload model, --quantize"),
        (SD3, fake(79.1, free=9.0), {}, PASSING, "14.3 GiB of weights wait for 70.1 GiB"),
    ],
)
def test_what_cannot_fit_is_refused_with_one_line(model, card, settings, fault, says):
    with pytest.raises(CannotStart) as refused:
        plan(model, card, **settings)
    assert refused.value.fault == fault and says in str(refused.value)


def test_what_fits_without_its_steps_is_tried_where_the_option_asks_for_it():
    """The step's share is an estimate; the option goes before it, as --batch_size does."""
    asked = plan(FLUX, fake(23.6), offload="model")
    assert (asked.batch_size, asked.offload) == (1, "model")


def test_cudas_own_is_not_waited_for_as_if_others_had_it():
    """A process's context is no longer free when the card is asked, on an empty card, too."""
    assert plan(FLUX2, fake(62.0, free=61.4)).batch_size == 1
    with pytest.raises(CannotStart) as waits:
        plan(FLUX2, fake(62.0, free=60.4))
    assert waits.value.fault == PASSING


def test_what_is_offloaded_must_fit_into_the_task(monkeypatch, tmp_path):
    """SLURM's --mem is a control group's limit, of the group or of one above it."""
    group = tmp_path / "slurm" / "job_7" / "step_0"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text(f"{24 << 30}\n")
    (tmp_path / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    assert host_memory_gib(tmp_path, tmp_path / "cgroup") == 24
    assert host_memory_gib(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr(memory_plan, "host_memory_gib", lambda: 24.0)
    with pytest.raises(CannotStart, match=r"24\.0 GiB of memory.*--mem"):
        plan(QWEN, fake(47.4))
    assert plan(FLUX, fake(79.1)).offload == "none", "what lies on the card needs no room there"


def test_a_halved_batch_is_kept_for_its_card_and_for_a_week(tmp_path, monkeypatch):
    path = tmp_path / "batch_sizes.jsonl"
    mine, other = (BatchSizes(path, ["T4", SD3, 512, None, size]) for size in (1, 2))
    assert mine.smallest() is None
    mine.note(4)
    mine.note(2)
    with open(path, "a") as file:
        file.write('{"key": ["T4"\n[]\n' + json.dumps({"key": mine.key, "batch_size": 1}) + "\n")
    assert mine.smallest() == 2 and other.smallest() is None, "torn and older rows count nothing"
    later = time.time() + KEPT_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert mine.smallest() is None
    mine.note(8)
    assert mine.smallest() == 8
    BatchSizes(None, []).note(1)
    assert BatchSizes(None, []).smallest() is None


@pytest.mark.parametrize(
    "mem, gib",
    [("24g", 24), ("24G", 24), ("24000", 24000 / 1024), ("1T", 1024), ("0", None), ("", None)],
)
def test_mem_of_slurm(mem, gib):
    assert task_memory.gib_of(mem) == gib


def test_too_little_mem_is_noted_with_the_estimate():
    assert task_memory.note("24g", 14.3) is None and task_memory.note("0", 105.0) is None
    said = task_memory.note("24g", 31.4)
    assert "31.4 GiB" in said and "--mem=24g may be too little, --mem=36g is enough" in said
