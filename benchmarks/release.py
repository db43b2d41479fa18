"""How long release.py takes, beside the tar step and the hashing that nobody can avoid.

    python benchmarks/release.py                    # 20,000 samples, 1.1 GB of images
    python benchmarks/release.py --samples 10000 --before CHECKOUT   # beside another version

Once as it comes, with both forms, and once for each form alone; each beside the tar step of the
same run and sha256 of all files that it released. Ratios are of CPU and of wall time: the aim is
1.5 in all. Seconds of CPU and MB are those of all processes of a step (cost.py); all steps have as
many workers. Each release is removed when it is measured: the disk needs room for the images three
times.

The report's time must not grow with the table: its last line is over a million rows, those of the
same samples again and again.
"""

import argparse
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_run import OPTIONS, arguments, made_run, measured
from benchmarks.made_samples import SCRIPTS

REPORT = [sys.executable, SCRIPTS / "make_report.py"]
ROWS = 1_000_000  # of the large report
FORMS = {"both forms": [], "tars": ["--form", "webdataset"], "parquet": ["--form", "parquet"]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    parser.add_argument("--workers", type=int, default=2, help="of each step")
    parser.add_argument("--before", help="a checkout of another version, to be compared with")
    args = parser.parse_args()
    workers = ["--num_workers", args.workers]
    ratios = []
    with made_run(args) as run:
        tars = run.convert(*workers)
        shutil.rmtree(run.tars)
        for name, options in FORMS.items():
            ratios.append(released(run, tars, name, SCRIPTS, [*workers, *options]))
            if args.before and not options:
                other = Path(args.before).resolve() / "postprocess_dataset"
                ratios.append(released(run, tars, f"{name}, before", other, workers))
        measured_report(run)
    print("\n".join(["", *ratios]))


def released(run, tars, name, scripts, options):
    """Measure a release and what it is compared with; a line with the ratios."""
    release = run.where / "release"
    command = [sys.executable, scripts / "release.py", run.data, release, *options, *OPTIONS]
    whole = measured(f"release.py, {name}", command)
    measured("the same again", command)
    hashes = run.hashed("sha256 of what it released", "release/**/*")
    for folder in (release, f"{release}.work"):
        shutil.rmtree(folder)
    cpu, wall = (
        getattr(whole, kind) / (getattr(tars, kind) + getattr(hashes, kind))
        for kind in ("cpu", "wall")
    )
    return f"release.py, {name}, beside tars and hashing: {cpu:.2f} of CPU, {wall:.2f} of wall time"


def measured_report(run):
    """The report of the run's rows, and of a million."""
    base = ["--base_dir", run.where]
    measured("make_report.py", [*REPORT, run.table, run.where / "report.html", *base])
    rows = pq.read_table(run.table)
    large = run.where / "large.parquet"
    with pq.ParquetWriter(large, rows.schema) as writer:
        for _ in range(0, ROWS, run.samples):
            writer.write_table(rows, row_group_size=16_384)
    del rows
    measured(f"make_report.py, {ROWS:,} rows", [*REPORT, large, run.where / "report.html", *base])


if __name__ == "__main__":
    main()
