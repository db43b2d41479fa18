"""How long verify_dataset.py takes, beside the tar step and the hashing that nobody can avoid.

    python benchmarks/verification.py                          # 20,000 samples, 1.1 GB of images
    python benchmarks/verification.py --rows 1000000           # only the comparison, of so many

Seconds of CPU and MB are those of all processes of a step (cost.py).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_run import HEAD, OPTIONS, arguments, made_run, measured
from benchmarks.made_samples import SCRIPTS

VERIFY = [sys.executable, SCRIPTS / "verify_dataset.py"]
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
        evidence.add_samples((key, *fact, bytes_of(n, 16), b"same") for key, fact, n in both)
        evidence.add_rows((key, *fact, n) for key, fact, n in both)
        evidence.add_members((key, *fact, b"same", 0, n) for key, fact, n in both)
    found = Findings()
    evidence.sort()
    evidence.pictures(found)
    evidence.table(found, set(), True)
    evidence.tars(found, SeenTars(["a.tar"], rows))
    assert not found.counts, found
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    parser.add_argument("--rows", type=int, help="samples that are only compared")
    args = parser.parse_args()
    if args.rows:
        print(HEAD)
        command = [sys.executable, "-c", ROWS, SCRIPTS.parent, args.rows]
        measured(f"comparison of {args.rows:,} samples, rows and members", command)
        return
    with made_run(args) as run:
        run.convert("--num_workers", "2", "--shard_size_mb", "100")
        run.hashed("sha256 of images and tars alone", "HPDv2/*/*.jpg", "tars/*.tar")
        report = ["--report", run.where / "verification.json"]
        measured("folder", [*VERIFY, run.data, *report, *OPTIONS])
        words = [run.data, "--parquet_file", run.table, "--tars", run.tars, *report, *OPTIONS]
        measured("folder, table, tars, manifest", [*VERIFY, *words])
        measured("a download by its manifest", [*VERIFY, run.tars, "--manifest"])


if __name__ == "__main__":
    main()
