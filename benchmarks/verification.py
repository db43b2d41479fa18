"""How long verify_dataset.py takes, beside the tar step and the hashing that nobody can avoid.

    python benchmarks/verification.py                          # 20,000 samples, 1.1 GB of images
    python benchmarks/verification.py --rows 1000000           # only the comparison, of so many

Seconds of CPU and MB are those of all processes of a step (cost.py).
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cost import Cost
from benchmarks.made_samples import SCRIPTS, TO_PARQUET, TO_TARS, collect, make_samples, pictures

VERIFY = [sys.executable, SCRIPTS / "verify_dataset.py"]
# The made pictures are 50, each with its own comment, and of a made source.
OPTIONS = ["--allow", "duplicate_image", "--licence", "hpd=CC0-1.0"]
IMAGES = 20  # of a prompt, as make_samples() makes them


def measured(name, command):
    """Run a step and print what it took."""
    cost = Cost(command)
    print(f"| {name} | {cost.cpu:.1f} | {cost.wall:.1f} | {cost.together:.0f} |", flush=True)


ROWS = """
import sys, tempfile
sys.path.insert(0, sys.argv[1])
from postprocess_dataset.verification.evidence import Evidence
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.verification.tars import SeenTars
rows = int(sys.argv[2])
bytes_of = lambda number, size: number.to_bytes(size, "big")
with tempfile.TemporaryDirectory() as folder, Evidence(folder) as evidence:
    for first in range(0, rows, 1000):
        some = range(first, first + 1000)
        keys = [f"HPDv2/{n // 20000:06d}/{n // 20}_{n % 20}" for n in some]
        facts = [(bytes_of(n, 32), bytes_of(n, 8), bytes_of(n, 8)) for n in some]
        both = list(zip(keys, facts, some))
        evidence.add_samples((key, *fact, bytes_of(n, 16)) for key, fact, n in both)
        evidence.add_rows((key, *fact, n) for key, fact, n in both)
        evidence.add_members((key, *fact, 0, n) for key, fact, n in both)
    found = Findings()
    evidence.sort()
    evidence.pictures(found)
    evidence.table(found, set(), True)
    evidence.tars(found, SeenTars(["a.tar"], rows))
    assert not found.counts, found
"""


def give_captions(folder, images):
    """The .prompts and dataset.yaml that a run leaves."""
    prompts = 0
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        for first in inside.glob("*_0.json"):
            index = int(first.name.split("_")[0])
            records = [
                json.loads((inside / f"{index}_{n}.json").read_text()) for n in range(images)
            ]
            texts = [
                {"text": r["augmented_prompt"], "llm_model_name": r["llm_model_name"]}
                for r in records
            ]
            captions = {"prompt_index": index, "texts": texts, "short": None}
            captions |= {"original_prompt": records[0]["original_prompt"], "source": ["hpd"]}
            (inside / f"{index}.prompts").write_text(json.dumps(captions))
            prompts += 1
    (folder / "dataset.yaml").write_text(f"total: {prompts}\nimages_per_prompt: {images}\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=50_000, help="of an image")
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    parser.add_argument("--rows", type=int, help="samples that are only compared")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    args = parser.parse_args()
    if args.rows:
        print("| step | CPU s | wall s | MB |\n|---|---|---|---|")
        command = [sys.executable, "-c", ROWS, SCRIPTS.parent, args.rows]
        measured(f"comparison of {args.rows:,} samples, rows and members", command)
        return
    samples = args.samples // (10 if args.quick else 1) // IMAGES * IMAGES
    where = Path(tempfile.mkdtemp(dir=args.folder, prefix="verification."))
    try:
        data = where / "HPDv2"
        data.mkdir()
        make_samples(data, 0, samples, pictures(args.bytes), ours=True)
        collect(data)
        give_captions(data, IMAGES)
        table, tars = where / "t.parquet", where / "tars"
        print(f"{samples:,} samples\n\n| step | CPU s | wall s | MB |\n|---|---|---|---|")
        hash_all = (
            "import hashlib, sys, pathlib; [hashlib.sha256(p.read_bytes()) for pattern in "
            f"('HPDv2/*/*.jpg', 'tars/*.tar') for p in pathlib.Path({str(where)!r}).glob(pattern)]"
        )
        measured("table", [*TO_PARQUET, data, table])
        options = ["--parquet_file", table, "--base_dir", where, "--output_dir", tars]
        measured("tars", [*TO_TARS, *options, "--num_workers", "2", "--shard_size_mb", "100"])
        measured("sha256 of images and tars alone", [sys.executable, "-c", hash_all])
        report = ["--report", where / "verification.json"]
        measured("folder", [*VERIFY, data, *report, *OPTIONS])
        words = [data, "--parquet_file", table, "--tars", tars, *report, *OPTIONS]
        measured("folder, table, tars, manifest", [*VERIFY, *words])
        measured("a download by its manifest", [*VERIFY, tars, "--manifest"])
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
