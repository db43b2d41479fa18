"""The whole flow on one machine, on embedded models: `make demo`, or

    .venv/bin/python examples/run_demo.py            everything, into demo/ (what an earlier demo left there is removed)
    .venv/bin/python examples/run_demo.py --table    only the last table: counts again what lies in demo/

Prompts are cleaned and combined, a job server leases them, two clients ask a small LLM for variations and draw them with a tiny
Stable Diffusion 3, one client is killed on the way, then parquet, then WebDataset tars. Every figure of the last table is counted by a
reader of its own; where two that must be equal are not, the demo fails.
"""

import argparse
import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument(
    "--table", action="store_true", help="only count again what lies in the demo's folder"
)
parser.add_argument(
    "--folder", type=Path, default=ROOT / "demo", help="the demo's folder (default: %(default)s)"
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
args = parser.parse_args()

DEMO = args.folder.resolve()
PROMPTS, OUTPUTS, TARS, TABLE = (
    DEMO / "prompts",
    DEMO / "outputs",
    DEMO / "tars",
    DEMO / "shapes.parquet",
)
DATASET = OUTPUTS / "generated_images" / "shapes"
SOURCES = ("image_reward", "sac", "pickscore", "HPDv2", "gecko")
GRAMMAR = re.compile(
    r"^(an? |two |three |four ).*\b(circle|square|triangle)s?\b.* on an? \w+ background$"
)  # what the tiny model was trained on


def main():
    if args.table and not (DEMO / "status.json").exists():
        sys.exit(f"run_demo: no finished run lies in {shown(DEMO)}; leave out --table")
    if not args.table:
        shutil.rmtree(DEMO, ignore_errors=True)
        make_prompts()
        generate()
        convert()
    sys.exit(
        0
        if print_table()
        else "run_demo: the figures above do not agree: something was lost or is there twice"
    )


def run(*command, **kwargs):
    """Show a command as the user would type it, and run it."""
    say(*command)
    ended = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, **kwargs)
    if ended.returncode:
        sys.exit(
            f"run_demo: {command[0]} ended with exit status {ended.returncode}; what it said is above"
        )


def say(*command):
    print("\n$ python", *map(shown, command), flush=True)


def shown(path):
    return str(path).replace(f"{ROOT}/", "")


# ----------------------------------------------------------------------------- prompts


def make_prompts():
    for source in SOURCES:
        run(
            f"combine_prompts/process_{source.lower()}.py",
            "--input",
            f"examples/{source.lower()}",
            "--output",
            PROMPTS / f"{source}.json",
        )
    run(
        "combine_prompts/combine.py",
        *[PROMPTS / f"{source}.json" for source in SOURCES[:4]],
        "--exclude",
        PROMPTS / "gecko.json",
        "--output",
        PROMPTS / "combined.json",
    )
    combined = json.loads((PROMPTS / "combined.json").read_text())
    shapes = [item for item in combined if GRAMMAR.match(item["prompt"])][: args.prompts]
    (PROMPTS / "shapes.json").write_text(json.dumps(shapes, indent=1))
    print(
        f"\nThe tiny model draws circles, squares and triangles; anything else becomes a blob. {len(shapes)} of the {len(combined)} prompts are of its grammar:"
    )
    print("\n".join(f"  {item['prompt']}" for item in shapes))


# ----------------------------------------------------------------------------- images


