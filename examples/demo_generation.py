"""The demo's generation: a job server and two clients, one of which is killed.

generate(demo, steps, images=10)
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from common.command_line import UserError
from common.files import CHECKOUT
from examples.demo_steps import Steps
from examples.demo_table import Demo, shown

LOOK_S = 2.5  # the server renews its status every two seconds
# short leases: the demo does not wait two minutes until those of the killed client expire
LIMITS = ["--host", "127.0.0.1", "--ttl_s", "10", "--beat_s", "2"]


def generate(demo: Demo, steps: Steps, images: int) -> None:
    """One server, two clients; one client is killed (SIGKILL) while it draws."""
    demo.outputs.mkdir(parents=True)
    command = ["generate/image_server.py", "--output_root", str(demo.outputs), *LIMITS]
    steps.say(" ".join(["\n$ python", *map(shown, command), "&"]))
    with open(demo.outputs / "image_server.out", "w") as log:
        server = subprocess.Popen([sys.executable, *command], cwd=CHECKOUT, stdout=log, stderr=log)
    try:
        while not demo.server_json.exists():
            if server.poll() is not None:
                raise UserError(f"the job server ended; its log is {shown(log.name)}")
            time.sleep(0.1)
        _run_clients(demo, steps, images)
        demo.status.write_text(_status(demo))
        steps.run("generate/image_server.py", "--status", "--output_root", demo.outputs)
    finally:
        server.terminate()
        server.wait()


def _run_clients(demo: Demo, steps: Steps, images: int) -> None:
    """Two clients to their end; once both run, one is killed."""
    processes: dict[str, int] = {}

    def heard(line: str) -> None:
        found = re.match(r"client \d+: process (\d+), log (.+)", line)
        if found and len(processes) < 2:
            processes[Path(found[2]).name] = int(found[1])
            if len(processes) == 2:
                _kill_one_in_mid_lease(demo, steps, dict(processes))

    clients = steps.start(
        "generate/generate_images.py",
        demo.shapes,
        *("--config", "examples/shapes.yaml", "--num_workers=2"),
        f"--expected_samples_per_index={images}",
        *("--max_chunk_size=4", "--batch_size=4"),
        *("--output_root", demo.outputs),
    )
    steps.wait(clients, "generate_images.py", heard)


def _kill_one_in_mid_lease(demo: Demo, steps: Steps, clients: dict[str, int]) -> None:
    """In the background: SIGKILL a client ({log: process}) in the middle of a prompt.

    It has published some of the prompt's images and not yet all. All clients stand still while the
    server is asked which of them that is.
    """

    def watch() -> None:
        while True:
            time.sleep(0.005)
            if not _half_drawn(demo):
                continue
            for pid in clients.values():
                os.kill(pid, signal.SIGSTOP)
            time.sleep(LOOK_S)
            lease = _half_drawn(demo)
            workers = json.loads(_status(demo))["workers"]["rows"]
            victims = [
                clients[row["log"]]
                for row in workers
                if row["log"] in clients and lease in row["lease"].split(", ")
            ]
            for pid in clients.values():
                os.kill(pid, signal.SIGKILL if pid in victims else signal.SIGCONT)
            if victims:
                steps.say(
                    f"\n*** demo: killed client process {victims[0]} (SIGKILL) in the middle of "
                    "its lease ***\n"
                )
                return

    threading.Thread(target=watch, daemon=True).start()


def _half_drawn(demo: Demo) -> str | None:
    """The lease under which a prompt is being drawn that has some of its images, or None."""
    for path in demo.dataset.glob("*/*.prompts"):
        samples = list(path.parent.glob(f"{path.stem}_*.json"))
        if 0 < len(samples) < len(json.loads(path.read_text())["texts"]):
            lease: str = json.loads(samples[0].read_text())["lease"]
            return lease
    return None


def _status(demo: Demo) -> str:
    """What image_server.py --status --json prints."""
    command = ["generate/image_server.py", "--status", "--json", "--output_root", demo.outputs]
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
