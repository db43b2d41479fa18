"""The five processors as a user runs them: real schemas, determinism."""

import csv
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from combine_prompts.chat_debris import repair
from combine_prompts.readers import NOT_FOR_TRAINING
from tests.combine_prompts.processing import counts, process
from tests.fakes.forked_script import ROOT

SOURCES = {
    "image_reward": "image_reward",
    "sac": "sac",
    "pickscore": "pickscore",
    "hpdv2": "HPDv2",
    "gecko": "gecko",
}


@pytest.mark.parametrize("source", SOURCES)
def test_examples(source, tmp_path):
    ended, prompts = process(source, ROOT / "examples" / source, tmp_path / "one.json")
    table = counts(ended)
    assert table["read"] == table["kept"] + sum(
        n for name, n in table.items() if name.startswith("dropped")
    ) and table["kept"] == len(prompts)
    assert len(set(prompts)) == len(prompts) and all(
        prompt == prompt.strip() and "  " not in prompt for prompt in prompts
    )
    command = [sys.executable, ROOT / "combine_prompts" / f"process_{source}.py"]
    command += ["--input", ROOT / "examples" / source, "--output", tmp_path / "two.json"]
    subprocess.run(command, check=True, capture_output=True)  # with another hash seed
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.json",
        "two.json",
    ]  # no draft is left


def test_examples_are_what_the_script_makes(tmp_path):
    copy = tmp_path / "examples" / "make_examples.py"
    copy.parent.mkdir()
    copy.write_text((ROOT / "examples" / "make_examples.py").read_text())
    subprocess.run([sys.executable, copy], check=True)
    for path in [
        *(ROOT / "examples" / "hpdv2").iterdir(),
        ROOT / "examples" / "gecko" / "prompts.csv",
        ROOT / "examples" / "shapes.json",
    ]:
        assert (copy.parent / path.relative_to(ROOT / "examples")).read_bytes() == path.read_bytes()
    for path in [
        *(ROOT / "examples" / "image_reward").iterdir(),
        *(ROOT / "examples" / "pickscore").iterdir(),
    ]:
        assert pq.read_table(copy.parent / path.relative_to(ROOT / "examples")) == pq.read_table(
            path
        )


def test_image_reward(tmp_path):
    _, prompts = process("image_reward", ROOT / "examples" / "image_reward", tmp_path / "out.json")
    assert (
        prompts[0] == "a red circle above a blue square on a green background"
    )  # train first, whatever the names' order
    assert "a street diner in the 1980s, ((neon signs)), wet asphalt, 16:9" in prompts
    assert (
        prompts.count("a teapot shaped like a small house, watercolor") == 1
    )  # the same only after cleaning
    _, ascii = process(
        "image_reward", ROOT / "examples" / "image_reward", tmp_path / "ascii.json", "--ascii"
    )
    assert all(prompt.isascii() for prompt in ascii)


