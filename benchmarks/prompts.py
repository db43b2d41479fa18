"""Time and memory of a run's start with very many prompts.

    python benchmarks/prompts.py                        # 20,000,000 prompts: half an hour, 5 GB
    python benchmarks/prompts.py --quick                # 200,000

A `.jsonl` file is made; a first process makes the map of it, as a submission does; a fresh process
opens the map and reads 1,000 prompts; then the real server and a real client (a pipeline without
torch) generate one lease. Resident memory is the kernel's; the map's pages are shared by all
processes of a node.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost import Cost
from benchmarks.made_samples import WORDS
from common.command_line import Options
from tests.fakes.running_client import ENVIRONMENT, PIPELINE, ROOT
from tests.fakes.running_server import RunningServer

OPENING = """
import random, resource, sys, time
from pathlib import Path
began = time.monotonic()
from generate.dataset.mapped_prompts import open_prompts, prompts_sha256
items = open_prompts(sys.argv[1], Path(sys.argv[2]))
digest = prompts_sha256(items)
took = time.monotonic() - began
chance = random.Random(1)
for _ in range(1000):
    items[chance.randrange(len(items))]
read = (time.monotonic() - began - took) * 1000
memory = open("/proc/self/status").read()
lines = [line.split() for line in memory.splitlines() if line.startswith("Rss")]
kb = {name[:-1]: int(size) for name, size, _ in lines}
print(f"{took:.2f} s, {read:.0f} us a prompt, {sum(kb.values()) / 1024:.0f} MB "
      f"({kb['RssAnon'] / 1024:.0f} MB its own)")
"""


def make_file(path, count):
    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=12)) for _ in range(5000)]
    with open(path, "w") as file:
        for n in range(count):
            prompt = f"{texts[n % 4999]}, no. {n}"
            file.write(json.dumps({"prompt": prompt, "source": ["made"]}) + "\n")


def opening(path, root):
    cost = Cost([sys.executable, "-c", OPENING, path, root / ".server/prompts"])
    return f"{cost.output.strip()}; {cost.wall:.1f} s in all, peak {cost.peak:.0f} MB"


def main():
    parser = Options(__doc__)
    parser.flag("--quick", "200,000 prompts")
    parser.add_argument("--prompts", type=int, default=20_000_000)
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    args = parser.parse_args()
    count = 200_000 if args.quick else args.prompts
    os.environ["PYTHONPATH"] = str(ROOT)
    where = Path(tempfile.mkdtemp(prefix="prompts-", dir=args.folder))
    try:
        path, root = where / "many.jsonl", where / "out"
        root.mkdir()
        make_file(path, count)
        print(f"{count:,} prompts, {path.stat().st_size / 1e9:.2f} GB")
        print(f"made:   {opening(path, root)}", flush=True)
        print(f"opened: {opening(path, root)}", flush=True)
        server = RunningServer(root, ttl_s=600, beat_s=5)
        command = [
            sys.executable,
            ROOT / "generate/generate_images.py",
            path,
            "--output_root",
            root,
        ]
        command += ["--pipeline", PIPELINE, "--resolution", 32, "--batch_size", 2]
        command += ["--expected_samples_per_index", 1, "--augment_prompts", "False"]
        command += ["--chunk_size", 2, "--max_leases", 1, "--is_slurm_task"]
        began = time.monotonic()
        client = Cost(["env", "-i", *(f"{k}={v}" for k, v in ENVIRONMENT.items()), *command])
        print(f"client: {time.monotonic() - began:.1f} s for a lease, peak {client.peak:.0f} MB")
        memory = Path(f"/proc/{server.process.pid}/status").read_text()
        print(f"server: {int(memory.split('VmHWM:')[1].split()[0]) / 1024:.0f} MB at most")
        images = len(list(root.glob("generated_images/many/*/*.jpg")))
        server.stop()
        if images != 2:
            raise SystemExit(f"{images} images instead of 2: {client.output[-2000:]}")
    except subprocess.SubprocessError as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
