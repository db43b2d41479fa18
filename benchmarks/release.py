"""How long release.py takes, beside the tar step and the hashing that nobody can avoid.

    python benchmarks/release.py                    # 20,000 samples, 1.1 GB of images

Seconds of CPU and MB are those of all processes of a step (cost.py). The report's time must not
grow with the table: its last line is over the rows of the same samples, 100 times.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_samples import SCRIPTS, TO_PARQUET, TO_TARS, collect, make_samples, pictures
from benchmarks.verification import IMAGES, OPTIONS, give_captions, measured

RELEASE, REPORT = ([sys.executable, SCRIPTS / f"{n}.py"] for n in ("release", "make_report"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=50_000, help="of an image")
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    args = parser.parse_args()
    samples = args.samples // (10 if args.quick else 1) // IMAGES * IMAGES
    where = Path(tempfile.mkdtemp(dir=args.folder, prefix="release."))
    try:
        data = where / "HPDv2"
        data.mkdir()
        make_samples(data, 0, samples, pictures(args.bytes), ours=True)
        collect(data)
        give_captions(data, IMAGES)
        table, tars, release = where / "t.parquet", where / "tars", where / "release"
        print(f"{samples:,} samples\n\n| step | CPU s | wall s | MB |\n|---|---|---|---|")
        measured("table", [*TO_PARQUET, data, table])
        options = ["--parquet_file", table, "--base_dir", where, "--output_dir", tars]
        measured("tars", [*TO_TARS, *options, "--num_workers", "1"])
        words = [data, release, "--num_workers", "1", *OPTIONS]
        measured("release.py: all of it", [*RELEASE, *words])
        measured("release.py, again", [*RELEASE, *words])
        hash_all = (
            "import hashlib, pathlib; [hashlib.file_digest(p.open('rb'), 'sha256') for p in "
            f"pathlib.Path({str(release)!r}).rglob('*') if p.is_file()]"
        )
        measured("sha256 of the release alone", [sys.executable, "-c", hash_all])
        base = ["--base_dir", where]
        measured("make_report.py", [*REPORT, table, where / "report.html", *base])
        rows = pq.read_table(table)
        large = where / "large.parquet"
        with pq.ParquetWriter(large, rows.schema) as writer:
            for _ in range(100):
                writer.write_table(rows, row_group_size=16_384)
        del rows
        name = f"make_report.py, {100 * samples:,} rows"
        measured(name, [*REPORT, large, where / "report.html", *base])
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
