"""The whole flow on one machine, on embedded models: `make demo`, or

    .venv/bin/python examples/run_demo.py            everything, into demo/ (emptied first)
    .venv/bin/python examples/run_demo.py --table    only the last table: counts again

Prompts are cleaned and combined, a job server leases them, two clients ask a small LLM for
variations and draw them with a tiny Stable Diffusion 3, one client is killed on the way, then
parquet, then WebDataset tars. Every figure of the last table is counted by a reader of its own;
where two that must be equal are not, the demo fails.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command_line import UserError, run_script
from common.files import CHECKOUT
from examples.demo_table import SOURCES, Demo, print_table, shown

# What the tiny model was trained on.
GRAMMAR = re.compile(
    r"^(an? |two |three |four ).*\b(circle|square|triangle)s?\b.* on an? \w+ background$"
)


def main() -> int:
    args = options()
    demo = Demo(args.folder.resolve())
    if args.table and not demo.status.exists():
        raise UserError(f"no finished run lies in {shown(demo.folder)}; leave out --table")
    if not args.table:
        shutil.rmtree(demo.folder, ignore_errors=True)
        make_prompts(demo, args.prompts)
        generate(demo, args.images)
        convert(demo)
    if not print_table(demo):
        raise UserError("the figures above do not agree: something was lost or is there twice")
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", action="store_true", help="only count again what lies in the demo's folder"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=CHECKOUT / "demo",
        help="the demo's folder (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts", type=int, default=10, help="prompts to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=10,
        help="images of each prompt, the original's included (default: %(default)s)",
    )
    return parser.parse_args()


def run(*command: object) -> None:
    """Show a command as the user would type it, and run it."""
    say(*command)
    ended = subprocess.run([sys.executable, *map(str, command)], cwd=CHECKOUT)
    if ended.returncode:
        raise UserError(
            f"{command[0]} ended with exit status {ended.returncode}; what it said is above"
        )


def say(*command: object) -> None:
    print("\n$ python", *map(shown, command), flush=True)


def make_prompts(demo: Demo, count: int) -> None:
    """From the five sources to the prompts of the demo: those that the tiny model can draw."""
    for source in SOURCES:
        run(
            f"combine_prompts/process_{source.lower()}.py",
            "--input",
            f"examples/{source.lower()}",
            "--output",
            demo.prompts / f"{source}.json",
        )
    run(
        "combine_prompts/combine.py",
        *[demo.prompts / f"{source}.json" for source in SOURCES[:4]],
        "--exclude",
        demo.prompts / "gecko.json",
        "--output",
        demo.prompts / "combined.json",
    )
    combined = json.loads((demo.prompts / "combined.json").read_text())
    shapes = [item for item in combined if GRAMMAR.match(item["prompt"])][:count]
    demo.shapes.write_text(json.dumps(shapes, indent=1))
    print(
        "\nThe tiny model draws circles, squares and triangles; anything else becomes a blob. "
        f"{len(shapes)} of the {len(combined)} prompts are of its grammar:"
    )
    print("\n".join(f"  {item['prompt']}" for item in shapes))


def generate(demo: Demo, images: int) -> None:
    """One server, two clients; one client is killed (SIGKILL) while it draws."""
    demo.outputs.mkdir(parents=True)
    # short leases, so that a demo need not wait two minutes for those of the dead
    limits = ["--host", "127.0.0.1", "--ttl_s", "20", "--beat_s", "4"]
    command = ["generate/image_server.py", "--output_root", str(demo.outputs), *limits]
    say(*command, "&")
    with open(demo.outputs / "image_server.out", "w") as log:
        server = subprocess.Popen([sys.executable, *command], cwd=CHECKOUT, stdout=log, stderr=log)
    try:
        while not demo.server_json.exists() and server.poll() is None:
            time.sleep(0.1)
        run_clients(demo, images)
        demo.status.write_text(status(demo, "--json"))
        run("generate/image_server.py", "--status", "--output_root", demo.outputs)
    finally:
        server.terminate()
        server.wait()


def run_clients(demo: Demo, images: int) -> None:
    """Two clients to their end; once both run, one is killed."""
    command = ["generate/generate_images.py", str(demo.shapes)]
    command += ["--model", "tiny", "--llm", "embedded", "--num_workers=2"]
    command += [f"--expected_samples_per_index={images}", "--max_chunk_size=4", "--batch_size=4"]
    command += ["--output_root", str(demo.outputs)]
    say(*command)
    clients = subprocess.Popen(
        [sys.executable, *command], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    processes: dict[str, int] = {}
    for line in clients.stdout or ():
        print(line, end="", flush=True)
        found = re.match(r"client \d+: process (\d+), log (.+)", line)
        if found and len(processes) < 2:
            processes[Path(found[2]).name] = int(found[1])
            if len(processes) == 2:
                kill_one_in_mid_lease(demo, dict(processes))
    if clients.wait():
        raise UserError(f"generate_images.py ended with exit status {clients.returncode}")


def kill_one_in_mid_lease(demo: Demo, clients: dict[str, int]) -> None:
    """In the background: SIGKILL a client ({log: process}) in the middle of a prompt.

    It has published some of the prompt's images and not yet all. All clients stand still while the
    server is asked which of them that is.
    """

    def watch() -> None:
        while True:
            time.sleep(0.005)
            if not half_drawn(demo):
                continue
            for pid in clients.values():
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.5)  # the server renews its status every two seconds
            lease = half_drawn(demo)
            workers = json.loads(status(demo, "--json"))["workers"]["rows"]
            victims = [
                clients[row["log"]]
                for row in workers
                if row["log"] in clients and lease in row["lease"].split(", ")
            ]
            for pid in clients.values():
                os.kill(pid, signal.SIGKILL if pid in victims else signal.SIGCONT)
            if victims:
                print(
                    f"\n*** demo: killed client process {victims[0]} (SIGKILL) in the middle of "
                    "its lease ***\n",
                    flush=True,
                )
                return

    threading.Thread(target=watch, daemon=True).start()


def half_drawn(demo: Demo) -> str | None:
    """The lease under which a prompt is being drawn that has some of its images, or None."""
    for path in demo.dataset.glob("*/*.prompts"):
        samples = list(path.parent.glob(f"{path.stem}_*.json"))
        if 0 < len(samples) < len(json.loads(path.read_text())["texts"]):
            lease: str = json.loads(samples[0].read_text())["lease"]
            return lease
    return None


def status(demo: Demo, *words: str) -> str:
    """What image_server.py --status prints."""
    command = ["generate/image_server.py", "--status", *words, "--output_root", str(demo.outputs)]
    return subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout


def convert(demo: Demo) -> None:
    """To a parquet table, and to WebDataset tars."""
    run("postprocess_dataset/convert_json_to_parquet.py", demo.dataset, demo.table)
    run(
        "postprocess_dataset/convert_parquet_to_wds.py",
        "--parquet_file",
        demo.table,
        "--base_dir",
        demo.dataset,
        "--output_dir",
        demo.tars,
        "--num_workers=2",
        "--shard_size_mb",
        "1",
    )


if __name__ == "__main__":
    run_script(main)
