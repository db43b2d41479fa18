"""Fetch the sources' files: from the hub, or over plain HTTP.

Hub files go through huggingface_hub (cached, resumed, HF_ENDPOINT and HF_HOME respected); SAC's and
Gecko's single files come over HTTP into ~/.cache/prompt_sources, with a `part` file that the next
try resumes.
"""

import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.utils import disable_progress_bars
from tqdm import tqdm

from combine_prompts.processor import Read
from combine_prompts.prompt_files import one_line
from common.command_line import UserError
from common.files import open_own
from common.hub import limit_hub
from common.web import BadPeer, limited

ATTEMPTS = 5
TIMEOUT_S = 30
MOST_BYTES = 16 << 30  # of a file that only holds texts
# of a Content-Range: first byte, bytes of the whole; int() refuses 5,000 digits
SPAN = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


def hub_files(repo: str, patterns: Sequence[str], revision: str) -> tuple[list[Path], str]:
    """Fetch the files of a hub data set that match `patterns`; returns local paths and the commit.

    In the patterns' order, sorted within one; all of one commit, also while `revision` moves on.
    UserError: what could not be fetched, and how to fetch it elsewhere.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    limit_hub()
    try:
        about = HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT_S)
        names = [file.rfilename for file in about.siblings]
        matching = {
            pattern: sorted(name for name in names if fnmatch(name, pattern))
            for pattern in patterns
        }
        if missing := [pattern for pattern, found in matching.items() if not found]:
            raise OSError(f"revision {revision} holds no {', '.join(missing)}")
        wanted = [name for found in matching.values() for name in found]
        paths = []
        for number, name in enumerate(wanted, 1):
            of = f"({number} of {len(wanted)}, commit {about.sha[:12]})"
            print(f"{repo}: {name} {of}", file=sys.stderr, flush=True)
            path = hf_hub_download(repo, name, repo_type="dataset", revision=about.sha)
            paths.append(Path(path))
        return paths, about.sha
    except Exception as error:  # huggingface_hub raises its own, httpx's and OSError
        files = f"{', '.join(patterns)} of https://huggingface.co/datasets/{repo}"
        raise not_fetched(f"{repo} on the hub", files, error) from None


def web_file(url: str, read: Read) -> Path:
    """Fetch `url` into the cache, once; a broken transfer is resumed. Returns the local path.

    What `read` cannot begin to read (a login page) does not stay there.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "prompt_sources" / hashlib.sha256(url.encode()).hexdigest()[:12]
    path = folder / url.rsplit("/", 1)[-1]
    if path.exists() and not _fault(path, read):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "part"
        _fetch_all(url, part, path.name)
        if fault := _fault(part, read):
            part.unlink()
            raise OSError(f"another file came: {fault}")
        os.replace(part, path)
        return path
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL, BadPeer) as error:
        raise not_fetched(url, url, error) from None


def _fault(path: Path, read: Read) -> str:
    """Why the first row cannot be read; "": it can."""
    try:
        next(iter(read(path)), None)
    except Exception as error:  # OSError, ValueError, sqlite3.Error, csv.Error
        return one_line(error)
    return ""


def _fetch_all(url: str, part: Path, name: str) -> None:
    """Fetch until `part` is whole; gives up when a try brings nothing more."""
    for attempt in range(ATTEMPTS):
        have = _size(part)
        try:
            if _fetch_rest(url, part, name):
                return
            part.unlink()  # it is no part of this file
        except httpx2.TransportError:
            if attempt == ATTEMPTS - 1 or _size(part) <= have:
                raise
            time.sleep(attempt)
    raise OSError(f"the server refused to continue the transfer {ATTEMPTS} times")


def _fetch_rest(url: str, part: Path, name: str) -> bool:
    """Append what `part` lacks of `url`; False if the server says that it is no part of it."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    with (
        limited(httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S)) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code == 416:
            return False
        answer.raise_for_status()
        resumed = 0
        total = int(answer.headers.get("Content-Length", 0))
        if answer.status_code == 206:
            span = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
            if have and span and int(span[2]) < have:
                return False
            if not have or not span or int(span[1]) != have:
                raise OSError(f"not the bytes from {have:,} on came, but others")
            resumed = have
            total = int(span[2])
        if not total and "Transfer-Encoding" not in answer.headers:
            raise OSError("the server does not say how many bytes it has")
        if total > MOST_BYTES:
            raise OSError(f"it has {total:,} bytes, more than any file of prompts")
        where = f" from byte {resumed:,}" if resumed else ""
        print(f"fetching {url}{where}", file=sys.stderr, flush=True)
        bar = tqdm(total=total, initial=resumed, unit="B", unit_scale=True, desc=name, disable=None)
        with open(part, "ab" if resumed else "wb", opener=open_own) as file, bar:
            most = total or MOST_BYTES
            for block in answer.iter_bytes():
                if file.tell() + len(block) > most:
                    part.unlink()  # nothing of it is of use
                    raise OSError(f"it has more than {most:,} bytes")
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total and _size(part) != total:
        raise httpx2.ReadError(f"got {_size(part):,} of {total:,} bytes")
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def not_fetched(what: str, files: str, error: Exception) -> UserError:
    """The error for what cannot be fetched: what, why, and how to go on without a network."""
    reason = one_line(error)[:160]
    return UserError(
        f"cannot fetch {what} ({reason}); "
        f"fetch {files} where there is a network and pass it with --input"
    )
