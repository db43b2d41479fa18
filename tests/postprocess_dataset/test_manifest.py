"""MANIFEST.json: a stranger finds every change of a download, and nothing in one that is whole."""

import hashlib
import io
import json
import os
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess_dataset.manifest.kinds import KINDS, Findings
from postprocess_dataset.manifest.manifest import (
    Known,
    check_manifest,
    look,
    root_of,
    write_manifest,
)
from postprocess_dataset.manifest.merkle import Tree
from postprocess_dataset.manifest.shards import Unreadable, read_shard, tar_members
from tests.fakes.hostile_files import doubling
from tests.postprocess_dataset.conftest import called

KIB = 1 << 10
LIST = '{"format": "text-to-image-manifest-2", "root": "", "shards": [], "files": [], '
HEAD = '{"format": "text-to-image-manifest-2", "root": "", "shards": [], "allowed": [], '


def check(folder):
    return called("verify_dataset", (folder, "--manifest"))


@pytest.fixture
def release(table, to_tars, small_shards, tmp_path):
    """Tars of 36 samples in several shards, the same rows as parquet, a card and a manifest."""
    small_shards()
    data, parquet = table
    out = tmp_path / "release"
    assert to_tars(parquet, data.path.parent, out / "data", "--shard_size_mb", 1).status == 0
    rows = [sample for path in sorted(out.glob("data/*.tar")) for sample in read_shard(str(path))]
    columns = {
        "__key__": [row.key for row in rows],
        "caption": [row.caption for row in rows],
        "image": [{"bytes": row.image, "path": f"{row.key}.jpg"} for row in rows],
    }
    (out / "parquet").mkdir()
    first = len(list(read_shard(str(sorted(out.glob("data/*.tar"))[0]))))
    pq.write_table(pa.table(columns).slice(0, first), out / "parquet/train-00000.parquet")
    pq.write_table(pa.table(columns).slice(first), out / "parquet/train-00001.parquet")
    card = "---\ndataset_info:\n  splits:\n  - {name: train, num_examples: 36}\n---\n# A card\n"
    (out / "README.md").write_text(card)
    write_manifest(str(out), allowed=["private_field"])
    return out


def test_what_is_known_is_not_read_again_unless_it_has_changed(release, monkeypatch):
    before = (release / "MANIFEST.json").read_bytes()
    known = {}
    for path in sorted([*release.glob("*/*.tar"), *release.glob("*/*.parquet")]):
        name = str(path.relative_to(release))
        file, shard = look(str(release), name, Findings())
        known[name] = Known(file, shard, path.stat().st_mtime_ns)
    read = []
    from postprocess_dataset.manifest import manifest

    def seen(folder, path, *others):
        read.append(path)
        return look(folder, path, *others)

    monkeypatch.setattr(manifest, "look", seen)
    write_manifest(str(release), allowed=["private_field"], known=known)
    assert (release / "MANIFEST.json").read_bytes() == before and not known.keys() & set(read)
    changed = next(name for name in known if name.endswith(".tar"))
    old = known[changed]
    (release / changed).write_bytes((release / changed).read_bytes() + bytes(512))
    longer = {**old.file, "bytes": old.file["bytes"] + 512}
    for stale in (old, Known(longer, old.shard, old.changed_ns)):  # another size; another time
        write_manifest(str(release), allowed=["private_field"], known={**known, changed: stale})
        assert check(release).status == 0


def test_a_header_is_read_as_tarfile_reads_it(tmp_path):
    """By the quick way or the slow one: names that are long, odd, or of other programs."""
    names = ["a/1_0.jpg", "x" * 99, "y" * 100, "z" * 180, "d\u00e9j\u00e0.txt", "d/" + "e" * 120]
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = number
            member.mtime = number % 2  # not as this project writes them
            tar.addfile(member, io.BytesIO(b"x" * number))
    with open(tmp_path / "t.tar", "rb") as file:
        found = list(tar_members(file))
    assert found == [(name, b"x" * number) for number, name in enumerate(names)]