def generate():
    """One server, two clients; one client is killed (SIGKILL) while it draws."""
    (OUTPUTS).mkdir(parents=True)
    # short leases, so that a demo need not wait two minutes for those of the dead
    server = [
        "generate/image_server.py",
        "--output_root",
        OUTPUTS,
        "--host",
        "127.0.0.1",
        "--ttl_s",
        20,
        "--beat_s",
        4,
    ]
    say(*server, "&")
    with open(OUTPUTS / "image_server.out", "w") as log:
        server = subprocess.Popen(
            [sys.executable, *map(str, server)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        while not (OUTPUTS / ".server" / "server.json").exists() and server.poll() is None:
            time.sleep(0.1)
        client = [
            "generate/generate_images.py",
            PROMPTS / "shapes.json",
            "--model",
            "tiny",
            "--llm",
            "embedded",
            "--num_workers=2",
            f"--expected_samples_per_index={args.images}",
            "--max_chunk_size=4",
            "--batch_size=4",
            "--output_root",
            OUTPUTS,
        ]
        say(*client)
        clients = subprocess.Popen(
            [sys.executable, *map(str, client)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        processes = {}
        for line in clients.stdout:
            print(line, end="", flush=True)
            if len(processes) < 2 and (
                found := re.match(r"client \d+: process (\d+), log (.+)", line)
            ):
                processes[Path(found[2]).name] = int(found[1])
                if len(processes) == 2:
                    kill_one_in_mid_lease(dict(processes))
        if clients.wait():
            sys.exit(f"run_demo: generate_images.py ended with exit status {clients.returncode}")
        (DEMO / "status.json").write_text(status("--json"))
        run("generate/image_server.py", "--status", "--output_root", OUTPUTS)
    finally:
        server.terminate()
        server.wait()


def kill_one_in_mid_lease(clients):
    """In the background: SIGKILL a client ({log: process}) that has published some images of a prompt and not yet all. All clients stand
    still while the server is asked which of them that is."""

    def watch():
        while True:
            time.sleep(0.005)
            if not half_drawn():
                continue
            for pid in clients.values():
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.5)  # the server renews its status every two seconds
            lease = half_drawn()
            workers = json.loads(status("--json"))["workers"]["rows"]
            victims = [
                clients[row["log"]]
                for row in workers
                if row["log"] in clients and lease in row["lease"].split(", ")
            ]
            for pid in clients.values():
                os.kill(pid, signal.SIGKILL if pid in victims else signal.SIGCONT)
            if victims:
                print(
                    f"\n*** demo: killed client process {victims[0]} (SIGKILL) in the middle of its lease ***\n",
                    flush=True,
                )
                return

    threading.Thread(target=watch, daemon=True).start()


def half_drawn():
    """The lease under which a prompt is being drawn that has some of its images, or None."""
    for path in DATASET.glob("*/*.prompts"):
        samples = list(path.parent.glob(f"{path.stem}_*.json"))
        if 0 < len(samples) < len(json.loads(path.read_text())["texts"]):
            return json.loads(samples[0].read_text())["lease"]


def status(*words):
    return subprocess.run(
        [sys.executable, "generate/image_server.py", "--status", *words, "--output_root", OUTPUTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


# ----------------------------------------------------------------------------- parquet, tars


def convert():
    run("postprocess_dataset/convert_json_to_parquet.py", DATASET, TABLE)
    run(
        "postprocess_dataset/convert_parquet_to_wds.py",
        "--parquet_file",
        TABLE,
        "--base_dir",
        DATASET,
        "--output_dir",
        TARS,
        "--num_workers=2",
        "--shard_size_mb",
        "1",
    )


# ----------------------------------------------------------------------------- the proof


def print_table():
    """Print what lies in demo/, each figure counted by its own reader. Returns whether those that must be equal are."""
    rows = [
        (
            f"prompts read / kept: {source}",
            f"{rows_of(source):,} / {len(json.loads((PROMPTS / f'{source}.json').read_text())):,}",
        )
        for source in SOURCES
    ]

    asked = {path.stem: json.loads(path.read_text()) for path in DATASET.glob("*/*.prompts")}
    expected = sum(len(record["texts"]) for record in asked.values())
    short = [record for record in asked.values() if record["short"]]
    found = {
        "JSON files": int(
            subprocess.run(
                f"find '{DATASET}' -type f -name '*.json' | wc -l",
                shell=True,
                capture_output=True,
                text=True,
            ).stdout
        ),
        "JPEGs that open": sum(map(opens, DATASET.glob("*/*.jpg"))),
        "parquet rows": parquet_rows(),
        "tar samples, by webdataset": len(webdataset_samples := read_webdataset()),
        "tar samples, by datasets": len(datasets_samples := read_datasets()),
    }
    samples = [json.loads(path.read_text()) for path in DATASET.glob("*/*.json")]
    times = sorted(sample["generation_timestamp"] for sample in samples)
    seconds = (parse_time(times[-1]) - parse_time(times[0])).total_seconds() if samples else 0
    document = json.loads((DEMO / "status.json").read_text())
    given_back = document["datasets"][0]["given_back"].get(
        "expired", 0
    )  # unheard: a client that leaves in order says why
    llm = document["llm"]

    rows += [
        ("prompts to draw", f"{len(json.loads((PROMPTS / 'shapes.json').read_text())):,}"),
        ("images expected", f"{expected:,}"),
        (
            "  of these short indices (the LLM gave fewer)",
            f"{len(short)}, {sum(r['short']['missing'] for r in short)} images fewer than asked",
        ),
    ]
    rows += [
        (name, f"{number:,}" + ("" if number == expected else "   <-- differs"))
        for name, number in found.items()
    ]
    rows += [
        ("indices given back by the killed client", f"{given_back:,}"),
        (
            "LLM calls / tokens",
            f"{llm['calls']:,} / {llm['prompt_tokens'] + llm['completion_tokens']:,}",
        ),
        ("images a second, LLM included", f"{len(samples) / seconds if seconds else 0:.2f}"),
    ]
    print("\n" + "\n".join(f"{name:46} {value}" for name, value in rows))
    print(f"""
One sample as webdataset reads it: {webdataset_samples[0] if webdataset_samples else "-"}
One sample as datasets reads it:   {datasets_samples[0] if datasets_samples else "-"}
Look at the images in {shown(DATASET)}, the table in {shown(TABLE)}, the tars in {shown(TARS)}.
The tiny model knows circles, squares and triangles; variations that leave its grammar give blobs.""")
    return (
        bool(samples)
        and len(asked) == len(json.loads((PROMPTS / "shapes.json").read_text()))
        and all(n == expected for n in found.values())
        and given_back > 0
    )


def rows_of(source):
    """Prompts in the source's own files, read with no code of combine_prompts."""
    folder = ROOT / "examples" / source.lower()
    if source in ("image_reward", "pickscore"):
        import pyarrow.parquet

        return sum(
            pyarrow.parquet.ParquetFile(path).metadata.num_rows
            for path in folder.glob("**/*.parquet")
        )
    if source == "sac":
        return (
            sqlite3.connect(next(folder.glob("*.sqlite")))
            .execute("SELECT count(*) FROM generations")
            .fetchone()[0]
        )
    if source == "HPDv2":
        return sum(
            len(json.loads(path.read_text()))
            for path in folder.glob("**/*.json")
            if path.stem != "drawbench"
        )
    return len(list(csv.DictReader(open(folder / "prompts.csv", newline="", encoding="utf-8"))))


def opens(path):
    from PIL import Image

    try:
        Image.open(path).load()
        return True
    except OSError as error:
        print(f"{path}: {error}")
        return False


def parquet_rows():
    import pyarrow.parquet

    return pyarrow.parquet.read_table(TABLE, columns=["__key__"]).num_rows


def read_webdataset():
    import webdataset

    shards = sorted(str(path) for path in TARS.glob("*.tar"))
    return [
        f"{sample['__key__']}: {sample['txt'].decode()}, {len(sample['jpg']):,} bytes of JPEG"
        for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    ]


def read_datasets():
    import datasets

    datasets.disable_progress_bars()
    tars = datasets.load_dataset(
        "webdataset", data_files=sorted(map(str, TARS.glob("*.tar"))), split="train", streaming=True
    )
    tars = tars.cast_column("jpg", datasets.Image(decode=False))
    return [
        f"{sample['__key__']}: {sample['txt']}, image {image_size(sample['jpg']['bytes'])}"
        for sample in tars
    ]


def image_size(data):
    from PIL import Image

    return "{}x{}".format(*Image.open(io.BytesIO(data)).size)


def parse_time(text):
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00"))


if __name__ == "__main__":
    main()
