"""Runs the project's scripts as processes of their own, without starting Python anew for each.

    ended = forked("combine_prompts/combine.py", "x.json", "--output", "y.json")
    ended.returncode, ended.stdout, ended.stderr        # as of subprocess.run

A process that has imported all modules forks for each call. The child has its own session, folder
and streams, runs the script as `python SCRIPT WORDS…` does, and ends as an interpreter does, but
for taking all modules apart, which is six sevenths of its work. That takes a fiftieth of a start
from nothing. Its hash seed is that of the others: whether a script writes the same bytes again is
not seen here.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("common", "combine_prompts", "generate", "postprocess_dataset")
# they load torch, which no command line of these tests comes to
HEAVY = (
    "common.scores",
    "generate.pipelines.compiled_code",
    "generate.pipelines.compiling",
    "generate.pipelines.diffusers_pipeline",
)
TOOL = "common.make_known_words"  # of the developers, with packages that no script needs
LATE = ("langchain.chat_models", "langchain_ollama")  # which scripts import when they need them
HUNG = -1000


@functools.cache
def forking() -> "subprocess.Popen[str]":
    """The process that forks. It ends with this one, which holds its input open."""
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        errors="surrogateescape",
    )


def forked(
    script: str,
    *words: object,
    folder: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
    seconds: float = 120,
    before: str = "",
) -> "subprocess.CompletedProcess[str]":
    """Run a script to its end. TimeoutExpired: its process group was killed after `seconds`.

    before: Python that its process runs first.
    """
    process = forking()
    assert process.stdin and process.stdout
    with tempfile.TemporaryDirectory() as streams:
        job = {"script": script, "words": [*map(text, words)], "folder": str(folder)}
        job |= {"streams": streams, "seconds": seconds, "environment": dict(environment)}
        job["before"] = before
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        output, error = (Path(streams, name).read_text(errors="replace") for name in ("out", "err"))
    if status == HUNG:
        raise subprocess.TimeoutExpired(job["words"], seconds, output, error)
    return subprocess.CompletedProcess(job["words"], status, output, error)


def text(word: object) -> str:
    return os.fsdecode(word) if isinstance(word, bytes) else str(word)


def import_all() -> None:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not name.startswith((*HEAVY, TOOL)):
                importlib.import_module(name)
    for name in LATE:
        importlib.import_module(name)
    if "torch" in sys.modules:
        raise RuntimeError("a module loads torch: name it in HEAVY")
    gc.freeze()  # a child need not look through what it has from its parent


def become(job: dict[str, Any]) -> NoReturn:
    """This forked process runs the script, and ends with it."""
    os.setsid()
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    tempfile.tempdir = None
    for number, (name, mode) in enumerate(
        [(os.devnull, os.O_RDONLY), (f"{job['streams']}/out", 0), (f"{job['streams']}/err", 0)]
    ):
        descriptor = os.open(name, mode or os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [str(ROOT / job["script"]), *job["words"]]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    status = 0
    try:
        exec(job["before"], {})
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def status_of(child: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return HUNG


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import_all()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            become(job)
        print(status_of(child, job["seconds"]), flush=True)


if __name__ == "__main__":
    main()
