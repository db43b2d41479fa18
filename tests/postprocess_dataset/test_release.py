"""release.py: from folders to a release that a stranger verifies; refused, resumed, grown."""

import contextlib
import json
import shlex
import shutil
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from generate.dataset.samples import PLACE, comment_of, encode
from generate.server.storage.schema import SCHEMA
from postprocess_dataset.manifest.manifest import write_manifest
from postprocess_dataset.manifest.shards import read_shard
from postprocess_dataset.releasing.own_status import own_status
from tests.odd_jpegs import PRIVATE
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.verified import IMAGES, PROMPTS, RunFolder, picture, put, rewrite


@pytest.fixture
def run(tmp_path):
    """A finished data set that nothing is wrong with."""
    return RunFolder(tmp_path / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)


def release(run, place, *options):
    return called("release", [run.path, place, "--num_workers", 1, *options])


def files(place):
    """{path: (inode, time)} of all files of a release."""
    return {
        str(path.relative_to(place)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path(place).rglob("*")
        if path.is_file()
    }


def shards(place):
    return {name: Path(place, name).read_bytes() for name in files(place) if name[-4:] != ".tmp"}


def intact(place):
    ended = called("verify_dataset", [place, "--manifest"])
    return ended.status == 0, ended.out


def test_a_stranger_verifies_and_loads_a_copy(run, tmp_path):
    import datasets
    import duckdb

    place = tmp_path / "out" / "birds"
    ended = release(run, place, "--split", "train=0.6,val=0.4")
    assert ended.status == 0, ended.err
    copy = shutil.copytree(place, tmp_path / "elsewhere" / "birds")
    shutil.rmtree(f"{place}.work")
    shutil.rmtree(place)
    good, said = intact(copy)
    assert good and "24 samples in parquet, 24 samples in webdataset" in said
    root = json.loads((copy / "MANIFEST.json").read_text())["root"]
    assert root in said and root in ended.out
    loaded = datasets.load_dataset(str(copy), cache_dir=str(tmp_path / "cache"))
    assert sum(part.num_rows for part in loaded.values()) == 24
    rows = duckdb.sql(f"select count(*) from '{copy}/data/*.parquet'").fetchall()
    assert rows == [(24,)]
    together = b"".join(shards(copy).values())
    assert str(tmp_path).encode() not in together and b"3-12" not in together
    (copy / "data" / "val-00000.parquet").write_bytes(b"torn")
    assert not intact(copy)[0]


def test_its_manifest_reads_no_shard_again(run, tmp_path, monkeypatch):
    from postprocess_dataset.manifest import manifest

    look, read = manifest.look, []
    monkeypatch.setattr(
        manifest, "look", lambda folder, path, *rest: read.append(path) or look(folder, path, *rest)
    )
    place = tmp_path / "birds"
    assert release(run, place).status == 0
    assert "README.md" in read and not [path for path in read if "/train-" in path]
    short = (place / "MANIFEST.json").read_bytes()
    manifest.write_manifest(str(place))
    assert "data/train-00000.parquet" in read
    assert (place / "MANIFEST.json").read_bytes() == short


def test_its_verification_reads_no_tar_again_and_finds_one_that_has_changed(
    run, tmp_path, monkeypatch
):
    from postprocess_dataset.verification import tars

    read = []
    read_facts = tars.read_facts
    monkeypatch.setattr(tars, "read_facts", lambda *args: read.append(args) or read_facts(*args))
    place = tmp_path / "birds"
    assert release(run, place).status == 0 and read == []
    (kept,) = Path(f"{place}.work").rglob("*.facts")
    kept.write_bytes(b"torn")
    Path(f"{place}.work", "steps.json").unlink()
    assert release(run, place).status == 0 and len(read) == 1
    (tar,) = Path(f"{place}.work").glob("tars/*.tar")
    content = bytearray(tar.read_bytes())
    content[content.index(b"\xff\xda") + 40] ^= 1  # in the first picture
    tar.write_bytes(content)
    ended = release(run, place)
    assert ended.status == 1 and "wrong_hash" in ended.err


def test_its_verification_finds_an_image_that_has_changed_since_it_went_into_a_tar(run, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place).status == 0
    Path(f"{place}.work", "steps.json").unlink()
    image = run.place(1000, 1).with_suffix(".jpg")
    image.write_bytes(image.read_bytes()[:-3] + b"\0\xff\xd9")
    ended = release(run, place)
    assert ended.status == 1 and "wrong_hash" in ended.err


def test_the_same_command_again_does_nothing(run, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place).status == 0
    before = files(place)
    ended = release(run, place)
    assert ended.status == 0 and "counted:" not in ended.out  # nothing was read again
    after = files(place)
    changed = {name for name in after if after[name] != before.get(name)}
    assert not {name for name in changed if name.startswith(("data/train", "webdataset/train"))}
    assert "report.html" not in changed and intact(place)[0]


def test_it_grows(run, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place).status == 0
    more = range(1003, 1006)
    run.fill(more, IMAGES).finish(range(995, 1006))
    run.settle()
    ended = release(run, place)
    assert ended.status == 0, ended.err
    good, said = intact(place)
    assert good and "33 samples in parquet" in said
    keys = [sample.key for sample in read_shard(str(place / "webdataset" / "train-000000.tar"))]
    assert keys[:24] == sorted(keys[:24], key=lambda key: (len(key), key)) and len(keys) == 33


class Scored(RunFolder):
    """A run with --scores and --accept, whose text encoders read every caption."""

    def record(self, prompt, augmentation, image):
        return super().record(prompt, augmentation, image) | {
            "truncated": [],
            "scores": {"clip": 0.31},
            "score_versions": ["clip openai/clip-vit-base-patch32 1"],
            "accept": "clip > 0.26",
            "tries": 2,
        }


def test_scores_and_empty_lists_are_no_damage(tmp_path):
    run = Scored(tmp_path / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)
    ended = release(run, tmp_path / "birds")
    assert ended.status == 0, ended.out + ended.err
    assert "of the images drawn were accepted" in (tmp_path / "birds" / "report.html").read_text()


def test_what_is_unfit_is_not_published_unless_it_is_named(run, tmp_path):
    place = tmp_path / "birds"
    run.add(1000, 1, model_name="own/unknown-model")
    ended = release(run, place)
    assert ended.status == 1 and ended.err.splitlines()[-1].count("--allow") == 1
    kinds = ended.err.rpartition("--allow ")[2].strip()
    assert "licence_unknown" in kinds
    assert not (place / "README.md").exists() and not (place / "MANIFEST.json").exists()
    ended = release(run, place, "--allow", kinds)
    assert ended.status == 0, ended.err
    card = (place / "README.md").read_text()
    assert "**Published all the same:**" in card
    assert all(f"> - {kind}: " in card for kind in kinds.split(","))
    assert intact(place)[0]


class Own(RunFolder):
    """A run of a list of one's own, whose prompts name no source."""

    def record(self, prompt, augmentation, image):
        return super().record(prompt, augmentation, image) | {"source": []}


def test_prompts_of_ones_own_are_released_with_their_licence(tmp_path):
    """The refusal named --allow alone; the next command that it names is the one that works."""
    run = Own(tmp_path / "my_prompts", input_file="my_prompts.txt")
    run.fill(PROMPTS, IMAGES).finish(PROMPTS)
    ended = release(run, tmp_path / "out")
    said = ended.err.splitlines()[-1]
    assert ended.status == 1, ended.err
    assert "Run the same command again with --licence my_prompts=LICENCE (" in said, said
    assert "Correct what is wrong" not in said
    assert "put the licence itself" in release(run, tmp_path / "out", "--licence", "a=LICENCE").err
    ended = release(run, tmp_path / "out", "--licence", "my_prompts=CC0-1.0")
    assert ended.status == 0, ended.err
    assert "24 train samples in 1 shard as webdataset and parquet" in ended.out
    assert "MB" not in ended.out and " kB; 0 left out" in ended.out
    assert "not stated: repo, " in ended.out and "--about FILE" in ended.out


@pytest.mark.parametrize("name", ["--allow", "a --licence $(touch x); 'b"])
def test_the_option_that_is_named_can_be_copied_whatever_the_source_is_called(tmp_path, name):
    """Others have chosen the name: a shell must neither run it nor take it for an option."""
    run = Own(tmp_path / "my_prompts", input_file=f"{name}.txt")
    run.fill(PROMPTS, IMAGES).finish(PROMPTS)
    said = release(run, tmp_path / "out").err.splitlines()[-1]
    option = said.partition("again with ")[2].partition(" (LICENCE: ")[0]
    words = shlex.split(option.replace("=LICENCE", "=CC0-1.0"))
    assert len(words) <= 2 and release(run, tmp_path / "out", *words).status == 0, said


def test_the_report_reads_tokens_from_the_runs_ledger(tmp_path):
    """No server runs any more that could print --status."""
    own = tmp_path / "generated_images" / "HPDv2"
    place = tmp_path / ".server" / "ledger.sqlite"
    use = {"backends": {"a": {"prompt_tokens": 1200, "completion_tokens": 34, "usd": 0.5}}}
    assert own_status([str(own)], str(tmp_path)) == ""
    place.parent.mkdir()
    with contextlib.closing(sqlite3.connect(place)) as ledger:
        ledger.executescript(SCHEMA)
        ledger.execute("create table llm_facts (name text, value text)")
        ledger.execute("create table llm_clients (use text)")
        ledger.execute("insert into datasets (name, total, waiting) values ('HPDv2', 9, 9)")
        ledger.execute("insert into trouble values ('HPDv2', 5, 'set_aside')")
        ledger.execute("insert into llm_facts values ('past', ?)", [json.dumps(use)])
        ledger.execute("insert into llm_clients values (?)", [json.dumps(use)])
        ledger.commit()
        document = json.loads(Path(own_status([str(own)], str(tmp_path))).read_text())
        assert document["datasets"] == [{"name": "HPDv2", "set_aside": 1}]
        assert document["llm"] == {"prompt_tokens": 2400, "completion_tokens": 68, "usd": 1.0}
        ledger.execute("insert into datasets (name, total, waiting) values ('cats', 9, 9)")
        ledger.commit()
    assert own_status([str(own)], str(tmp_path)) == "", "the tokens of cats are among them"


SOAK = [pytest.param(at, marks=pytest.mark.soak) for at in range(1, 60) if at != 29]


@pytest.mark.parametrize("at", [29, *SOAK])
def test_killed_at_any_instant_it_goes_on(run, tmp_path, dying, at):
    place = tmp_path / "birds"
    assert release(run, tmp_path / "undisturbed").status == 0
    assert dying(at, "release", run.path, place, "--num_workers", 1) in (-9, 0)
    ended = release(run, place)
    assert ended.status == 0, ended.err
    assert intact(place)[0]
    whole = shards(tmp_path / "undisturbed")
    made = shards(place)
    assert made.keys() == whole.keys()
    assert all(made[name] == whole[name] for name in made if "/train" in name)


def test_where_a_release_may_not_lie(run, tmp_path):
    def says(words, place):
        ended = release(run, place)
        assert ended.status == 1 and ended.err.count("\n") == 1, ended.err
        assert words in ended.err

    says("choose a place outside", run.path / "release")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    says("is not empty", tmp_path / "mine")
    assert called("release", [run.path]).status == 2


def test_a_table_that_is_not_its_own_is_named_with_what_helps(run, tmp_path):
    """Each advice that release.py gives can be followed with release.py."""
    place = tmp_path / "birds"
    assert release(run, place).status == 0
    path = Path(f"{place}.work/table.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    ended = release(run, place)
    assert ended.status == 1 and f"; remove {path}, and it is made anew" in ended.err, ended.err
    assert "--rebuild" not in ended.err
    path.unlink()
    ended = release(run, place)
    assert ended.status == 0 and intact(place)[0], ended.err


def test_an_image_of_other_hands_is_refused_by_name(run, tmp_path):
    """What Exif and its like tell would be published with the image, byte for byte."""
    image = PRIVATE["Exif"][0](run.place(995, 1).with_suffix(".jpg").read_bytes())
    put(run.place(995, 1), image)
    place = tmp_path / "birds"
    ended = release(run, place)
    assert ended.status == 1 and "private_field" in ended.err
    assert "HPDv2/000000/995_1.jpg: its file has APP1 (Exif)" in ended.out
    assert not (place / "MANIFEST.json").exists()
    assert release(run, place, "--allow", "private_field").status == 0
    assert intact(place)[0]
    write_manifest(str(place))
    good, said = intact(place)
    assert not good and "private_field: 2 (" in said and "995_1: APP1 (Exif)" in said


def test_where_a_model_lay_is_told_by_its_json_alone(run, tmp_path):
    """Nor by any other field that tells a path: then table, tars and folder agree all the same."""
    lora = ["/home/alice/l.safetensors@2:1.0"]
    places = {"model_name": "/home/alice/own", "lora": lora, "scheduler": "/home/alice/s.py"}
    record = run.record(995, 1, b"") | places
    hidden = (*PLACE, "image_sha256", "scheduler")
    carried = {name: value for name, value in record.items() if name not in hidden}
    put(run.place(995, 1), encode(picture(bytes(192)), comment_of(carried), 95))
    rewrite(run.place(995, 1).with_suffix(".json"), **places)
    place = tmp_path / "birds"
    ended = release(run, place, "--licence", "own=MIT", "--licence", "/home/alice/own=MIT")
    assert ended.status == 0, ended.out + ended.err
    assert b"alice" not in b"".join(shards(place).values())
