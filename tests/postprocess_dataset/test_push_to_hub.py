"""push_to_hub.py against a FakeHub over a real socket: what goes, in which order, and when not."""

import signal
import subprocess
import threading
from pathlib import Path

import httpx2
import pytest

from common.hub import keep_token
from postprocess_dataset.hub import difference
from tests.fakes.fake_hub import FakeHub, Refuse
from tests.postprocess_dataset.pushed import (
    REPO,
    birds,
    command,
    contents,
    limits,
    push,
    vouch,
    write,
)


@pytest.fixture
def hub():
    with FakeHub() as fake:
        yield fake


@pytest.fixture
def release(tmp_path):
    return birds(tmp_path)


def test_what_is_new_goes_with_the_card_last(hub, release):
    said = push(hub, release, "--dry_run")
    assert "would upload data/train-00000.parquet" in said and hub.repos == {}
    push(hub, release)
    repo = hub.repos[REPO]
    assert repo.private and repo.files == contents(release)
    assert [sorted(paths) for _, paths in repo.commits] == [
        sorted(name for name in repo.files if name.endswith((".parquet", ".tar"))),
        ["MANIFEST.json", "README.md", "report.html"],
    ]
    uploaded = len(hub.puts())
    said = push(hub, release)
    assert "0 files (0 bytes) in 0 commits, 8 were there" in said
    assert len(repo.commits) == 2 and len(hub.puts()) == uploaded
    # it grows: the last shard is another one now, one is new, one is gone
    write(release, "webdataset/train-000002.tar", b"more " * 900)
    write(release, "webdataset/train-000003.tar", b"new " * 900)
    (release / "data" / "train-00001.parquet").unlink()
    vouch(release)
    push(hub, release)
    assert repo.files == contents(release)
    assert [sorted(paths) for _, paths in repo.commits[2:]] == [
        ["webdataset/train-000002.tar", "webdataset/train-000003.tar"],
        ["MANIFEST.json", "data/train-00001.parquet"],
    ]


def test_what_the_release_has_no_longer_goes(hub, release):
    """Rows of an earlier release would stand beside the new ones, and be read with them."""
    gone = [
        "data/train-00007.parquet",
        "metadata/train-00007.parquet",
        "scores/part-00000-of-00001.000007.parquet",
        "webdataset/train-000007.tar",
    ]
    for name in gone:
        write(release, name, b"rows " * 900)
    write(release, "scores/part-00000-of-00001.000000.parquet", b"scores " * 900)
    vouch(release)
    push(hub, release)
    for name in gone:
        (release / name).unlink()
    vouch(release)
    said = push(hub, release, "--dry_run").splitlines()
    assert [line for line in said if "remove" in line] == [f"would remove {name}" for name in gone]
    push(hub, release)
    assert hub.repos[REPO].files == contents(release)


@pytest.mark.parametrize(
    "ignored, missing, messages",
    [
        ((".tar",), "webdataset/train-000000.tar and 2 others is", ["Shards, part 1 of 1"]),
        ((".html",), "report.html is", ["Shards, part 1 of 1", "Card and manifest"]),
    ],
)
def test_what_the_hub_ignores_is_named(hub, release, ignored, missing, messages):
    """Where a shard is missing, no card says that it is there."""
    hub.ignored = ignored
    line = push(hub, release, status=1)
    assert line.startswith(f"push_to_hub: me/birds: {missing} not there after its commit")
    assert [message for message, _ in hub.repos[REPO].commits] == messages
    hub.ignored = ()
    push(hub, release)
    assert hub.repos[REPO].files == contents(release)


def test_a_commit_that_was_not_made_is_named(hub, release):
    hub.lost = True
    assert "data/train-00000.parquet and 4 others is not there" in push(hub, release, status=1)


def test_nothing_goes_to_a_public_repository_unasked(hub, release):
    hub.public = True  # as an organisation may set it
    assert "is public" in push(hub, release, status=1)
    assert hub.objects == {} and hub.repos[REPO].commits == []
    push(hub, release, "--public")
    assert hub.repos[REPO].files == contents(release)


def test_killed_in_mid_upload_it_goes_on(hub, release):
    reached = threading.Event()
    hold = threading.Event()

    def before(verb, path):
        if verb == "PUT" and len(hub.puts()) == 3:
            reached.set()
            hold.wait(120)

    hub.before = before
    words, environment = command(hub, release, REPO)
    client = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert reached.wait(240)
    client.send_signal(signal.SIGKILL)
    client.wait()
    hub.before = lambda verb, path: None
    hold.set()
    assert hub.repos[REPO].commits == []
    there = set(hub.objects)
    hub.calls.clear()
    push(hub, release)
    assert hub.repos[REPO].files == contents(release)
    assert there and not there & set(hub.puts())  # what had arrived is not sent again


def test_a_commit_that_fails_is_one_line_and_goes_on(hub, release):
    def before(verb, path):
        if "/commit/" in path and len(hub.repos[REPO].commits) == 1:
            raise Refuse(500)

    hub.before = before
    line = push(hub, release, status=1)
    assert line.startswith("push_to_hub: me/birds: the hub says 500") and "goes on" in line
    assert len(hub.repos[REPO].commits) == 1
    hub.before = lambda verb, path: None
    push(hub, release)
    assert hub.repos[REPO].files == contents(release) and len(hub.repos[REPO].commits) == 2


def test_a_log_gets_lines_and_no_bars(hub, release):
    """Standard error is no terminal; an upload is refused again and again."""

    def before(verb, path):
        if verb == "PUT":
            hub.retry_after = "0"
            raise Refuse(500)

    hub.before = before
    words, environment = command(hub, release, REPO)
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("push_to_hub: me/birds: the hub says 500")
    assert "\x1b" not in ended.stderr + ended.stdout and "\r" not in ended.stderr
    hub.before = lambda verb, path: None
    push(hub, release)