def test_pickscore_reads_one_column_in_little_memory(tmp_path):
    """400,000 rows of v1's 17 columns; the other columns would take 300 MB and more."""
    rows = 400_000
    text = pa.array([f"{i:032x}{i:032x}" for i in range(rows)])
    captions = pa.array([f"a prompt with number {i % 5000} in it" for i in range(rows)])
    table = pa.table({"caption": captions, **{f"image_{i}_url": text for i in range(4)}})
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=100_000)
    output = tmp_path / "out.json"
    script = ROOT / "combine_prompts" / "process_pickscore.py"
    # VmHWM, since ru_maxrss would count the parent's memory too
    code = f"""
import re, runpy, sys
sys.argv = ['process_pickscore.py', '--input', {str(tmp_path)!r}, '--output', {str(output)!r}]
try:
    runpy.run_path({str(script)!r}, run_name='__main__')
except SystemExit as end:
    assert not end.code
print('peak', int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads(output.read_text())) == 5000
    assert int(ended.stdout.rsplit("peak", 1)[1]) < 500


def test_sac_takes_the_order_of_the_ids(tmp_path):
    _, prompts = process(
        "sac", ROOT / "examples" / "sac" / "sac_public_2022_06_29.sqlite", tmp_path / "out.json"
    )
    assert prompts[4:7] == [
        "world tree",
        "World Tree",
        "the world tree growing on a floating island, oil painting",
    ]
    assert (
        "a robot reading a newspaper in the rain" in prompts
        and "quiet harbor at dawn #sea #morning" in prompts
    )


def test_hpdv2_marks_the_captions_of_coco(tmp_path):
    process("hpdv2", ROOT / "examples" / "hpdv2", tmp_path / "out.json")
    items = json.loads((tmp_path / "out.json").read_text())
    marked = [item for item in items if not isinstance(item, str)]
    assert marked and all(item["source"] == ["HPDv2", "COCO"] for item in marked)
    assert len(marked) < len(items)


def test_hpdv2_never_reads_drawbench(tmp_path):
    _, prompts = process("hpdv2", ROOT / "examples" / "hpdv2", tmp_path / "out.json")
    assert not any("validation set" in prompt for prompt in prompts)
    named, _ = process(
        "hpdv2",
        [
            ROOT / "examples" / "hpdv2" / "drawbench.json",
            ROOT / "examples" / "hpdv2" / "photo.json",
        ],
        tmp_path / "named.json",
        status=3,
    )
    assert (
        "drawbench.json: not read" in named.stderr
        and "validation set" not in (tmp_path / "named.json").read_text()
    )


@pytest.mark.parametrize(
    "raw, repaired",
    [
        ('"A fox in a hat."', "A fox in a hat."),
        ("The image depicts a fox.", "A fox."),
        ("In the image, there is a tall man.", "A tall man."),
        ("The image is of a cave.", "A cave."),
        ("The image is an oil painting.", "An oil painting."),
        ("of a pug in a hat.", "A pug in a hat."),
        ("The image is iridescent, like oil.", "Iridescent, like oil."),
        ("The painting depicts a hell.", "A painting of a hell."),
        ('The painting is called "Dusk" by Bo.', '"Dusk" by Bo.'),
        ("The image features a samurai and is painted in ink.", "A samurai, painted in ink."),
        ("The image shows Ciri, and features a moon.", "Ciri, with a moon."),
        ("The image is of ruins, and has been shared.", "Ruins, shared."),
        ("features the popular character.", "The popular character."),
        ("Image description, a fox.", "A fox."),
        ("One sentence description, The image features a fox.", "A fox."),
        (".\n\nA full shot of a maid.", "A full shot of a maid."),
        ("portrait. \n\nThe description without modifiers, a fox with horns.", "A fox with horns."),
        ('of symbols in a library. \n\n"A book of magic lies open."', "A book of magic lies open."),
        (
            "A sunken temple lit by jellyfish. \n\nThe description without modifiers, a temple.",
            "A sunken temple lit by jellyfish.",
        ),
        ("There is no picture or image sorry sorry", None),
    ],
)
def test_hpdv2_chat_debris(raw, repaired):
    assert repair(raw)[0] == repaired and repair(raw)[1].startswith("chat: ")


@pytest.mark.parametrize(
    "text",
    [
        '"The Joy" by Shaun Tan',
        '"The End" artwork, "second" part',
        "The image of a fox on a coin",
        "The painting is on the wall.",
        "An image of a fox.",
        "A photo of a cat",
        "a tiled bathroom with a sink ",
        "There is a cyclist.",
        "this is a bench",
        "A man.\n",
        "offshore rig",
    ],
)
def test_hpdv2_what_is_no_debris(text):
    assert repair(text) == (text, None)


def test_gecko_options(tmp_path):
    path = ROOT / "examples" / "gecko" / "prompts.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    _, every = process("gecko", path, tmp_path / "all.json")
    _, reliable = process("gecko", path, tmp_path / "reliable.json", "--reliable")
    _, trainable = process("gecko", path, tmp_path / "trainable.json", "--trainable")
    assert len(every) == len({row["prompt"] for row in rows}) == 10
    assert len(reliable) == sum(row["max_disagreement_less_0.5"] == "True" for row in rows) == 8
    assert set(every) - set(trainable) == {
        row["prompt"] for row in rows if row["dataset_id"].startswith(NOT_FOR_TRAINING)
    }
