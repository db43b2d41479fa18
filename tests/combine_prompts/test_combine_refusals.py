"""combine.py and what it refuses: broken files, items that are no prompts, its own inputs."""

import pytest

from tests.combine_prompts.running import combine
from tests.fakes.forked_script import forked


def test_output_that_is_an_input(tmp_path):
    (tmp_path / "combined.json").write_text('["a fox in the snow"]')
    (tmp_path / "link.json").symlink_to(tmp_path / "combined.json")
    for arguments in (
        ["combined.json"],
        ["link.json"],
        ["other.json", "--exclude", "combined.json"],
    ):
        words = (*arguments, "--output", "combined.json")
        ended = forked("combine_prompts/combine.py", *words, folder=tmp_path)
        assert (
            ended.returncode == 1
            and "would overwrite" in ended.stderr
            and len(ended.stderr.splitlines()) == 1
        )
    assert (tmp_path / "combined.json").read_text() == '["a fox in the snow"]'


@pytest.mark.parametrize("name", ["combined.json", "combined.report.json"])
def test_an_output_that_is_a_link_is_refused_before_anything_is_written(tmp_path, name):
    (tmp_path / "t.json").write_text('["a fox in the snow"]')
    (tmp_path / name).symlink_to("elsewhere")
    ended = forked(
        "combine_prompts/combine.py", "t.json", "--output", "combined.json", folder=tmp_path
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert f"{name}: it is no plain file" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"t.json", name}


@pytest.mark.parametrize(
    "content, says",
    [
        (b'["a fox', "not JSON"),
        (b'{"prompt": "a"}', "not a JSON list of prompts but a dict"),
        (b'["\xff"]', "not UTF-8 (line 1"),
        (b"", "not JSON"),
    ],
)
def test_a_broken_input_is_named_and_the_others_go_on(tmp_path, content, says):
    ended, combined, _, report = combine(
        tmp_path, {"sac.json": content, "HPDv2.json": ["a fox in the snow"]}, status=3
    )
    assert (
        len(combined) == 1
        and len(ended.stderr.splitlines()) == 1
        and "sac.json" in ended.stderr
        and says in ended.stderr
        and "sac" not in report["sources"]
    )
    ended, combined, _, _ = combine(tmp_path / "out", {"sac.json": content}, status=1)
    assert combined is None and says in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_items_that_are_no_prompts_are_named_and_counted(tmp_path):
    ended, combined, _, report = combine(
        tmp_path,
        {
            "sac.json": ["a fox in the snow", 7, {"text": "x"}, "  "],
            "t.txt": b"a hare in the field\n",
        },
        status=3,
    )
    assert (
        len(combined) == 2
        and report["sources"]["sac"]["counts"]["not a prompt"] == 3
        and "sac.json: item 1" in ended.stderr
        and "2 more" in ended.stderr
    )
    surrogates = (
        b'["a fox in the snow \\ud800", {"prompt": "an owl", "variations": ["\\udfff"]}, '
        b'"a \\ud83e\\udd8a in the snow"]'
    )
    (tmp_path / "half").mkdir()
    ended, combined, _, report = combine(
        tmp_path / "half", {"sac.json": surrogates, "t.txt": b"\xef\xbb\xbfa hare\n"}, status=3
    )
    assert {item["prompt"] for item in combined} == {"a \U0001f98a in the snow", "a hare"}
    assert (
        report["sources"]["sac"]["counts"]["not a prompt"] == 2
        and "sac.json: item 0: not a prompt (it holds half" in ended.stderr
    )
    (tmp_path / "second").mkdir()
    ended, _, _, _ = combine(
        tmp_path / "second", {"t.txt": b"fine line here\nbad \xff line\n"}, status=1
    )
    assert "t.txt: line 2 is not UTF-8" in ended.stderr
    (tmp_path / "third").mkdir()
    ended, _, _, _ = combine(
        tmp_path / "third", {"t.txt": b"fine line here\n" + b"a" * (2 << 20)}, status=1
    )
    assert "t.txt: line 2 is longer than 1,048,576 bytes" in ended.stderr


def test_a_file_of_json_lines(tmp_path):
    lines = b'"an owl in a barn"\n\n{"prompt": "a wolf on a hill", "source": ["x"]}\n'
    _, combined, _, _ = combine(tmp_path, {"l.jsonl": lines})
    assert [(item["prompt"], item["source"]) for item in combined] == [
        ("an owl in a barn", ["l"]),
        ("a wolf on a hill", ["x"]),
    ]
    (tmp_path / "broken").mkdir()
    ended, _, _, _ = combine(tmp_path / "broken", {"l.jsonl": lines + b"{"}, status=1)
    assert "l.jsonl: line 4 is not JSON" in ended.stderr


LONG = b'["' + b"a fox in the snow " * 2000 + b'"]'


def test_an_item_of_many_pages_is_no_prompt(tmp_path):
    """It is a broken file: some MB of one took minutes and gigabytes."""
    varied = [{"prompt": "a hare", "variations": ["x" * 20_001]}, "an owl in a barn"]
    files = {"long.json": LONG, "v.json": varied}
    ended, combined, _, report = combine(tmp_path, files, status=3)
    assert [item["prompt"] for item in combined] == ["an owl in a barn"]
    for name in ("long", "v"):
        assert f"{name}.json: item 0: not a prompt (longer than 20,000 char" in ended.stderr
        assert report["sources"][name]["counts"]["not a prompt"] == 1


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1}', b"[7]", b'["\xff"]', b"[]", b'["  "]', b'["a fox \\ud800"]', LONG],
)
def test_a_broken_validation_set_ends_the_run(tmp_path, content):
    ended, combined, _, _ = combine(
        tmp_path, {"sac.json": ["a fox in the snow"], "exclude.json": content}, status=1
    )
    assert (
        combined is None
        and "exclude.json" in ended.stderr
        and "leak" in ended.stderr
        and len(ended.stderr.splitlines()) == 1
    )
