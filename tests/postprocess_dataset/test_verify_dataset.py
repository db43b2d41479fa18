"""Each kind of damage, done to a real small data set, is found under its name and no other."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from common import packed_folder
from postprocess_dataset.manifest.kinds import KINDS, Findings
from postprocess_dataset.score_table import publish
from postprocess_dataset.verification.chunk import Beside
from postprocess_dataset.verification.evidence import Evidence
from postprocess_dataset.verification.verify import Report, prompts_file
from tests.postprocess_dataset.conftest import SCRIPTS, called
from tests.postprocess_dataset.damage import DAMAGE, an_unsafe_text, cut, edit_tar, remake, sample
from tests.postprocess_dataset.verified import (
    RunFolder,
    convert,
    kinds,
    make_tars,
    rewrite,
    verify,
)

BAD = "a naked woman having sex"


def test_a_whole_data_set_is_provable(root):
    ended = verify(root)
    assert ended.status == 0, ended.out + ended.err
    assert ended.document["good"] and not ended.document["found"]
    assert ended.document["counted"] == {
        "samples": 24,
        "bytes": ended.document["counted"]["bytes"],
        "given_up": 0,
        "texts_short": 0,
        "rows": 24,
        "samples in tars": 24,
    }
    assert "not checked: ledger" in ended.out and "not checked: validation set" in ended.out
    assert called("verify_dataset", (root / "tars", "--manifest")).status == 0


def test_a_full_output_does_not_cost_the_report(root, tmp_path):
    words = (root / "HPDv2", "--report", tmp_path / "v.json")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-u", SCRIPTS / "verify_dataset.py", *words],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert ended.returncode == 1 and b"standard output" in ended.stderr
    assert json.loads((tmp_path / "v.json").read_text())["counted"]["samples"] == 24


@pytest.mark.parametrize("name", DAMAGE)
def test_every_damage_is_found_under_its_name_and_no_other(root, name):
    kind, damage = DAMAGE[name]
    damage(root)
    prompts = ("--prompts", root / "HPDv2.json") if (root / "HPDv2.json").exists() else ()
    ended = verify(root, *prompts)
    assert ended.status == 1 and kinds(ended).keys() == {kind}, ended.out + ended.err
    assert f"{kind}: " in ended.out and "what to do: " in ended.out
    assert not (root / "tars/MANIFEST.json").exists()


def test_all_kinds_are_done_here():
    elsewhere = {"ledger_differs"}  # below
    done = {kind for kind, _ in DAMAGE.values()} | elsewhere
    assert done == set(KINDS) and len(KINDS) == 22


@pytest.mark.parametrize(
    "unsafe",
    [
        {"original_prompt": BAD},
        {"original_prompt": "a 15 year old girl, naked"},
        {"source": ["fine", BAD]},
        {"llm_model_name": BAD},
        {"input_file": BAD},
        {"lora": [BAD]},
        {BAD: 1},
        {"note": {"deep": [{"er": BAD}]}},
        {"rejected": [{"seed": 1, "why": BAD}]},
        {},
    ],
)
def test_every_published_text_is_judged(root, unsafe):
    """Not what an image shall not show; and one text once, however many samples have it."""
    record = json.loads(sample(root, "995_1.json").read_bytes())
    found = Findings()
    beside = Beside()
    beside.judge("995_1", record | {"negative_prompt": BAD, "scores": {"a": 0.5}}, ["a fox"], found)
    assert found.counts == {}
    for _ in range(2):
        key = "HPDv2/000000/995_1" if unsafe else "HPDv2/000000/a_naked_woman_having_sex_1"
        beside.judge(key, record | unsafe, ["a fox"], found)
    assert found.counts == {"unsafe_text": 1}


def test_what_is_allowed_is_named_and_does_not_count(root):
    an_unsafe_text(root)
    assert verify(root, "--allow", "unsafe_text").status == 0
    assert verify(root, "--allow", "torn").status == 1
    ended = verify(root, "--allow", "ugly")
    assert ended.status == 1 and "no such kind" in ended.err


def test_a_stated_licence_is_one(root):
    remake(root, source=["theirs"], model_name="someone/own")
    ended = verify(root)
    assert kinds(ended) == {"licence_unknown": 2}
    assert "not known: --licence theirs=LICENCE\n" in ended.out, "a command to copy"
    stated = ("--licence", "theirs=CC0-1.0", "--licence", "someone/own=MIT")
    assert verify(root, *stated).status == 0


def test_the_prompts_file_is_found_in_each_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = Report(())
    assert prompts_file(["/data/nobodys"], None, report) is None
    assert "no prompts file nobodys.json, .txt … found" in report.not_checked[0]
    (tmp_path / "prompts").mkdir()
    for place in ("prompts/nobodys.txt", "nobodys.jsonl", "nobodys.json"):
        (tmp_path / place).touch()
        assert str(prompts_file(["/data/nobodys"], None, report)) == place


def test_nothing_is_not_good(tmp_path):
    (tmp_path / "HPDv2").mkdir()
    report = ("--report", tmp_path / "v.json")
    ended = called("verify_dataset", (tmp_path / "HPDv2", *report))
    assert ended.status == 1 and "nothing was checked" in ended.err


def test_the_evidence_is_on_the_disk_and_has_no_name(tmp_path):
    """Whatever becomes of the process, no gigabytes are left behind."""
    with Evidence(str(tmp_path)) as evidence:
        evidence.database.execute("PRAGMA cache_size = 10")
        row = (b"0" * 32, b"0" * 8, b"0" * 8, b"0" * 16, b"0" * 16)
        evidence.add_samples((f"HPDv2/000000/{n}_0", *row) for n in range(50_000))
        evidence.sort()
        files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        # etilqs_: SQLite's name for such a file; a process takes the folder that came first
        mine = [file for file in files if "etilqs_" in file]
        assert os.listdir(tmp_path) == [] and mine and all("deleted" in file for file in mine)


@pytest.mark.parametrize("name", ["t.parquet", "tars", "HPDv2"])
def test_what_is_named_must_be_there(root, name):
    path = root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ended = verify(root)
    assert ended.status == 1 and name in ended.err and len(ended.err.splitlines()) == 1


def test_shuffled_and_split_tars_are_verified_but_for_their_order(root):
    shutil.rmtree(root / "tars")
    make_tars(root, ("--shuffle_seed", 7, "--split", "train=0.7,val=0.3"))
    ended = verify(root)
    assert ended.status == 0 and "not checked: order of tars" in ended.out, ended.out + ended.err


def scored(root, **changes):
    """A table of scores as score_images.py writes it; changes: {key: what is different}."""
    (root / "scores").mkdir(exist_ok=True)
    rows = {}
    for path in sorted(root.glob("HPDv2/*/*.json")):
        key = f"HPDv2/{path.parent.name}/{path.stem}"
        sha256 = json.loads(path.read_text())["image_sha256"]
        rows[key] = {"__key__": key, "image_sha256": sha256, "score_clip": 0.3}
    rows["HPDv2/000000/995_1"] |= changes
    path = root / "scores/part-00000-of-00001.000000.parquet"
    publish(list(rows.values()), path, {"scores": {"clip": "1"}, "licences": {}})
    return verify(root, "--scores", root / "scores")


def test_scores_agree_or_are_named(root):
    ended = scored(root)
    assert ended.status == 0 and ended.document["counted"]["rows of scores"] == 24, ended.out
    assert kinds(scored(root, score_clip=float("nan"))) == {"nan_score": 1}
    assert kinds(scored(root, image_sha256="00" * 32)) == {"wrong_hash": 1}
    elsewhere = kinds(scored(root, __key__="HPDv2/000000/7_7"))
    assert elsewhere == {"missing": 1, "row_without_image": 1}
    cut(next((root / "scores").iterdir()))
    assert kinds(verify(root, "--scores", root / "scores")) == {"unreadable_shard": 1}


def test_a_subset_of_where_is_one(root):
    shutil.rmtree(root / "tars")
    make_tars(root, ("--where", "augmentation_idx > 0"))
    ended = verify(root)
    assert ended.status == 0 and "which 16 rows --where took" in ended.out, ended.out + ended.err
    edit_tar(root, lambda members: members.__delitem__(slice(3, 6)))
    assert kinds(verify(root)) == {"missing": 1}
    ended = verify(root, "--repair")
    assert ended.status == 1 and "was made with --where" in ended.err


def test_flat_folders_of_the_published_scripts_are_verified(tmp_path):
    """No captions, no hashes, any names: what is there must agree all the same."""
    data = RunFolder(tmp_path / "HPDv2", published=True).fill(range(4), 2)
    odd = (data.path / "odd.name").with_name
    for suffix in (".jpg", ".json"):
        (data.path / f"3_1{suffix}").rename(odd(f"odd.name{suffix}"))
    rewrite(odd("odd.name.json"), image_path="odd.name.jpg")
    convert(tmp_path)
    ended = verify(tmp_path)
    assert ended.status == 0 and ended.document["counted"]["samples"] == 8, ended.out + ended.err
    cut(data.path / "2_1.jpg")
    assert kinds(verify(tmp_path)) == {"torn": 1}


def test_what_a_release_leaves_out_is_no_damage(root):
    """Tars of the public table: no host, no job, a model's path cut to its name."""
    remake(root, hostname="node1", model_name="/models/stable-diffusion-3")
    made = called("make_release_forms", (root / "t.parquet", root / "release", "--base_dir", root))
    assert made.status == 0, made.err
    shutil.rmtree(root / "tars")
    (root / "release.work/tars").rename(root / "tars")
    ended = verify(root)
    assert ended.status == 0, ended.out + ended.err
    assert "private_field" not in called("verify_dataset", (root / "tars", "--manifest")).out


