"""The table knows every field that a sample's JSON can hold: none of them ends in `extra`."""

import sys
from pathlib import Path

import pytest

from generate import generate_images
from generate.client.generation import describer, generator_settings, recipes_of
from generate.client.work import Index, Sample
from generate.dataset import samples
from generate.dataset.scan import IndexFiles
from generate.launch.start import define
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.text_lengths import TextLengths
from postprocess_dataset import sample_json, table

PLACE = samples.Place("1-1", "node", "card", "4242_7")


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(item, *options) -> the bytes of the JSON of its image, by the tiny model."""

    def draw(item, *options):
        (tmp_path / "shapes.json").write_text('["a red circle on a white background"]')
        command = ["generate_images.py", str(tmp_path / "shapes.json"), "--model", "tiny"]
        root = Path(tmp_path / "out")
        monkeypatch.setattr(sys, "argv", [*command, "--output_root", str(root), *options])
        args = generate_images.options()
        definition = define(args, [item], root)
        generator = ImageGenerator(generator_settings(args, definition, root))
        generator.load()
        index = Index(0, "1-1", item, IndexFiles(), turn=1)
        text = {"text": item["prompt"], "llm_model_name": None, "backend": None}
        index.record = {
            "prompt_index": 0,
            "original_prompt": item["prompt"],
            "source": item["source"],
            "texts": [text],
            "short": None,
        }
        sample = Sample(index, 0, recipes_of(generator.recipe, definition).of(0, 0, item))
        image = generator.generate([sample.text], [1], [sample.recipe])[0]
        count = TextLengths(generator.pipeline.pipe, generator.arguments)
        metadata = describer(args, definition, generator, count)(sample, image)
        samples.publish_sample(tmp_path, image.pixels, metadata, PLACE, args.jpeg_quality)
        return (tmp_path / "000000" / "0_0.json").read_bytes()

    return draw


def test_no_field_of_a_sample_is_unknown_to_the_table(drawn):
    """A row is the JSON: no key in `extra`, none of the table's that a sample never has."""
    content = drawn({"prompt": "a red circle on a white background", "source": ["mine"]})
    parsed = sample_json.parse_together([content])
    assert parsed is not None, "no sample takes the fast way"
    row = parsed.to_pylist()[0]
    record, fault = sample_json.parse_one(content)
    assert fault is None and record.pop("extra") is None and row.pop("extra") is None
    assert record == row and record.keys() == table.JSON_FIELDS.keys()
