"""A hub model is fetched once for all clients that share a cache, and then loaded without the hub.

    pipe = load_once("Tongyi-MAI/Z-Image-Turbo", None, load)     # load(offline: bool)

The first client loads under a lock that ends with its process, however that dies; the others wait.
When it has all files it leaves a mark for that commit beside the lock, and who finds the mark loads
from the cache alone: 128 clients ask the hub for nothing. Where the mark is wrong (the cache was
emptied) the model is fetched again.
"""

import contextlib
import fcntl
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from common.untrusted import Refused, read_untrusted
from generate.client.model_recipes import folder_of
from generate.client.provenance import commit_of

log = logging.getLogger(__name__)
T = TypeVar("T")

FOLDER = ".generate_images"  # in the hub's cache
LOOK_S = 2.0  # between two looks at the lock; at random, so that a thousand do not look together


def load_once(model: str, revision: str | None, load: Callable[[bool], T]) -> T:
    """What load(offline) returns; offline: every file is in the cache. Any error of load."""
    if folder_of(model) is not None:
        return load(False)
    if _mark(model, revision).exists():
        try:
            return load(True)
        except OSError as error:
            log.warning("%s is not whole in the cache any more (%s); fetched again", model, error)
            with contextlib.suppress(OSError):
                _mark(model, revision).unlink()
    with _alone(model, revision) as first:
        if first:
            loaded = load(False)
            with contextlib.suppress(OSError):  # a cache of other hands: the next one locks again
                _mark(model, revision).touch()
            return loaded
    return load(True)


def is_fetched(model: str, revision: str | None) -> bool:
    """Whether every file of a model is here: a folder's, or of a commit that was fetched whole."""
    return folder_of(model) is not None or _mark(model, revision).exists()


@contextlib.contextmanager
def _alone(model: str, revision: str | None) -> Iterator[bool]:
    """Whether this process is to fetch; False: another one has, meanwhile.

    A file system without locks, or a cache that cannot be written, lets everybody fetch.
    """
    path = _folder() / f"{_name(model)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        log.info("the cache cannot be locked (%s): not only one client fetches", error)
        yield True
        return
    try:
        said = False
        while not _locked(lock):
            if not said:
                said = True
                log.info("%s fetches %s; waiting for it", _holder(path), model)
            time.sleep(LOOK_S * random.uniform(0.5, 1.5))
            if _mark(model, revision).exists():
                yield False
                return
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
        yield not _mark(model, revision).exists()
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whether the lock is ours now; where the file system knows none, it is."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.info("the cache's file system has no locks (%s): not only one client fetches", error)
    return True


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, Refused, ValueError):
        return read_untrusted(path, 200).decode() or "another client"
    return "another client"


def _mark(model: str, revision: str | None) -> Path:
    """The mark of a commit that is in the cache; of an unknown commit it never exists."""
    return _folder() / f"{_name(model)}--{commit_of(model, revision)}.whole"


def _name(model: str) -> str:
    return model.replace("/", "--")


def _folder() -> Path:
    from huggingface_hub import constants  # 0.3 s that a local folder does not need

    return Path(constants.HF_HUB_CACHE) / FOLDER
