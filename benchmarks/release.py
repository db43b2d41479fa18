"""How long release.py takes, beside the tar step and the hashing that nobody can avoid.

    python benchmarks/release.py                    # 20,000 samples, 1.1 GB of images
    python benchmarks/release.py --samples 10000 --before CHECKOUT   # beside another version

Seconds of CPU and MB are those of all processes of a step (cost.py). The report's time must not
grow with the table: its last line is over the rows of the same samples, 100 times.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_run import OPTIONS, arguments, made_run, measured
from benchmarks.made_samples import SCRIPTS

RELEASE, REPORT = ([sys.executable, SCRIPTS / f"{n}.py"] for n in ("release", "make_report"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    parser.add_argument("--before", help="a checkout of another version, to be compared with")
    args = parser.parse_args()
    with made_run(args) as run:
        tars = run.convert("--num_workers", "1")
        release = run.where / "release"
        words = [run.data, release, "--num_workers", "1", *OPTIONS]
        whole = measured("release.py: all of it", [*RELEASE, *words])
        measured("release.py, again", [*RELEASE, *words])
        hashes = run.hashed("sha256 of the release alone", "release/*/*")
        if args.before:
            other = [sys.executable, Path(args.before).resolve() / "postprocess_dataset/release.py"]
            old = measured(
                f"{args.before}: release.py", [*other, run.data, run.where / "old", *words[2:]]
            )
        base = ["--base_dir", run.where]
        measured("make_report.py", [*REPORT, run.table, run.where / "report.html", *base])
        rows = pq.read_table(run.table)
        large = run.where / "large.parquet"
        with pq.ParquetWriter(large, rows.schema) as writer:
            for _ in range(100):
                writer.write_table(rows, row_group_size=16_384)
        del rows
        name = f"make_report.py, {100 * run.samples:,} rows"
        measured(name, [*REPORT, large, run.where / "report.html", *base])
    for name, cost in (("release.py", whole), *((("before", old),) if args.before else ())):
        print(f"{name}: {(cost.cpu - hashes.cpu) / tars.cpu:.1f} times the tars, and the hashing")


if __name__ == "__main__":
    main()
