"""What becomes of each form of a prompts file; an item's place is its prompt_index."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.command_line import UserError
from generate.dataset.prompts_file import list_sha256, read_prompts


def prompts_of(path, content):
    path.write_bytes(content)
    return [item["prompt"] for item in read_prompts(path)]


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    windows = "\ufeffa bird\r\n\r\n  a red\x0cfox\r\none\u2028two, l\u2019\xe9t\xe9\r\n".encode()
    assert prompts_of(tmp_path / "p.txt", windows) == [
        "a bird",
        "a red\x0cfox",
        "one\u2028two, l\u2019\xe9t\xe9",
    ]
    assert prompts_of(tmp_path / "p.txt", b"a bird\na cat") == ["a bird", "a cat"]


def test_a_list_has_strings_and_objects(tmp_path):
    (tmp_path / "p.json").write_text(
        '["a bird", {"prompt": "a cat", "source": "sac", "flags": ["profanity"]},'
        ' {"prompt": "a fox", "source": ["a", "b"], "variations": ["a red fox", "a fox"]}]'
    )
    assert read_prompts(tmp_path / "p.json") == [
        {"prompt": "a bird", "source": []},
        {"prompt": "a cat", "source": ["sac"]},
        {"prompt": "a fox", "source": ["a", "b"], "variations": ["a red fox", "a fox"]},
    ]


def test_half_a_surrogate_pair_keeps_its_place_and_can_be_written(tmp_path):
    """The place is the prompt_index, so nothing may be dropped here.

    A whole pair is one character.
    """
    prompts = prompts_of(
        tmp_path / "p.json",
        b'["half \\ud83e of it", "a \\ud83e\\udd8a", {"prompt": "a", "variations": ["\\udd8a"]}]',
    )
    assert prompts == ["half \ufffd of it", "a \U0001f98a", "a"]
    assert read_prompts(tmp_path / "p.json")[2]["variations"] == ["\ufffd"]


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("p.json", b'["\xff"]', "not UTF-8 (byte 2)"),
        ("p.txt", b"a bird\n\xff\n", "not UTF-8 (byte 7)"),
        ("p.txt", b" \n\n", "holds no prompt"),
        ("p.json", b"[" * 100_000, "not JSON"),
        ("p.json", b'["a", "b' + bytes(99), "not text"),
        ("p.txt", b"a bird\n" + bytes(17 << 20), "the line that begins at byte 7 is longer"),
        ("p.json", b'[{"prompt": "a", "source": 7}]', 'item 0 has a "source"'),
        ("p.json", b'["a", {"prompt": "a", "variations": "b"}]', 'item 1 has "variations"'),
        ("p.json", b'["a", {"prompt": "a", "variations": [" "]}]', "item 1 has a blank variation"),
        (
            "p.json",
            b'["' + "\u00e9".encode() * 10_001 + b'"]',
            "item 0 is longer than 20,000 bytes",
        ),
    ],
)
def test_a_file_that_is_refused(tmp_path, name, content, says):
    with pytest.raises(UserError) as refused:
        prompts_of(tmp_path / name, content)
    assert (
        says in str(refused.value)
        and f"{tmp_path}/{name}" in str(refused.value)
        and len(str(refused.value).splitlines()) == 1
    )


def test_the_lists_sha256_is_that_of_its_items_not_of_its_bytes(tmp_path):
    (tmp_path / "a.json").write_text('["a bird", "a cat"]')
    (tmp_path / "b.txt").write_text("a bird\n\na cat\n")
    (tmp_path / "c.json").write_text('["a cat", "a bird"]')
    a, b, c = (read_prompts(tmp_path / name) for name in ("a.json", "b.txt", "c.json"))
    assert list_sha256(a) == list_sha256(b) != list_sha256(c)
    assert list_sha256(a[:1]) == list_sha256(c[1:])


@pytest.mark.parametrize(
    "column, says",
    [
        (pa.array([b"\xff\xfe"] * 2), 'is {"prompt": "b'),
        (pa.array([b"\xff\xfe"] * 2).view(pa.string()), "cannot be read: 'utf-8' codec"),
        (pa.array([2**60] * 2).cast(pa.timestamp("ms")), "cannot be read: "),
        (pa.array([[None, b"\xff"]] * 2, pa.list_(pa.binary())), 'is {"prompt": [null'),
    ],
)
def test_a_parquet_whose_prompts_are_no_text_is_one_line(tmp_path, column, says):
    pq.write_table(pa.table({"prompt": column}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=f"p.parquet: item 0 {re.escape(says)}"):
        read_prompts(tmp_path / "p.parquet")
