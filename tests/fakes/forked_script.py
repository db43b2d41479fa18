"""Runs the project's scripts as processes of their own, without starting Python anew for each.

    with ForkedScripts() as scripts:
        status, output, error = scripts.run("combine_prompts/combine.py", ["x.json"], folder, 20)

A process that has imported all modules forks for each call. The child has its own session, folder
and streams, runs the script as `python SCRIPT WORDS…` does, and ends as an interpreter does, but
for taking all modules apart, which is six sevenths of its work. That takes a fiftieth of a start
from nothing.
"""

import atexit
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
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("common", "combine_prompts", "generate", "postprocess_dataset")
# They load torch, which no command line of these tests comes to. The end of a child that has it
# takes 1.2 s of a core, of one that has not a tenth of that.
HEAVY = (
    "common.scores",
    "generate.pipelines.compiled_code",
    "generate.pipelines.compiling",
    "generate.pipelines.diffusers_pipeline",
)
HUNG = -1000


class ForkedScripts:
    """The process that forks, and where its children write."""

    def __init__(self) -> None:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            errors="surrogateescape",
        )

    def __enter__(self) -> "ForkedScripts":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)

    def run(
        self, script: str, words: list[str], folder: Path, seconds: float
    ) -> tuple[int, bytes, bytes]:
        """(status or minus its signal, stdout, stderr); HUNG: it did not end within `seconds`.

        Then its process group is killed.
        """
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as streams:
            job = {"script": script, "words": words, "folder": str(folder)}
            job |= {"streams": streams, "seconds": seconds}
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            status = int(self.process.stdout.readline())
            output, error = (Path(streams, name).read_bytes() for name in ("out", "err"))
        return status, output, error


def import_all() -> None:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not name.startswith(HEAVY):
                importlib.import_module(name)
    if "torch" in sys.modules:
        raise RuntimeError("a module loads torch: name it in HEAVY")
    gc.freeze()  # a child need not look through what it has from its parent


def become(job: dict[str, Any]) -> NoReturn:
    """This forked process runs the script, and ends with it."""
    os.setsid()
    os.chdir(job["folder"])
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
