"""The five processors as a user runs them: real schemas, determinism, broken files."""

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from combine_prompts import process_gecko, process_hpdv2

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = {
    "image_reward": "image_reward",
    "sac": "sac",
    "pickscore": "pickscore",
    "hpdv2": "HPDv2",
    "gecko": "gecko",
}


def run(script, *options, status=0):
    ended = subprocess.run(
        [sys.executable, ROOT / "combine_prompts" / f"{script}.py", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def process(source, input, output, *options, status=0):
    ended = run(
        f"process_{source}",
        "--input",
        *(input if isinstance(input, list) else [input]),
        "--output",
        output,
        *options,
        status=status,
    )
    return ended, json.loads(output.read_text()) if output.exists() else None


def counts(ended):
    """The printed table as a dict."""
    return {
        line.strip().rsplit(None, 1)[0].strip(): int(line.rsplit(None, 1)[1].replace(",", ""))
        for line in ended.stdout.splitlines()
        if line.startswith("  ")
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
    process(source, ROOT / "examples" / source, tmp_path / "two.json")
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
    code = f"""
import re, runpy, sys
sys.argv = ['process_pickscore.py', '--input', {str(tmp_path)!r}, '--output', {str(tmp_path / "out.json")!r}]
try:
    runpy.run_path({str(ROOT / "combine_prompts" / "process_pickscore.py")!r}, run_name='__main__')
except SystemExit as end:
    assert not end.code
print('peak', int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"""  # ru_maxrss would count the parent's memory too
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads((tmp_path / "out.json").read_text())) == 5000
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
    assert process_hpdv2.repair(raw)[0] == repaired and process_hpdv2.repair(raw)[1].startswith(
        "chat: "
    )


@pytest.mark.parametrize(
    "text",
    [
        '"The Joy" by Shaun Tan',
        '"The End" artwork, "second" part',
        "The image is iridescent, like oil.",
        "The image features a samurai and is painted in ink.",
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
    assert process_hpdv2.repair(text) == (text, None)


def test_gecko_options(tmp_path):
    path = ROOT / "examples" / "gecko" / "prompts.csv"
    rows = list(csv.DictReader(open(path, newline="", encoding="utf-8")))
    _, every = process("gecko", path, tmp_path / "all.json")
    _, reliable = process("gecko", path, tmp_path / "reliable.json", "--reliable")
    _, trainable = process("gecko", path, tmp_path / "trainable.json", "--trainable")
    assert len(every) == len({row["prompt"] for row in rows}) == 10
    assert len(reliable) == sum(row["max_disagreement_less_0.5"] == "True" for row in rows) == 8
    assert set(every) - set(trainable) == {
        row["prompt"]
        for row in rows
        if row["dataset_id"].startswith(process_gecko.NOT_FOR_TRAINING)
    }


# ----------------------------------------------------------------------------- broken inputs


def broken(tmp_path, source, path, *says, others=None):
    """The broken file is named in one line; the others are still processed; without others nothing is written."""
    ended, prompts = process(
        source,
        [path, *([others] if others else [])],
        tmp_path / "broken.json",
        status=3 if others else 1,
    )
    lines = [line for line in ended.stderr.splitlines() if line]
    assert len(lines) == 1 and path.name in lines[0], ended.stderr
    for words in says:
        assert words in lines[0], lines[0]
    assert (prompts is None) == (others is None)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_truncated_parquet(tmp_path):
    whole = (ROOT / "examples" / "image_reward" / "metadata-train.parquet").read_bytes()
    (tmp_path / "metadata-train.parquet").write_bytes(whole[: len(whole) // 2])
    broken(
        tmp_path,
        "image_reward",
        tmp_path / "metadata-train.parquet",
        "cannot be read",
        others=ROOT / "examples" / "image_reward" / "metadata-test.parquet",
    )


def test_parquet_torn_in_a_later_row_group(tmp_path):
    path = tmp_path / "train-0.parquet"
    pq.write_table(
        pa.table({"caption": [f"a prompt with number {i}" for i in range(60_000)]}),
        path,
        row_group_size=30_000,
        compression="zstd",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    ended, prompts = process("pickscore", [path], tmp_path / "out.json", status=3)
    assert "train-0.parquet: stopped after row" in ended.stderr and 20_000 <= len(prompts) <= 30_000


def test_parquet_without_the_column(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "train.parquet")
    broken(
        tmp_path,
        "pickscore",
        tmp_path / "train.parquet",
        "no column 'caption'",
        "its columns are text",
    )


def test_null_invalid_and_endless_rows(tmp_path):
    bad = pa.array([b"a good prompt", b"bad \xff\xfe bytes", None, b"x" * 30_000], pa.binary())
    table = pa.table({"caption": pa.Array.from_buffers(pa.string(), 4, bad.buffers())})
    pq.write_table(table, tmp_path / "train.parquet")
    ended, prompts = process("pickscore", tmp_path, tmp_path / "out.json", status=3)
    assert prompts == ["a good prompt"] and counts(ended)["dropped: no prompt (null)"] == 1
    assert (
        "train.parquet: row 1: not UTF-8" in ended.stderr
        and "row 3: longer than 20,000 characters" in ended.stderr
        and "row 2" not in ended.stderr
    )


def test_sqlite_locked_empty_other(tmp_path):
    path = tmp_path / "sac.sqlite"
    path.write_bytes(b"")
    broken(tmp_path, "sac", path, "no such table: generations")
    path.write_bytes(b"this is no database " * 100)
    broken(tmp_path, "sac", path, "not a database")
    path.write_bytes((ROOT / "examples" / "sac" / "sac_public_2022_06_29.sqlite").read_bytes())
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    broken(tmp_path, "sac", path, "database is locked")
    lock.close()


def test_sqlite_row_that_is_not_utf8(tmp_path):
    database = sqlite3.connect(tmp_path / "sac.sqlite")
    database.execute("CREATE TABLE generations (id INTEGER PRIMARY KEY, prompt TEXT)")
    database.executemany(
        "INSERT INTO generations VALUES (?, CAST(? AS TEXT))",
        [(1, b"a fox"), (7, b"\xc3("), (9, None), (11, b"a hare")],
    )
    database.commit()
    database.close()
    ended, prompts = process("sac", tmp_path, tmp_path / "out.json", status=3)
    assert prompts == ["a fox", "a hare"] and "sac.sqlite: row 7: not UTF-8" in ended.stderr


def test_csv(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("id,text\n1,a fox\n")
    broken(tmp_path, "gecko", path, "no column 'prompt'", "id, text")
    path.write_text("")
    broken(tmp_path, "gecko", path, "empty")
    path.write_bytes(
        b"id,prompt\n1,a fox\n2,bad \xff\n3,a hare\n4," + b"x" * 10_000_000 + b"\n5,an owl\n"
    )
    ended, prompts = process("gecko", path, tmp_path / "out.json", status=3)
    assert prompts == ["a fox", "a hare", "an owl"]
    assert "prompts.csv: row 3: not UTF-8" in ended.stderr and "row 5: longer than" in ended.stderr


@pytest.mark.parametrize(
    "content, says",
    [
        (b'{"prompt": "a"}', "not a JSON list"),
        (b'["a fox", "a', "not JSON"),
        (b'["\xff"]', "not UTF-8"),
        (b"", "not JSON"),
        (b'["' + b"x" * 10_000_000 + b'"]', "longer than"),
        (b"[7]", "not a string (int)"),
    ],
)
def test_json(tmp_path, content, says):
    (tmp_path / "anime.json").write_bytes(content)
    broken(tmp_path, "hpdv2", tmp_path / "anime.json", says)
    broken(
        tmp_path,
        "hpdv2",
        tmp_path / "anime.json",
        says,
        others=ROOT / "examples" / "hpdv2" / "photo.json",
    )


def test_folder_without_the_files(tmp_path):
    ended = run(
        "process_image_reward", "--input", tmp_path, "--output", tmp_path / "out.json", status=1
    )
    assert (
        "no metadata-train.parquet in this folder" in ended.stderr
        and not (tmp_path / "out.json").exists()
    )
    assert (
        "no such file"
        in run(
            "process_sac",
            "--input",
            tmp_path / "nowhere",
            "--output",
            tmp_path / "out.json",
            status=1,
        ).stderr
    )


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    ended = run(
        "process_gecko",
        "--input",
        ROOT / "examples" / "gecko",
        "--output",
        tmp_path / "file" / "out.json",
        status=1,
    )
    assert "cannot write" in ended.stderr and len(ended.stderr.splitlines()) == 1
