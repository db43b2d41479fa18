"""The command line's one handler of errors, crash-safe files, and text made harmless."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import __version__, console, files
from common.untrusted import Refused
from common.version import version

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys
sys.argv[0] = "/some/where/draw_things.py"
sys.path.insert(0, {root!r})
from common.command_line import UserError, run_script
def main():
    {body}
run_script(main)
"""


def script(body: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """A script whose main() is `body`, as a real process."""
    code = SCRIPT.format(root=str(ROOT), body=body)
    return subprocess.run(
        [sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, timeout=60, **kwargs
    )


@pytest.mark.parametrize(
    "body, status, says",
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        (
            "raise UserError('p.json: no such file; name one')",
            1,
            "draw_things: p.json: no such file; name one",
        ),
        ("raise KeyboardInterrupt", 130, "draw_things: interrupted"),
        ("raise MemoryError", 1, "draw_things: not enough memory"),
        ("main()", 1, "draw_things: the input is nested too deep to be read"),
    ],
)
def test_an_expected_error_is_one_line_and_a_status(body: str, status: int, says: str) -> None:
    ended = script(body, stdout=subprocess.DEVNULL)
    assert (ended.returncode, ended.stderr.strip()) == (status, says)


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'draw_things.py'\n"
    code += "import common.command_line, os, signal, time\nos.kill(os.getpid(), signal.SIGINT)"
    ended = subprocess.run([sys.executable, "-c", code + "\ntime.sleep(60)"], capture_output=True)
    assert ended.stderr == b"draw_things: interrupted\n" and ended.returncode in (-2, 130)


FOLDERS = ("combine_prompts", "generate", "postprocess_dataset", "examples")
SCRIPTS = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\n    run_script(main)\n" in path.read_text()
]
FIRST_IMPORT = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ("common", "sitecustomize", "usercustomize"):
            sys.meta_path.remove(self)
            os.kill(os.getpid(), 2)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_ctrl_c_at_the_first_import_is_one_line(tmp_path: Path, path: Path) -> None:
    """The first that is no module of `common`: what Python has loaded itself is not searched."""
    (tmp_path / "sitecustomize.py").write_text(FIRST_IMPORT)
    ended = subprocess.run(
        [sys.executable, path, "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.stderr == f"{path.stem}: interrupted\n" and ended.returncode in (-2, 130)


def test_every_script_is_tried() -> None:
    assert len(SCRIPTS) == 21


def test_an_unexpected_error_keeps_its_traceback() -> None:
    ended = script("{}['x']", stdout=subprocess.DEVNULL)
    assert ended.returncode == 1
    assert "KeyError" in ended.stderr


@pytest.mark.parametrize("asked", [[], ["-W", "default"]])
def test_a_librarys_warnings_are_shown_to_who_asks_for_them(asked: list[str]) -> None:
    body = "import warnings; from common.command_line import run_script; "
    body += "run_script(lambda: warnings.warn('malformed'))"
    command = [sys.executable, *asked, "-c", body]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 0 and ("malformed" in ended.stderr) == bool(asked)


def test_a_closed_output_is_one_line() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = script("print('x' * 100_000)", stdout=write)
    os.close(write)
    assert ended.returncode == 141
    assert ended.stderr == "draw_things: standard output was closed before the end\n"


@pytest.mark.parametrize("unbuffered, what", [("", ""), ("1", " or a file")])
def test_a_full_output_is_no_traceback_at_exit(unbuffered: str, what: str) -> None:
    with open("/dev/full", "w") as full:
        env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        ended = script("sys.stdout.write('x')", stdout=full, env=env)
    assert ended.returncode == 1
    assert ended.stderr == f"draw_things: standard output{what}: No space left on device\n"


@pytest.mark.parametrize(
    "write",
    [
        "from common.files import write_whole; write_whole(path, 'x' * 5000)",
        "from common.files import written_whole\n"
        "    with written_whole(path) as file: file.write(b'x' * 5000)",
        "from postprocess_dataset.publish import Draft\n"
        "    with Draft(path) as draft: draft.file.write(b'x' * 5000); draft.publish()",
    ],
)
def test_a_write_that_fails_names_its_file(tmp_path: Path, write: str) -> None:
    """Not standard output, which is fine; and the file before it stays."""
    path = tmp_path / "result"
    path.write_text("before")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    ended = script(f"{limit}\n    path = {str(path)!r}\n    {write}", stdout=subprocess.DEVNULL)
    assert ended.stderr == f"draw_things: {path}: File too large\n"
    assert ended.returncode == 1 and path.read_text() == "before"
    assert os.listdir(tmp_path) == ["result"]


def test_a_closed_error_output_changes_no_status() -> None:
    code = SCRIPT.format(root=str(ROOT), body="raise UserError('x')")
    command = [sys.executable, "-c", code]
    ended = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], capture_output=True)
    assert (ended.returncode, ended.stdout) == (1, b"")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_leads_nowhere(tmp_path: Path, number: int) -> None:
    """No file gets its number: what is printed would be in it."""
    path = tmp_path / "data"
    body = (
        "import os; print(sys.stdout.isatty(), sys.stderr.isatty(), sys.stdin.read());"
        f"file = open({str(path)!r}, 'w'); os.write({number or 1}, b'noise'); file.write('data')"
    )
    command = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), body=body)]
    shell = ["sh", "-c", f'exec "$@" {number}{"<" if number == 0 else ">"}&-', "sh", *command]
    ended = subprocess.run(shell, capture_output=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == (1 if number == 1 else 0), ended.stderr
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    "body, status, says",
    [
        ("print('3 of 6 done')", 1, b"standard output is closed, so that what was printed is lost"),
        ("print(); return 3", 3, b"standard output is closed, so that what was printed is lost"),
        ("return 0", 0, b""),
    ],
)
def test_what_a_closed_output_loses_is_said(body: str, status: int, says: bytes) -> None:
    """As with a full one; a script that has printed nothing has lost nothing."""
    command = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), body=body)]
    ended = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True)
    assert ended.returncode == status
    assert ended.stderr.removeprefix(b"draw_things: ").strip() == says


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_gets_is_an_error(option: str, where: str) -> None:
    """Longer than what is kept in memory, or shorter."""
    for lines in (1, 5000):
        body = f"from common.command_line import Options; Options('help\\n' * {lines}).parse_args()"
        command = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), body=body), option]
        shell = f'exec "$@" {where}'
        ended = subprocess.run(["sh", "-c", shell, "sh", *command], capture_output=True, text=True)
        assert ended.returncode == 1 and ended.stderr.startswith("draw_things: standard output")
        assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_output_cannot_show_is_escaped(encoding: str) -> None:
    ended = script(
        "print('not checked: … 😀', chr(0xdcff))",
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert ended.stderr == ""
    assert (ended.returncode, ended.stdout) == (
        0,
        "not checked: \\u2026 \\U0001f600 \\udcff\n",
    )


def test_a_whole_file_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    files.write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"], "no temporary file is left"


def test_a_log_is_a_plain_file(tmp_path: Path) -> None:
    for line in (b"a", b"b"):
        with files.open_log(tmp_path / "log") as log:
            assert log.tell() == (tmp_path / "log").stat().st_size
            log.write(line)
    assert (tmp_path / "log").read_bytes() == b"ab"
    (tmp_path / "link").symlink_to("log")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "read pipe")
    reader = os.open(tmp_path / "read pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "dangling", "pipe", "read pipe", "/dev/null"):
        with pytest.raises(Refused, match="nothing is written there"):
            files.open_log(tmp_path / name)
    os.close(reader)
    assert not (tmp_path / "nowhere").exists()


def test_it_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    here = threading.get_ident()  # other tests' servers may write in threads of their own

    def noting(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            if threading.get_ident() == here:
                did.append(name)
            real(*args)

        return call

    for name in ("fsync", "replace", "link"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    files.write_whole(tmp_path / "a", "x")
    assert did == ["fsync", "replace", "fsync"]
    did.clear()
    assert files.create_whole(tmp_path / "b", "x")
    assert did == ["fsync", "link", "fsync"]


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    assert files.create_whole(tmp_path / "run.json", "first", mode=0o600)
    assert not files.create_whole(tmp_path / "run.json", "second")
    assert (tmp_path / "run.json").read_text() == "first"
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["run.json"]


def test_the_file_system_of_a_path(tmp_path: Path) -> None:
    kind, point = files.file_system_of("/proc/self")
    assert (kind, point) == ("proc", "/proc")
    assert files.file_system_of(tmp_path)[1] in {str(p) for p in (tmp_path, *tmp_path.parents)}


@given(st.text())
def test_foreign_text_cannot_steer_a_terminal(text: str) -> None:
    shown = console.visible(text)
    assert shown.isprintable()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown)


def test_foreign_text_stays_readable() -> None:
    assert console.visible("Stålenhag, 北斎 🦊") == "Stålenhag, 北斎 🦊"
    assert console.visible("\x1b[31mred\n\u202e") == "\\x1b[31mred\\x0a\\u202e"
    assert len(console.visible("x" * 10_000)) == 2001


def test_a_log_line_shows_foreign_names_as_they_are_and_stays_one_line() -> None:
    code = r"""
from common.console import start_log
log = start_log("x")
log.warning("folder %s", "e\x1b[31m\nERROR all is lost \u202e\udcff")
try:
    raise ValueError("\x1b[31m")
except ValueError:
    log.exception("failed")
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    first, second, *rest = ran.stdout.splitlines()
    assert first.endswith("WARNING folder e\\x1b[31m\\x0aERROR all is lost \\u202e\\udcff")
    assert second.endswith("ERROR failed") and rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: \\x1b[31m" and not ran.stderr


def test_the_version_names_the_commit() -> None:
    assert re.fullmatch(re.escape(__version__) + r"(\+[0-9a-f]{12}(\.dirty)?)?", version())
