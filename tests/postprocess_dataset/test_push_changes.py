"""A release that others change while it is sent to a FakeHub, or gets its manifest."""

import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset.manifest import manifest
from postprocess_dataset.manifest.kinds import Findings
from tests.fakes.fake_hub import FakeHub
from tests.postprocess_dataset.pushed import REPO, birds, contents, limits, push, write


@pytest.fixture
def hub():
    with FakeHub() as fake:
        yield fake


@pytest.fixture
def release(tmp_path):
    return birds(tmp_path)


def other_bytes(path):
    """As many of them, and written at the same time."""
    before = path.stat()
    path.write_bytes(b"EVIL" + path.read_bytes()[4:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def a_link_to_a_secret(path):
    secret = path.parent.parent / "secret.txt"
    secret.write_bytes(b"secret")
    path.unlink()
    path.symlink_to(secret)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def longer(path):
    path.write_bytes(path.read_bytes() + b"more" * 50_000)


CHANGES = [other_bytes, a_link_to_a_secret, a_pipe, longer]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_its_check_is_not_sent(hub, release, change):
    """The card while its YAML is validated, the manifest while the card's commit is prepared."""
    whole = contents(release)

    def before(verb, path):
        if path == "/api/validate-yaml":
            change(release / "README.md")
            change(release / "MANIFEST.json")

    hub.before = before
    push(hub, release)
    assert hub.repos[REPO].files == whole


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_before_its_commit_is_named(hub, release, change):
    """And neither it nor the card that describes it goes."""
    whole = {hashlib.sha256(content).hexdigest() for content in contents(release).values()}

    def before(verb, path):
        if "/commit/" in path:  # of the shards
            change(release / "report.html")

    hub.before = before
    line = push(hub, release, status=1)
    assert "birds/report.html" in line and "run release.py again" in line
    assert [message for message, _ in hub.repos[REPO].commits] == ["Shards, part 1 of 1"]
    assert set(hub.puts()) <= whole


@pytest.mark.parametrize("change", CHANGES)
def test_a_large_file_is_opened_once(hub, release, tmp_path, change):
    """Its bytes are not in memory: what they are is known when all are sent."""
    whole = contents(release)
    changed = release / "webdataset" / "train-000001.tar"

    def before(verb, path):
        if "/preupload/" in path and change.__name__ in todo:
            todo.remove(change.__name__)
            change(changed)

    todo = [change.__name__]
    hub.before = before
    large = limits(tmp_path, "postprocess_dataset.hub.local_file", SMALL=1000)
    if change in (other_bytes, longer):  # the very file is another now
        push(hub, release, status=1, **large)
        assert hub.repos[REPO].commits == []
    else:
        push(hub, release, **large)
        assert hub.repos[REPO].files == whole
    assert not todo and b"secret" not in hub.objects.values()


def test_a_hub_that_keeps_large_files_in_git_gets_none(hub, release, tmp_path):
    """The client would read them once more after their check."""

    def before(verb, path):
        if "/commit/" in path:
            seen.append(path)

    seen = []
    hub.before = before
    hub.mode = lambda file: {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
    large = limits(tmp_path, "postprocess_dataset.hub.push", SMALL=1000)
    assert "in git, without its sha256: a release needs a hub" in push(
        hub, release, status=1, **large
    )
    assert not seen and hub.repos[REPO].commits == []


def test_a_manifest_with_the_root_of_another_is_refused(hub, release):
    """Who changes what it lists, and leaves the root that was verified."""
    document = json.loads((release / "MANIFEST.json").read_text())
    write(release, "README.md", b"---\nlicense: 0BS\n---\n")
    changed = manifest._file(str(release), "README.md")
    document["files"] = [changed if f["path"] == "README.md" else f for f in document["files"]]
    (release / "MANIFEST.json").write_text(json.dumps(document))
    assert "its root is not the one of what it lists" in push(hub, release, status=1)
    assert hub.repos == {}


def test_a_changed_file_that_the_hub_has_is_named(hub, release):
    """The hub's copy is of git, so its hash is made of the file here."""
    push(hub, release)
    other_bytes(release / "README.md")
    assert "README.md is not the file that" in push(hub, release, status=1)


def test_a_shard_is_opened_once_for_the_manifest(tmp_path, monkeypatch):
    """Its hash and its samples are of one file, though another gets its name in between."""
    for key in ("one", "other"):
        rows = {"__key__": [key], "caption": [key], "image": [{"bytes": key.encode()}]}
        pq.write_table(pa.table(rows), tmp_path / f"{key}.parquet")
    whole = manifest.look(str(tmp_path), "one.parquet", Findings())
    digest = hashlib.file_digest

    def swapped(file, kind):
        found = digest(file, kind)
        os.rename(tmp_path / "other.parquet", tmp_path / "one.parquet")
        return found

    monkeypatch.setattr(hashlib, "file_digest", swapped)
    assert manifest.look(str(tmp_path), "one.parquet", Findings()) == whole
