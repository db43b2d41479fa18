"""Share what torch.compile has made: one task compiles, the others load its code.

    code = CompiledCode(Path(".server"), key)
    with code.shared():         # a first batch: it is compiled here, or by the one that comes first
        ...
    code.save()                 # what was compiled since, for other sizes

key: all that the code depends on. torch looks each graph up by its own key besides: a file that
does not fit costs a compile. Loading runs what is in the file. So one is taken only if it is a
regular file of this user, in a folder of this user, and nobody else can write either; and torch's
own folder on this machine has to be as private (use_private_folder).
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from common.files import write_whole
from common.json_text import parse_json
from common.untrusted import FLAGS, Refused
from generate.image_models.one_first import one_first

FOLDER = "compiled"  # in the job server's
SUFFIX = ".artifacts"
MOST_BYTES = 256 << 20  # of a file
MOST_IN_ALL = 2 << 30  # of the folder: the oldest files go first
LONGEST_WAIT_S = 900.0  # for another task that compiles: it may hang
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OF_TORCH = "TORCHINDUCTOR_CACHE_DIR"
log = logging.getLogger(__name__)


class CompiledCode:
    """The file of one key. server_folder: the job server's; None, or none there: nothing is shared.

    Whatever cannot be read or written costs one line and a compile.
    """

    def __init__(self, server_folder: Path | None, key: Sequence[object]) -> None:
        machine = [torch.backends.cpu.get_cpu_capability(), "python", *sys.version_info[:2]]
        self.key = [str(value) for value in (*key, *machine)]
        self.path: Path | None = None
        if server_folder and server_folder.is_dir():
            name = hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:16]
            self.path = server_folder / FOLDER / f"{name}{SUFFIX}"
        self._compiled = compiled()
        # torch's artifacts of a second save hold those of the first, and loading leaves these out
        self._saved: list[bytes] = []

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """What is compiled within comes from the file, or goes into it."""
        path = self.path
        try:
            if path:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if problem := problem_with(path.parent.stat()):
                    raise Refused(f"the folder {problem}", path.parent)
        except OSError as error:
            log.warning("compiled code is not shared: %s", error)
            self.path = path = None
        if path is None:
            yield
            return
        lock = path.with_suffix(".lock")
        with one_first(
            lock, lambda: os.path.exists(path), "compiles for such a card", LONGEST_WAIT_S
        ):
            self._load(path)
            yield
            self.save()

    def _load(self, path: Path) -> None:
        try:
            saved = self._read(path)
            if any(torch.compiler.load_cache_artifacts(each) is None for each in saved):
                raise Refused("torch does not take it", path)
        except FileNotFoundError:
            return
        except Refused as error:
            log.warning("%s is not loaded, %s: compiled here", path, error.strerror)
            with contextlib.suppress(OSError):  # the next file takes its place all the same
                os.replace(path, path.with_suffix(".refused"))
        except OSError as error:
            log.warning("%s; compiled here", error)
        else:
            log.info("compiled code is loaded: %.1f MB of %s", sum(map(len, saved)) / 1e6, path)

    def _read(self, path: Path) -> list[bytes]:
        """The artifacts. Refused: the file is not for this process, or somebody else's."""
        try:
            file = os.open(path, FLAGS | os.O_NOFOLLOW)
        except OSError as error:
            raise Refused("it is a link", path) if error.errno == errno.ELOOP else error from None
        with os.fdopen(file, "rb") as stream:
            if problem := problem_with(os.fstat(file)):
                raise Refused(f"it {problem}", path)
            content = stream.read(MOST_BYTES + 1)
        head, _, rest = content.partition(b"\n")
        try:
            sizes = parse_json(head)["sizes"]
            saved = [rest[sum(sizes[:n]) : sum(sizes[: n + 1])] for n in range(len(sizes))]
        except (ValueError, KeyError, TypeError):
            saved = []
        if len(content) > MOST_BYTES or content != self._file(saved):
            raise Refused("it is torn, or of another key", path)
        return saved

    def _file(self, saved: list[bytes]) -> bytes:
        """A line that says what follows, and the artifacts of each save."""
        rest = b"".join(saved)
        head = {"key": self.key, "sizes": list(map(len, saved))}
        head["sha256"] = hashlib.sha256(rest).hexdigest()
        return json.dumps(head).encode() + b"\n" + rest

    def save(self) -> None:
        """Publish what this process has compiled or taken from the file, if it has compiled any.

        Without artifacts, where nothing could be compiled, the file says that nobody has to wait.
        """
        path = self.path
        if path is None or (compiled() == self._compiled and os.path.exists(path)):
            return
        self._compiled = compiled()
        if made := torch.compiler.save_cache_artifacts():
            self._saved.append(made[0])
        content = self._file(self._saved)
        if len(content) > MOST_BYTES:
            content = self._file([])
        try:
            write_whole(path, content, 0o600)
            _make_room(path)
        except OSError as error:
            log.warning("compiled code is not kept for others: %s", error)
        else:
            log.info("compiled code is kept for others: %.1f MB in %s", len(content) / 1e6, path)


def compiled() -> int:
    """Graphs for which this process has generated code."""
    return int(counters["inductor"]["fxgraph_cache_miss"])


def problem_with(opened: os.stat_result) -> str | None:
    """None, or why others can have written a file or folder, or put a pipe in its place."""
    if not stat.S_ISREG(opened.st_mode) and not stat.S_ISDIR(opened.st_mode):
        return "is no regular file"
    if opened.st_uid != os.geteuid():
        return "is of another user"
    return "can be written by others" if opened.st_mode & OTHERS_WRITE else None


def _make_room(kept: Path) -> None:
    """Remove the oldest files of the folder until it is within its bound."""
    found = []
    for path in kept.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            state = path.lstat()
            if path != kept and path.suffix != ".lock":
                found.append((state.st_mtime, state.st_size, path))
    left = MOST_IN_ALL - kept.stat().st_size
    for _, size, path in sorted(found, reverse=True):
        left -= size
        if left < 0:
            path.unlink(missing_ok=True)


def use_private_folder() -> None:
    """Let torch keep code where only this user can write, unless the environment names a place.

    Its own, /tmp/torchinductor_USER, which it notes in the environment when it is imported, may
    have been made by anybody, and it runs what is there.
    """
    torch._inductor.config.cpp_cache_precompile_headers = False  # they always go there
    if os.environ.get(OF_TORCH, default_cache_dir()) != default_cache_dir():
        return
    folder = os.path.join(tempfile.gettempdir(), f"generate_images_compiled_{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    state = os.lstat(folder)
    if stat.S_ISREG(state.st_mode) or problem_with(state):
        folder = tempfile.mkdtemp(prefix="generate_images_compiled_")
    os.environ[OF_TORCH] = folder