def test_the_root_is_that_of_rfc_6962():
    """Known answers: the tree of certificate transparency's own reference tests."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves += ["606162636465666768696a6b6c6d6e6f"]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    tree = Tree()
    assert tree.root() == hashlib.sha256().digest()
    for leaf in leaves:
        tree.add(bytes.fromhex(leaf))
        assert tree.root().hex() == roots.get(tree.count, tree.root().hex())


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70))
@settings(max_examples=60, deadline=None)
def test_the_root_is_the_recursive_one(leaves):
    def root(part):
        if len(part) == 1:
            return hashlib.sha256(b"\0" + part[0]).digest()
        cut = 1 << ((len(part) - 1).bit_length() - 1)
        return hashlib.sha256(b"\1" + root(part[:cut]) + root(part[cut:])).digest()

    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.root() == root(leaves)


def test_a_whole_download_is_verified_elsewhere(release, tmp_path):
    elsewhere = shutil.copytree(release, tmp_path / "elsewhere/download")
    shutil.rmtree(release)
    ended = check(elsewhere)
    assert ended.status == 0, ended.out + ended.err
    root = json.loads((elsewhere / "MANIFEST.json").read_text())["root"]
    assert f"root {root}" in ended.out and "36 samples in webdataset" in ended.out
    assert "36 samples in parquet" in ended.out


def test_tars_and_parquet_of_the_same_rows_have_the_same_root(release):
    shards = json.loads((release / "MANIFEST.json").read_text())["shards"]
    first = {shard["merkle_root"] for shard in shards if "00000." in shard["path"]}
    assert len(shards) > 3 and len(first) == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_manifest(release, change):
    document = json.loads((release / "MANIFEST.json").read_text())
    change(document)
    (release / "MANIFEST.json").write_text(json.dumps(document))


def swap_two(release):
    """Two samples change places; file hashes and root are made to fit, the Merkle root is not."""
    path = sorted(release.glob("data/*.tar"))[0]
    shards = json.loads((release / "MANIFEST.json").read_text())["shards"]
    blocks = [(name, data) for name, data in tar_members(io.BytesIO(path.read_bytes()))]
    blocks = blocks[3:6] + blocks[:3] + blocks[6:]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in blocks:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write_manifest(str(release), allowed=["private_field"])
    edit_manifest(release, lambda document: document.update(shards=shards))


def card(release, head):
    (release / "README.md").write_text(f"---\n{head}\n---\n")
    write_manifest(str(release), allowed=["private_field"])


CHANGES = {
    "a byte": (lambda r: flip(sorted(r.glob("data/*.tar"))[0]), "wrong_hash"),
    "cut": (lambda r: (p := next(r.glob("parquet/*"))).write_bytes(p.read_bytes()[:-9]), "torn"),
    "gone": (lambda r: sorted(r.glob("data/*.tar"))[1].unlink(), "missing"),
    "more": (lambda r: (r / "data/more.tar").write_bytes(bytes(10 * KIB)), "foreign"),
    "more manifests": (lambda r: (r / "data/MANIFEST.json").write_text("#!/bin/sh"), "foreign"),
    "a folder elsewhere": (lambda r: (r / "data/more").symlink_to("/etc"), "foreign"),
    "an endless tar": (lambda r: os.truncate(sorted(r.glob("data/*.tar"))[0], 1 << 30), "torn"),
    "a link": (
        lambda r: ((r / "README.md").unlink(), (r / "README.md").symlink_to("/etc/passwd")),
        "foreign",
    ),
    "swapped": (swap_two, "index_without_shard"),
    "another root": (
        lambda r: edit_manifest(r, lambda document: document.update(root="00" * 32)),
        "index_without_shard",
    ),
    "counts": (lambda r: card(r, "dataset_info: {splits: [{num_examples: 35}]}"), "card_counts"),
    "aliases": (lambda r: card(r, f"a: {doubling('x')}"), "card_counts"),
    "a long head": (lambda r: card(r, f"a: [{'a,' * 100_000}]"), "card_counts"),
    "no YAML": (lambda r: card(r, "a: ["), "card_counts"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found_under_its_name_and_no_other(release, name):
    change, kind = CHANGES[name]
    change(release)
    ended = check(release)
    lines = [line for line in ended.out.splitlines() if line[0] != " " and "allowed" not in line]
    found = [line.split(":")[0] for line in lines]
    assert ended.status == 1 and found[:-1] == [kind], ended.out + ended.err
    assert "DAMAGED" in ended.out and "what to do" in ended.out


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "is damaged"),
        (
            '{"format": "text-to-image-manifest-2", "files": [], "shards": [], "allowed": [],'
            f' "root": "{root_of([], [])}"}}',
            "nothing was checked",
        ),
        ('{"format": "another"}', "no manifest of this form"),
        (
            f'{HEAD}"files": [{{"path": "../x", "bytes": 1, "sha256": ""}}]}}',
            "no manifest of this form",
        ),
        *(
            (f'{HEAD}"files": [{{"path": {path}, "bytes": 1, "sha256": ""}}]}}', "no manifest of")
            for path in ("5", "null", "[]", '{"a": 1}', r'"\ud800"')
        ),
        (f'{LIST}"allowed": ["\\ud800"]}}', "no manifest of"),
        (f'{LIST}"allowed": [], "files": []}}', "a name stands twice"),
        *(
            (f'{LIST}"allowed": {value}}}', "no manifest of")
            for value in ("5", "null", "[[]]", "{}")
        ),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path, text, says):
    (tmp_path / "MANIFEST.json").write_text(text)
    ended = check(tmp_path)
    assert ended.status == 1 and says in ended.err + ended.out and "Traceback" not in ended.err


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_allowed_excuses_no_change(release, name):
    """Whoever alters a download can edit its manifest as well; the root then tells."""
    path = release / "MANIFEST.json"
    document = json.loads(path.read_text())
    root = document["root"]
    change, _ = CHANGES[name]
    change(release)
    if path.exists():
        document = json.loads(path.read_text()) | {"allowed": sorted(KINDS)}
        path.write_text(json.dumps(document))
    ended = check(release)
    assert ended.status == 1 and "all as in" not in ended.out
    assert root not in ended.out


def test_a_manifest_that_lies_elsewhere(release, tmp_path):
    (release / "MANIFEST.json").rename(tmp_path / "elsewhere.json")
    (release / "MANIFEST.json").symlink_to(tmp_path / "elsewhere.json")
    assert "MANIFEST.json is damaged: it lies outside" in check(release).err


def test_hidden_files_are_named(release):
    """They are not of the release: who opens the folder should know that nobody checked them."""
    (release / ".git" / "hooks").mkdir(parents=True)
    (release / ".git" / "hooks" / "post-checkout").write_text("echo")
    ended = check(release)
    assert ended.status == 0 and "not looked at: .git" in ended.out


def test_a_card_that_is_too_deep_is_named(release):
    (release / "README.md").write_text("---\n" + "[" * 5000 + "\n---\n")
    ended = check(release)
    assert ended.status == 1 and "card_counts: 1 (" in ended.out, ended.out


def test_without_a_manifest_and_without_a_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        ended = check(folder)
        assert ended.status == 1 and "no such file" in ended.err


@given(st.integers(0, 40 * KIB), st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_a_tar_with_another_header_or_end_is_unreadable_or_the_same(place, value):
    """Whatever byte changes: the reader ends with Unreadable or all members, never in between."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for n in range(12):
            member = tarfile.TarInfo(f"a/{n}.jpg")
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes([n]) * 1000))
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    try:
        names = [name for name, _ in tar_members(io.BytesIO(data))]
    except Unreadable:
        return
    assert names == [f"a/{n}.jpg" for n in range(12)]


