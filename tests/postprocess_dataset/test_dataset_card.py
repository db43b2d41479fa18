"""make_dataset_card.py: its counts are true, its gaps named; readers of other hands take it."""

import json
import re
import shutil

import pytest
import yaml

from postprocess_dataset.release_card import licences
from postprocess_dataset.release_card.card import size_category
from postprocess_dataset.shard_names import braces
from tests.postprocess_dataset.conftest import Folder, called

ABOUT = {
    "title": "Birds | <b>and</b> others",
    "repo": "someone/birds",
    "authors": ["A. Author", "B. Author"],
    "motivation": "To learn what birds look like.",
    "licence": "cc-by-4.0",
}
SPLIT = ("--num_workers", 1, "--split", "train=0.7,val=0.3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A release of two splits, of sources and models whose terms are known, unknown and hard."""
    place = tmp_path_factory.mktemp("made")
    data = Folder(place / "HPDv2")
    for prompt in range(12):
        for augmentation in range(3):
            data.add(
                prompt,
                augmentation,
                source=[["sac"], ["pickscore", "COCO"], []][prompt % 3],
                input_file="HPDv2.json" if prompt % 3 < 2 else "mine.txt",
                model_name="own/unknown-model" if prompt == 4 else "black-forest-labs/FLUX.1-dev",
                llm_model_name="llama3.1" if augmentation else None,
            )
    ended = called("convert_json_to_parquet", [data.path, place / "t.parquet"])
    assert ended.status == 0, ended.err
    ended = called("make_release_forms", [place / "t.parquet", place / "birds", *SPLIT])
    assert ended.status == 0, ended.err
    return place


@pytest.fixture
def release(made, tmp_path):
    return shutil.copytree(made / "birds", tmp_path / "birds")


def card(release, *options):
    ended = called("make_dataset_card", [release, *options])
    assert ended.status == 0, ended.err
    text = (release / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body, json.loads((release / "croissant.json").read_text())


def test_the_folder_loads_as_its_card_says(made, release, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    header, _, _ = card(release)
    loaded = datasets.load_dataset(str(release), cache_dir=str(tmp_path / "cache"))
    stated = {split["name"]: split["num_examples"] for split in header["dataset_info"]["splits"]}
    assert {name: split.num_rows for name, split in loaded.items()} == stated
    assert sum(stated.values()) == 36 and set(stated) == {"train", "val"}
    assert loaded["val"][0]["image"].size == (8, 8)
    assert loaded["train"].features["source"].feature.dtype == "string"
    assert header["size_categories"] == ["n<1K"]
    # the tars alone
    tars = [made / "t.parquet", tmp_path / "tars", *SPLIT, "--form", "webdataset"]
    assert called("make_release_forms", tars).status == 0
    release = tmp_path / "tars"
    card(release)
    tars = datasets.load_dataset(str(release), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in tars.items()} == stated


@pytest.mark.parametrize("repo", [True, False])
def test_mlcroissant_reads_every_sample(release, tmp_path, repo):
    import mlcroissant

    about = tmp_path / "about.yaml"
    about.write_text(yaml.safe_dump(ABOUT if repo else {"title": "birds"}))
    _, _, document = card(release, "--about", about)
    found = mlcroissant.Dataset(
        jsonld=release / "croissant.json", mapping={"repo": release} if repo else None
    )
    assert found.metadata.ctx.issues.report() == ""
    records = list(found.records("samples"))
    assert len(records) == 36
    assert {record["samples/image"].size for record in records} == {(8, 8)}
    keys = {record["samples/__key__"].decode() for record in records}
    assert len(keys) == 36 and "HPDv2/000000/4_2" in keys
    assert "http://mlcommons.org/croissant/1.1" in document["conformsTo"]
    assert "FLUX.1-dev" in document["rai:dataCollection"]


def test_what_the_author_says_and_what_is_missing(release, tmp_path):
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(ABOUT))
    header, body, document = card(release, "--about", tmp_path / "about.yaml")
    assert header["license"] == "cc-by-4.0" and header["pretty_name"] == ABOUT["title"]
    assert "To learn what birds look like." in body and "A. Author, B. Author" in body
    assert 'load_dataset("someone/birds"' in body and "author = {A. Author and B. Author}" in body
    gaps = body.partition("## What its author has not stated")[2]
    assert "**funding**" in gaps and "**motivation**" not in gaps
    assert [creator["name"] for creator in document["creator"]] == ABOUT["authors"]
    _, body, _ = card(release)
    assert "**motivation**" in body.partition("## What its author has not stated")[2]
    # said once, there, and neither a sentence nor a heading for what nobody has stated
    assert "Not stated" not in body and "**Motivation.**" not in body
    assert "Intended:" not in body and "**Uses.** A model" in body


def test_what_the_card_shows_can_be_tried(release, tmp_path, monkeypatch):
    import datasets
    import duckdb

    _, body, _ = card(release)
    monkeypatch.chdir(release.parent)
    (place,) = re.findall(r'load_dataset\("(.*?)"', body)
    loaded = datasets.load_dataset(place, cache_dir=str(tmp_path / "cache"))
    assert sum(part.num_rows for part in loaded.values()) == 36
    (query,) = re.findall(r"```sql\n(.*?);", body)
    assert "width = 8" in query and len(duckdb.sql(query).fetchall()) == 10


def test_its_picture_shows_images_of_the_release(release):
    from PIL import Image

    _, body, _ = card(release)
    assert "![6 of the images](pictures.jpg)" in body and "From left to right: a " in body
    with Image.open(release / "pictures.jpg") as strip:
        assert strip.size == (6 * 168 - 8, 160)
    shutil.rmtree(release / "webdataset")
    assert "the image shows it" not in body
    assert "Whether each image shows it was not checked." in body.partition("## Load it")[0]


def test_every_term_is_named_with_its_images(release):
    header, body, _ = card(release)
    assert header["license"] == "other"
    part = body.partition("## Licences")[2].partition("## Datasheet")[0]
    lines = [line.replace("\\", "") for line in part.splitlines() if line.startswith("- ")]
    for start, words in (
        ("- pickscore (source of prompts, 12 images)", "states no licence"),
        ("- COCO (source of prompts, 12 images)", "attribution is required"),
        ("- llama3.1 (language model, 24 images)", "Built with Llama"),
        ("- black-forest-labs/FLUX.1-dev (image model, 33 images)", "non-commercial"),
        ("- own/unknown-model (image model, 3 images)", "not known"),
        ("- mine (source of prompts, 12 images)", "not known"),
    ):
        assert any(line.startswith(start) and words in line for line in lines), (start, lines)
    assert "Chen et al., Microsoft COCO" in (release / "ATTRIBUTION.md").read_text()
    # stated by the user
    stated = ("--licence", "own/unknown-model=MIT", "--licence", "mine.txt=CC0-1.0")
    _, body, _ = card(release, *stated)
    assert "own/unknown-model | 3 | MIT" in body and "mine | 12 | CC0-1.0" in body


def test_of_open_parts_the_licence_that_asks_most_stands():
    def rolled(*hubs):
        parts = [licences.Part("source", "x", 1, hub, hub) for hub in hubs]
        return licences.RolledUp(parts).hub_licence

    assert rolled("cc0-1.0", "apache-2.0") == "apache-2.0"
    assert rolled("cc0-1.0", "cc-by-4.0", "mit") == "cc-by-4.0"
    assert rolled("cc0-1.0", "other") == rolled() == "other"
    known = [licences.Part("source", "x", 1, "mit", "mit")]
    assert licences.RolledUp(known, sourceless=1).hub_licence == "other"


def test_shard_names_in_braces():
    names = [f"train-{number:06d}.tar" for number in range(3)]
    assert braces(names) == "train-{000000..000002}.tar"
    assert braces(names[:1]) == names[0] and braces([]) == ""
    assert braces(names[::2]) == "train-000000.tar, train-000002.tar"
    assert size_category(999) == "n<1K" and size_category(2 * 10**7) == "10M<n<100M"


def test_the_card_names_each_column_once(release):
    _, body, _ = card(release)
    part = body.partition("| column | type | holds |")[2].partition("## Licences")[0]
    names = re.findall(r"^\| `(\w+)` \|", part, re.M)
    assert len(names) == len(set(names)) and {"image", "caption", "split"} <= set(names)
    assert not {"hostname", "lease"} & set(names)
    (empty,) = re.findall(r"^Empty in all rows: (.*)\.$", part, re.M)
    empty = set(re.findall(r"`(\w+)`", empty))
    assert {"lora", "truncated", "negative_prompt"} <= empty and not empty & set(names)
    assert "source" in names, "a third of its lists are empty, the others are not"


def test_foreign_names_and_times_are_text(folder, to_parquet, tmp_path):
    """No markup, no link; what is no date is none."""
    data = folder()
    for number, time in enumerate(("2026-01-02T03:04:05Z", "z\n\n<!--", "<!--", "0\x1b[31m")):
        source = ["http://evil.example/u", "WWW.evil.example", "u@evil.example"]
        data.add(number, generation_timestamp=time, source=source)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    words = [tmp_path / "t.parquet", tmp_path / "birds", "--num_workers", 1]
    assert called("make_release_forms", words).status == 0
    _, body, _ = card(tmp_path / "birds")
    assert "Images were generated on 2026-01-02 with" in body and "<!--" not in body
    assert not re.search(r"http://evil|www\.evil|u@evil", body, re.I) and "evil.example" in body


def test_what_is_wrong_is_one_line(release, tmp_path):
    def says(words, *args):
        ended = called("make_dataset_card", args)
        assert ended.status == 1 and ended.err.count("\n") == 1, ended.err
        assert all(word in ended.err for word in words), ended.err

    says(["make_release_forms.py"], tmp_path / "none")
    about = tmp_path / "about.yaml"
    for text, words in (
        ("titel: x", ["did you mean title?"]),
        ("- x", ["one field a line"]),
        ("title: [", ["cannot be read"]),
        ("title: {a: 1}", ["title is a text"]),
        ("authors: [1]", ["list of names"]),
        ('repo: "\\ud800"', ["half a surrogate pair"]),
        ('repo: "x\\e[31m"', ["repo holds \\x1b"]),
        ('authors: ["\\u202e"]', ["authors holds \\u202e"]),
        ("repo: a b", ["ORGANISATION/NAME"]),
    ):
        about.write_text(text)
        says([str(about), *words], release, "--about", about)
    says(["--licence"], release, "--licence", "nonsense")
    (release / "data" / "train-00000.parquet").write_bytes(b"PAR1 torn")
    says(["train-00000.parquet"], release)