def test_packed_folders_are_verified_as_loose_ones(root):
    (root / "HPDv2/000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (root / "HPDv2",)).status == 0
    assert not sample(root, "995_1.jpg").exists()
    ended = verify(root)
    assert ended.status == 0, ended.out + ended.err
    part = root / "HPDv2/000000/part-00000.tar"
    content = part.read_bytes()
    place = content.rindex(b"\xff\xd9")
    part.write_bytes(content[: place - 9] + bytes([content[place - 9] ^ 1]) + content[place - 8 :])
    assert set(kinds(verify(root))) <= {"wrong_hash", "torn"}
    part.write_bytes(content.replace(b'"original_prompt"', b'"original_prompT"', 1))
    assert kinds(verify(root))["wrong_hash"] == 1
    cut(part)
    packed_folder._loaded.cache_clear()  # one process looks once a second
    assert kinds(verify(root)) == {"unreadable_shard": 1}


MENDED = {
    "missing row",
    "missing in tars",
    "doubled row",
    "doubled in tars",
    "swapped in the table",
    "swapped in a tar",
    "wrong hash in a tar",
    "stale .samples",
    "wrong order of rows",
    "wrong order in a tar",
    "torn tar",
    "torn table",
    "no shard",
    "no index",
}


@pytest.mark.parametrize("name", sorted(MENDED))
def test_repair_mends_what_the_evidence_allows(root, name):
    images = {path: path.read_bytes() for path in root.glob("HPDv2/*/*.jpg")}
    DAMAGE[name][1](root)
    ended = verify(root, "--repair")
    assert ended.status == 0 and "mended: " in ended.out, ended.out + ended.err
    assert {path: path.read_bytes() for path in root.glob("HPDv2/*/*.jpg")} == images
    assert called("verify_dataset", (root / "tars", "--manifest")).status == 0


def test_repair_leaves_images_alone(root):
    sample(root, "995_1.jpg").write_bytes(b"torn")
    before = {path: path.read_bytes() for path in root.glob("HPDv2/*/*")}
    ended = verify(root, "--repair")
    assert ended.status == 1 and kinds(ended) == {"torn": 1} and "mended" not in ended.out
    assert {path: path.read_bytes() for path in root.glob("HPDv2/*/*")} == before