def test_long_names_of_an_extended_header_are_read():
    buffer = io.BytesIO()
    name = f"{'a' * 120}/{'b' * 90}/{'c' * 110}.jpg"
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        tar.addfile(tarfile.TarInfo("short.jpg"), io.BytesIO())
    buffer.seek(0)
    assert [found for found, _ in tar_members(buffer)] == [name, "short.jpg"]


def test_what_says_where_it_was_made_is_named_unless_the_publisher_said_so(release):
    assert "private_field: 36 (" in check(release).out and check(release).status == 0
    write_manifest(str(release))
    ended = check(release)
    assert ended.status == 1 and "hostname, image_path, slurm_job_id" in ended.out


def test_a_score_that_is_no_number_is_named(release):
    path = next(release.glob("parquet/*"))
    rows = pq.read_table(path)
    scores = pa.array([float("nan")] + [0.5] * (rows.num_rows - 1))
    pq.write_table(rows.append_column("score_clip", scores), path)
    write_manifest(str(release), allowed=["private_field"])
    ended = check(release)
    assert ended.status == 1 and "nan_score: 1 (" in ended.out


def test_a_damaged_shard_gets_no_manifest(release):
    path = sorted(release.glob("data/*.tar"))[0]
    path.write_bytes(path.read_bytes()[:-1024])
    with pytest.raises(Unreadable, match="without the mark of an end"):
        write_manifest(str(release))


def test_the_check_needs_no_more_than_the_folder(release):
    from postprocess_dataset.progress import Progress

    download = check_manifest(str(release), Progress("samples"))
    assert sum(download.samples.values()) == 72 and len(download.root) == 64
    # made of a run's own tars
    assert set(download.found.counts) == {"private_field"}