NO_LONG_SLEEP = """
import os, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds) if seconds < 3600 else os._exit(99)
"""


@pytest.mark.parametrize("call", ["/objects/", "/commit/", "/tree/"])
def test_a_hub_that_asks_for_years_is_one_line(hub, release, tmp_path, call):
    """A wait of a second is kept, one of 30 years is left to the user."""
    (tmp_path / "sitecustomize.py").write_text(NO_LONG_SLEEP)
    refused = []

    def before(verb, path):
        if call in path and len(refused) < 2:
            refused.append(path)
            hub.retry_after = "0" if len(refused) == 1 and call == "/objects/" else "1000000000"
            raise Refuse(429)

    hub.before = before
    line = push(hub, release, status=1, PYTHONPATH=str(tmp_path))
    assert "the hub says 429 and asks to wait 1,000,000,000 s" in line
    hub.before = lambda verb, path: None
    hub.retry_after = ""
    push(hub, release)
    assert hub.repos[REPO].files == contents(release)


def test_a_hub_that_never_answers_is_one_line(hub, release, tmp_path):
    waiting = threading.Event()

    def before(verb, path):
        if "/commit/" in path:
            waiting.wait(120)

    hub.before = before
    line = push(hub, release, status=1, **limits(tmp_path, ANSWER_S=1.0))
    waiting.set()
    assert "the hub cannot be reached: timed out" in line and "goes on" in line


@pytest.mark.parametrize("call", ["/create", "/tree/", "/objects/", "/commit/"])
def test_a_hub_that_drips_is_one_line(hub, release, tmp_path, call):
    """And what was uploaded before is not sent again."""
    hub.drips = call
    line = push(hub, release, status=1, **limits(tmp_path, WINDOW_S=1.0))
    assert f"{hub.url[7:]} sends fewer than 1,000 bytes a second" in line and "again" in line
    hub.drips = ""
    push(hub, release)
    assert hub.repos[REPO].files == contents(release)
    assert len(hub.puts()) <= len(set(hub.puts())) + (5 if call == "/objects/" else 0)


def test_a_list_without_an_end_is_one_line(hub, release, tmp_path):
    """Of empty pages as of new names."""
    few = limits(tmp_path, "common.hub", MOST_PAGES=20)
    for names in (0, 7):
        hub.endless = names
        hub.calls.clear()
        assert "more than 20 pages" in push(hub, release, status=1, **few)
        assert len(hub.calls) < 30


def test_only_the_hub_gets_the_token(hub, release):
    """Not where it says that its list goes on, which is not followed; nor where uploads go."""
    with FakeHub() as other:
        hub.next_page = f"{other.url}/api/datasets/{REPO}/tree/main"
        line = push(hub, release, status=1)
        assert f"its list goes on at {hub.next_page}" in line and "HF_ENDPOINT" in line
        assert other.calls == []


def test_the_token_stays_at_the_endpoint(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example:443")
    for url, kept in [
        ("https://hub.example/api", True),
        ("https://HUB.example:443/api", True),
        ("http://hub.example/api", False),
        ("https://hub.example:8443/api", False),
        ("https://hub.example.org/api", False),
        ("https://hub.example@other.org/api", False),
    ]:
        request = httpx2.Request("GET", url, headers={"Authorization": "Bearer hf_secret"})
        keep_token(request)
        assert ("authorization" in request.headers) == kept, url


def test_what_was_not_verified_does_not_go(hub, release):
    vouch(release, good=False)
    assert "--allow_unverified" in push(hub, release, status=1)
    vouch(release)
    (release / "README.md").write_text("another card")
    assert "run release.py again" in push(hub, release, status=1)  # not the manifest's
    vouch(release)
    (release / "webdataset" / "train-000001.tar").write_bytes(b"X" * 1800)  # the same size
    assert "is not the file that MANIFEST.json lists" in push(hub, release, status=1)
    assert hub.repos[REPO].commits == []
    vouch(release)
    Path(f"{release}.work", "verification.json").unlink()
    assert "--allow_unverified" in push(hub, release, status=1)
    push(hub, release, "--allow_unverified", "--public")
    assert hub.repos[REPO].files == contents(release)


def test_what_is_wrong_is_one_line(hub, release, tmp_path):
    assert "hf auth login" in push(hub, release, status=1, HF_TOKEN="hf_wrong")
    assert "a/b/c" in push(hub, release, repo="a/b/c", status=1)
    nobody = push(hub, release, status=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in nobody
    (release / "MANIFEST.json").unlink()
    assert "release.py writes it" in push(hub, release, status=1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>log in</html>",
        b"null",
        b"[1, 2]",
        b"5",
        b"[" * 9000,
        b"9" * 6000,
        b'[{"type": "file", "path": 5, "size": "x", "oid": null, "lfs": {"oid": 5}}]',
        b'{"url": "http://x/\\u001b[31m", "files": [], "objects": 5}',
    ],
)
def test_an_address_that_is_no_hub_is_one_line(hub, release, answer):
    """A login page; and what is left of it in the cache does not stop the next push."""
    hub.raw = answer
    for option in ("--dry_run", "--public"):
        said = push(hub, release, option, status=1)
        assert "does not answer as a hub" in said or "cannot be reached" in said


def test_few_commits():
    files = [difference.LocalFile("", f"{n}.tar", 1 << 30, "") for n in range(45)]
    assert [len(batch) for batch in difference.commits(files)] == [20, 20, 5]
    files = [difference.LocalFile("", f"{n}.tar", 1, "") for n in range(250)]
    assert [len(batch) for batch in difference.commits(files)] == [100, 100, 50]
    assert list(difference.commits([])) == []
