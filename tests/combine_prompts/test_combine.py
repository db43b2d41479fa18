"""combine.py as a user runs it: sources, duplicates, decontamination, filters, order, report, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from combine_prompts import decontamination, filters
from combine_prompts.processor import fold

ROOT = Path(__file__).resolve().parent.parent.parent
COMBINE = ROOT / "combine_prompts" / "combine.py"
NOTHING_DROPPED = [
    "--language",
    "any",
    "--min_words",
    "1",
    "--min_chars",
    "1",
    "--profanity",
    "keep",
    "--sexual",
    "keep",
]


def combine(folder, files, *options, status=0, filtered=False):
    """Write `files` {name: items}, combine all but those called exclude*; returns (ended, combined, removed, report).

    Without the filters unless asked for: their models take a second and more to load.
    """
    for name, items in files.items():
        (folder / name).write_bytes(
            items if isinstance(items, bytes) else json.dumps(items, ensure_ascii=False).encode()
        )
    inputs = [folder / name for name in files if not name.startswith("exclude")]
    excluded = [folder / name for name in files if name.startswith("exclude")]
    output = folder / "out" / "combined.json"
    options = [
        *(["--exclude", *excluded] if excluded else []),
        *([] if filtered else NOTHING_DROPPED),
        *options,
    ]
    command = [sys.executable, COMBINE, *inputs, "--output", output, *options]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == status and "Traceback" not in ended.stderr, (
        ended.stdout + ended.stderr
    )
    if not output.exists():
        return ended, None, None, None
    return ended, *[
        json.loads((output.parent / f"combined{end}.json").read_text())
        for end in ("", ".removed", ".report")
    ]


def test_sources_and_exact_duplicates(tmp_path):
    _, combined, removed, report = combine(
        tmp_path,
        {
            "sac.json": [
                "A Red fox, in the snow!",
                "a hare in the field",
                {"prompt": "an owl in the barn", "variations": ["an owl at night"]},
            ],
            "HPDv2.json": ["a red fox in the snow", "a goose on the pond", "An owl in the barn."],
            "mine.txt": b"a goose on the pond\n\na bear in the wood\n",
        },
    )
    found = {item["prompt"]: item for item in combined}
    assert set(found) == {
        "A Red fox, in the snow!",
        "a hare in the field",
        "an owl in the barn",
        "a goose on the pond",
        "a bear in the wood",
    }
    assert found["A Red fox, in the snow!"]["source"] == ["sac", "HPDv2"] and found[
        "a goose on the pond"
    ]["source"] == ["HPDv2", "mine"]
    assert found["an owl in the barn"]["variations"] == ["an owl at night"]
    assert (
        report["sources"]["HPDv2"]["counts"] == {"read": 3, "exact duplicate": 2, "kept": 1}
        and report["in several sources"] == 3
    )
    assert (
        report["sources"]["HPDv2"]["terms"]["licence"] == "Apache-2.0"
        and "Wu et al." in report["sources"]["HPDv2"]["terms"]["citation"]
    )
    assert "not known" in report["sources"]["mine"]["terms"]["licence"] and removed == []


def test_a_combined_file_keeps_its_sources(tmp_path):
    _, combined, _, report = combine(
        tmp_path,
        {
            "old.json": [
                {"prompt": "a fox in the snow", "source": ["sac", "HPDv2"]},
                {"prompt": "a hare in the field", "source": "odd"},
            ],
            "more.json": ["A fox in the snow"],
        },
    )
    assert {item["prompt"]: item["source"] for item in combined} == {
        "a fox in the snow": ["sac", "HPDv2", "more"],
        "a hare in the field": ["old"],
    }
    assert report["sources"]["old"]["counts"] == {"read": 2, "kept": 2}


def test_plain(tmp_path):
    _, combined, _, _ = combine(
        tmp_path, {"sac.json": ["a fox in the snow", "a hare in the field"]}, "--plain"
    )
    assert sorted(combined) == ["a fox in the snow", "a hare in the field"]


def test_validation_set_stays_out(tmp_path):
    validation = [
        "a snowy mountain seen from a train window",
        "dog",
        "a large jet flying through a cloudy blue sky",
        "the old clock tower rises slowly over the market square and a man sells oranges to the children of the town",
    ]
    leaks = [
        "A snowy mountain, seen from a train window.",
        "dog!",
        "a large jets flying through cloudy blue sky",
        "my grandfather remembers that the old clock tower rises slowly over the market square at dawn",
    ]
    innocent = [
        "a dog in a hat",
        "a snowy mountain",
        "a cloudy sky above the sea",
        "the old clock tower rises over the town at dawn",
    ]
    _, combined, removed, report = combine(
        tmp_path,
        {"sac.json": leaks + innocent, "exclude.json": validation},
        "--near_duplicates=False",
    )
    assert {item["prompt"] for item in combined} == set(innocent)
    assert {entry["prompt"]: (entry["reason"], entry["match"]) for entry in removed} == {
        leaks[0]: ("validation set: same text", validation[0]),
        leaks[1]: ("validation set: same text", validation[1]),
        leaks[2]: ("validation set: alike", validation[2]),
        leaks[3]: ("validation set: 8 words in common", validation[3]),
    }
    assert report["excluded"]["exclude"]["sha256"] and report["kept"] == 4


def test_decontamination_guards_the_short():
    excluded = decontamination.Excluded(
        ["a circle", "6 sandwiches", "two chairs beside a round table"], fold
    )
    assert (
        excluded.find("a circles") is None
        and excluded.find("10 sandwiches") is None
        and excluded.find("a") is None
        and excluded.find("") is None
    )
    assert excluded.find("two chair beside a round table")[0] == "alike"
    assert (
        excluded.find(
            "two chairs beside a round table in the garden of a castle with many towers and a moat"
        )
        is None
    )


@pytest.mark.parametrize(
    "text, english",
    [
        ("a corgi wearing a top hat", True),
        ("A bicycle chained to a pole on a snowy day", True),
        ("a red potato", True),
        ("зимний лес ночью", False),
        ("涼宮ハルヒの憂鬱、アニメ", False),
        ("Zwei Hunde spielen im Garten hinter dem alten Haus", False),
        ("un perro grande corriendo por la playa al atardecer", False),
        ("mini dinosaur skeleton inside a crystal geode", True),
        ("portrait by Greg Rutkowski, artstation", True),
    ],
)
def test_language(text, english):
    assert filters.language_is_english(text) is english


@pytest.mark.parametrize(
    "text, explicit",
    [
        ("a naked woman on a bed", True),
        ("hentai style", True),
        ("a naked mole rat", False),
        ("seen by the naked eye", False),
        ("a pussy willow branch", False),
        ("roman gladiator, bare chest", False),
        ("a sexton in Essex at the sextant", False),
        ("document folder", False),
        ("a cockerel and a titmouse", False),
        ("breastplate armor", False),
        ("nude sculpture", True),
    ],
)
def test_sexual_content(text, explicit):
    assert filters.explicit(text) is explicit


@pytest.mark.parametrize(
    "text, dropped",
    [
        ("a nude teenager", True),
        ("sexy schoolgirl", True),
        ("a 16 year old in lingerie", True),
        ("a 16-year-old in lingerie", True),
        ("sensual fifteen year old", True),
        ("loli in a bikini", True),
        ("erotic, aged 12", True),
        ("a naked 9yo", True),
        ("children bathing", True),
        ("young girl in a bikini", True),
        ("a schoolgirl reading a book", False),
        ("a 16 year old violinist", False),
        ("a 35 year old woman in lingerie", False),
        ("a 116 year old in a bikini", False),
        ("a kid flying a kite", False),
        ("a sexy woman of 30", False),
    ],
)
def test_minors(text, dropped):
    assert filters.sexualises_minors(text) is dropped


def test_filters_are_named_options(tmp_path):
    prompts = [
        "a quiet lake at dawn",
        "a naked woman lying on a bed",
        "some crazy motherfucker in a car",
        "dog",
        "word " * 300,
        "Zwei Hunde spielen im Garten hinter dem alten Haus",
        "a naked teenager on a bed",
    ]
    _, combined, _, report = combine(tmp_path, {"sac.json": prompts}, filtered=True)
    assert [item["prompt"] for item in combined] == ["a quiet lake at dawn"]
    assert report["sources"]["sac"]["counts"] == {
        "read": 7,
        "sexual content": 1,
        "profanity": 1,
        "too short": 1,
        "too long": 1,
        "not English": 1,
        "sexual content and an age word": 1,
        "kept": 1,
    }
    _, combined, _, _ = combine(
        tmp_path, {"sac.json": prompts}, "--max_words", 1000, "--max_chars", 5000
    )
    assert {item["prompt"] for item in combined} == set(prompts) - {
        prompts[6]
    }  # this one is dropped whatever the options
    assert not any("flags" in item for item in combined)
    _, combined, _, _ = combine(
        tmp_path, {"sac.json": prompts}, "--sexual", "flag", "--profanity", "flag", filtered=True
    )
    assert {item["prompt"]: item.get("flags") for item in combined} == {
        prompts[0]: None,
        prompts[1]: ["sexual"],
        prompts[2]: ["profanity"],
    }


def test_near_duplicates_are_listed_with_their_match(tmp_path):
    prompts = [
        "a lighthouse on a cliff in a storm with tall waves, oil painting",
        "a lighthouse on a cliff in a storm with tall waves, oil painting, soft light",
    ]
    _, combined, removed, _ = combine(tmp_path, {"sac.json": prompts})
    assert [item["prompt"] for item in combined] == prompts[:1]
    assert [(entry["prompt"], entry["match"], entry["reason"]) for entry in removed] == [
        (prompts[1], prompts[0], "near duplicate")
    ] and removed[0]["similarity"] >= 0.7
    _, combined, removed, _ = combine(tmp_path, {"sac.json": prompts}, "--near_duplicates=False")
    assert len(combined) == 2 and removed == []


def test_same_bytes_and_every_prefix_is_a_fair_sample(tmp_path):
    """Twice the same command, then once with one process a core instead of one: the same bytes. Half of each source is in half of the
    file."""
    files = {
        f"{name}.json": [
            f"{name} {kind} number {i} {place}"
            for i in range(700)
            for kind, place in [("harbor", "in the morning rain"), ("meadow", "under two moons")]
        ]
        for name in ("sac", "mine", "more")
    }
    bytes_of = []
    for number, options in enumerate([[], [], ["--num_workers", 1], ["--seed", 1]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, combined, _, report = combine(folder, files, "--near_duplicates=False", *options)
        bytes_of.append(
            [
                (folder / "out" / name).read_bytes()
                for name in ("combined.json", "combined.report.json", "combined.removed.json")
            ]
        )
        assert len(combined) == 4200
        half = Counter(item["source"][0] for item in combined[:2100])
        assert all(600 < count < 800 for count in half.values())
    assert bytes_of[0] == bytes_of[1] == bytes_of[2] and bytes_of[0][0] != bytes_of[3][0]


def test_many_processes_give_the_same_as_one(tmp_path):
    prompts = [
        f"a {kind} harbor number {i} in the morning rain"
        for i in range(11_000)
        for kind in ("quiet", "naked woman in the")
    ]
    results = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        files = {"sac.json": prompts, "exclude.json": ["a quiet street in the evening sun"]}
        _, _, _, report = combine(
            folder, files, "--near_duplicates=False", "--sexual", "drop", "--num_workers", workers
        )
        results.append(
            ((folder / "out" / "combined.json").read_bytes(), report["sources"]["sac"]["counts"])
        )
    assert results[0] == results[1] and results[0][1]["sexual content"] > 9_000


def test_a_killed_worker_ends_the_run(tmp_path):
    (tmp_path / "sac.json").write_text(
        json.dumps([f"a quiet harbor number {i} in the morning rain" for i in range(60_000)])
    )
    command = [
        sys.executable,
        COMBINE,
        tmp_path / "sac.json",
        "--output",
        tmp_path / "out" / "combined.json",
    ]
    run = subprocess.Popen(
        [*command, "--num_workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    workers, children = [], Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while not workers:
        assert run.poll() is None
        workers = [
            pid
            for pid in children.read_text().split()
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        time.sleep(0.05)
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, says = run.communicate(timeout=120)
    assert run.returncode == 1 and "worker process was killed" in says and "Traceback" not in says
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------- what is refused


def test_output_that_is_an_input(tmp_path):
    (tmp_path / "combined.json").write_text('["a fox in the snow"]')
    (tmp_path / "link.json").symlink_to(tmp_path / "combined.json")
    for arguments in (
        ["combined.json"],
        ["link.json"],
        ["other.json", "--exclude", "combined.json"],
    ):
        ended = subprocess.run(
            [sys.executable, COMBINE, *arguments, "--output", "combined.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (
            ended.returncode == 1
            and "would overwrite" in ended.stderr
            and len(ended.stderr.splitlines()) == 1
        )
    assert (tmp_path / "combined.json").read_text() == '["a fox in the snow"]'


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
    surrogates = b'["a fox in the snow \\ud800", {"prompt": "an owl", "variations": ["\\udfff"]}, "a \\ud83e\\udd8a in the snow"]'
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


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1}', b"[7]", b'["\xff"]', b"[]", b'["  "]', b'["a fox \\ud800"]']
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


def test_the_demo_finds_its_prompts(tmp_path):
    """The five processors on examples/, then combine: the prompts the tiny model can draw, the duplicate and the leaks that were put
    there."""
    for source in ("image_reward", "sac", "pickscore", "HPDv2", "gecko"):
        subprocess.run(
            [
                sys.executable,
                ROOT / "combine_prompts" / f"process_{source.lower()}.py",
                "--input",
                ROOT / "examples" / source.lower(),
                "--output",
                tmp_path / f"{source}.json",
            ],
            check=True,
            capture_output=True,
        )
    files = [
        tmp_path / f"{source}.json" for source in ("image_reward", "sac", "pickscore", "HPDv2")
    ]
    subprocess.run(
        [
            sys.executable,
            COMBINE,
            *files,
            "--exclude",
            tmp_path / "gecko.json",
            "--output",
            tmp_path / "combined.json",
        ],
        check=True,
        capture_output=True,
    )
    combined = json.loads((tmp_path / "combined.json").read_text())
    removed = {
        entry["reason"] for entry in json.loads((tmp_path / "combined.removed.json").read_text())
    }
    grammar = [item for item in combined if item["prompt"].endswith("background")]
    assert len(grammar) >= 16 and {item["source"][0] for item in grammar} == {
        "image_reward",
        "sac",
        "pickscore",
        "HPDv2",
    }
    assert removed == {"validation set: same text", "near duplicate"}
    assert len(json.loads((ROOT / "examples" / "shapes.json").read_text())) == 8
