"""combine.py as a user runs it: sources, duplicates, decontamination, order, workers, report."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.combine_prompts.running import COMBINE, ROOT, combine


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
    assert "not known" in report["sources"]["mine"]["terms"]["licence"]
    assert [(each["prompt"], each["reason"], each["match"]) for each in removed] == [
        ("a red fox in the snow", "exact duplicate", "A Red fox, in the snow!"),
        ("An owl in the barn.", "exact duplicate", "an owl in the barn"),
        ("a goose on the pond", "exact duplicate", "a goose on the pond"),
    ]


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
        "the old clock tower rises slowly over the market square and a man sells oranges to the "
        "children of the town",
    ]
    leaks = [
        "A snowy mountain, seen from a train window.",
        "dog!",
        "a large jets flying through cloudy blue sky",
        "my grandfather remembers that the old clock tower rises slowly over the market square at "
        "dawn",
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


def test_filters_are_named_options(tmp_path):
    prompts = [
        "a quiet lake at dawn",
        "a naked woman lying on a bed",
        "some crazy motherfucker in a car",
        "dog",
        " ".join(f"word{i}" for i in range(300)),
        "Zwei Hunde spielen im Garten hinter dem alten Haus",
        "a naked teenager on a bed",
    ]
    _, combined, removed, report = combine(
        tmp_path, {"sac.json": prompts}, "--profanity=drop", filtered=True
    )
    assert {each["prompt"]: (each["reason"], each["rule"]) for each in removed} == {
        prompts[1]: ("sexual content", "naked"),
        prompts[2]: ("profanity", "motherfucker"),
        prompts[3]: ("too short", "1 words, 3 characters"),
        prompts[4]: ("too long", "300 words, 2289 characters"),
        prompts[5]: ("not English", "de"),
        prompts[6]: ("sexual content and an age word", "teenager + naked"),
    }
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
    _, combined, _, _ = combine(tmp_path, {"sac.json": prompts}, "--sexual", "flag", filtered=True)
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
    """Twice the same command, then once with another number of processes: the same bytes.

    Half of each source is in half of the file.
    """
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
        words = ("--near_duplicates=False", *options)
        _, combined, _, _ = combine(folder, files, *words, anew=True)
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


def test_the_demo_finds_its_prompts(tmp_path):
    """The five processors on examples/, then combine.

    The prompts the tiny model can draw are there; the duplicate and the leaks are not.
    """
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
        entry["reason"]
        for entry in json.loads((tmp_path / "combined.removed.json").read_text())
        if "match" in entry and entry["reason"] != "exact duplicate"
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
