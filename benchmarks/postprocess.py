"""How fast millions of small files become a table and tars.

Beside a C program that only reads them, pandas, GNU tar and webdataset.

    # half an hour and 12 GB of temporary files
    python benchmarks/postprocess.py
    python benchmarks/postprocess.py --quick                # a tenth of the sizes: two minutes
    python benchmarks/postprocess.py tar --folder /data/tmp # one of json, collected, update, …
    python benchmarks/postprocess.py tar --images 200000    # 22 GB of temporary files

See cost.py for what the figures are.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost import Cost, compare
from benchmarks.made_samples import TO_PARQUET, TO_TARS, collect, make_samples, pictures

FLOOR_C = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* open, read and close every .json of the directories: nobody can do less */
int main(int argc, char **argv) {
    static char buffer[65536];
    long files = 0, bytes = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;
        while ((entry = readdir(dir))) {
            size_t n = strlen(entry->d_name);
            if (n < 5 || strcmp(entry->d_name + n - 5, ".json")) continue;
            int fd = openat(dirfd(dir), entry->d_name, O_RDONLY);
            bytes += read(fd, buffer, sizeof buffer);
            close(fd);
            files++;
        }
        closedir(dir);
    }
    printf("%ld files, %ld bytes\n", files, bytes);
}
"""
PANDAS_WAY = """
import glob, json, os, sys
import pandas
rows = []
for path in glob.glob(sys.argv[1] + "/*.json"):
    with open(path) as f:
        row = json.load(f)
    if os.path.exists(path[:-5] + ".jpg"):
        rows.append({**row, "__key__": path[:-5], "caption": row["augmented_prompt"]})
order = ["input_file", "prompt_index", "augmentation_idx"]
frame = pandas.DataFrame(rows).sort_values(order, ignore_index=True)
frame["idx"] = frame.index
frame.to_parquet(sys.argv[2], compression="zstd")
"""
WEBDATASET_WAY = """
import json, sys
import pyarrow.parquet, webdataset
with webdataset.TarWriter(sys.argv[2]) as sink:
    for batch in pyarrow.parquet.ParquetFile(sys.argv[1]).iter_batches(2048):
        for row in batch.to_pylist():
            with open(row["image_path"], "rb") as f:
                image = f.read()
            sample = {"jpg": image, "txt": row["caption"], "json": json.dumps(row).encode()}
            sink.write({"__key__": row["__key__"], **sample})
"""


def make_floor(where):
    (where / "floor.c").write_text(FLOOR_C)
    subprocess.run(["cc", "-O2", "-o", where / "floor", where / "floor.c"], check=True)


def measure_json(where, small, less, repetitions):
    n, flat = 200_000 // less, where / "flat"
    flat.mkdir()
    make_samples(flat, 0, n, small, ours=False)
    make_floor(where)
    compare(
        f"JSON -> parquet, {n:,} samples in a flat folder of the published form",
        {
            "C: open, read, close each JSON": [where / "floor", flat],
            "convert_json_to_parquet.py": [*TO_PARQUET, flat, where / "flat.parquet"],
            "pandas: json.load, image there?, sort, zstd": [
                sys.executable,
                "-c",
                PANDAS_WAY,
                flat,
                where / "pandas.parquet",
            ],
        },
        "C: open, read, close each JSON",
        repetitions,
    )


def measure_collected(where, small, less, repetitions):
    """With a .samples for each prompt of 200 images, and without."""
    ours, made = where / "ours", 0
    make_floor(where)
    for n in (200_000 // less, 1_000_000 // less):
        make_samples(ours, made, n, small, ours=True, per_prompt=200)
        collect(ours)
        made = n
        os.sync()
        compare(
            f"JSON -> parquet, {n:,} samples in sub-folders, 200 a prompt",
            {
                "C: open, read, close each JSON": [where / "floor", *sorted(ours.iterdir())],
                "with .samples": [*TO_PARQUET, ours, where / "a.parquet", "--rebuild"],
                "without (--verify json)": [
                    *TO_PARQUET,
                    ours,
                    where / "b.parquet",
                    "--rebuild",
                    "--verify",
                    "json",
                ],
            },
            "C: open, read, close each JSON",
            repetitions,
        )


def measure_update(where, small, less, repetitions):
    n, ours, table = 200_000 // less, where / "ours", where / "ours.parquet"
    make_samples(ours, 0, n, small, ours=True)
    for folder in [ours, *ours.iterdir()]:
        os.utime(folder, (1_600_000_000,) * 2)  # as after a week
    subprocess.run([*map(str, TO_PARQUET), ours, table], check=True, stdout=subprocess.DEVNULL)
    make_samples(ours, n, n + n // 100, small, ours=True)
    for path in where.glob("ours.parquet*"):
        shutil.copy(path, where / f"kept.{path.name}")

    def before(name):
        for path in where.glob("kept.ours.parquet*"):
            shutil.copy(path, where / path.name.removeprefix("kept."))

    compare(
        f"--update after 1 % new samples, {n:,} samples in sub-folders",
        {
            "full": [*TO_PARQUET, ours, where / "full.parquet"],
            "--update": [*TO_PARQUET, ours, table, "--update"],
        },
        "full",
        repetitions,
        before,
    )


def measure_tar(where, small, less, repetitions, images=20_000):
    n, ours, table = images // less, where / "ours", where / "ours.parquet"
    make_samples(ours, 0, n, pictures(53_000), ours=True)
    subprocess.run([*map(str, TO_PARQUET), ours, table], check=True, stdout=subprocess.DEVNULL)
    names, size = where / "names", sum(path.stat().st_size for path in ours.glob("*/*.jpg"))
    names.write_text(
        "".join(f"{path.relative_to(where)}\n" for path in sorted(ours.glob("*/*.jpg")))
    )
    tars = [
        *TO_TARS,
        "--parquet_file",
        table,
        "--base_dir",
        where,
        "--output_dir",
        where / "tars",
        "--shard_size_mb",
        100,
    ]

    def before(name):
        shutil.rmtree(where / "tars", ignore_errors=True)
        (where / "out.tar").unlink(missing_ok=True)
        os.sync()

    tar = f"tar -C {where} -cf {where}/out.tar -T {names}"
    compare(
        f"parquet -> tar, {n:,} images, {size / 1e6:,.0f} MB, sha256 of each checked",
        {
            "GNU tar of the images": ["sh", "-c", tar],
            "GNU tar of the images, then fsync": ["sh", "-c", f"{tar} && sync {where}/out.tar"],
            "convert_parquet_to_wds.py, 1 worker": [*tars, "--num_workers", 1],
            "convert_parquet_to_wds.py, 2 workers": [*tars, "--num_workers", 2],
            "webdataset.TarWriter, 1 process": [
                sys.executable,
                "-c",
                WEBDATASET_WAY,
                table,
                where / "out.tar",
            ],
        },
        "GNU tar of the images, then fsync",
        repetitions,
        before,
    )


def measure_growth(where, small, less, repetitions):
    ours, table, made = where / "ours", where / "ours.parquet", 0
    make_floor(where)
    print(
        "\nGrowth, small images in sub-folders (one run each; tars with 2 workers; "
        "floor: the C program on the same files)"
    )
    print(
        f"  {'samples':>10}{'':3}{'table: CPU s':>13}{'us/sample':>11}{'floor us':>10}{'wall s':>8}"
        f"{'peak MB':>9}{'':3}{'tars: CPU s':>12}{'us/sample':>11}{'wall s':>8}{'peak MB':>9}"
        f"{'all MB':>8}"
    )
    for n in (50_000 // less, 200_000 // less, 1_000_000 // less):
        make_samples(ours, made, n, small, ours=True)
        made = n
        os.sync()
        shutil.rmtree(where / "tars", ignore_errors=True)
        floor = Cost([where / "floor", *ours.iterdir()])
        first = Cost([*TO_PARQUET, ours, table, "--rebuild"])
        second = Cost(
            [
                *TO_TARS,
                "--parquet_file",
                table,
                "--base_dir",
                where,
                "--output_dir",
                where / "tars",
                "--num_workers",
                2,
            ]
        )
        print(
            f"  {n:10,}{'':3}{first.cpu:13.1f}{first.cpu / n * 1e6:11.1f}"
            f"{floor.cpu / n * 1e6:10.1f}{first.wall:8.1f}{first.peak:9.0f}"
            f"{'':3}{second.cpu:12.1f}{second.cpu / n * 1e6:11.1f}"
            f"{second.wall:8.1f}{second.peak:9.0f}{second.together:8.0f}",
            flush=True,
        )
    print(f"  {first.output.strip().rsplit(': ', 1)[1]}")
    print(f"  {second.output.strip().splitlines()[-1].split(': ', 1)[1]}", flush=True)
    flat = where / "flat"
    flat.mkdir()
    for place in ours.glob("*/*"):
        os.rename(place, flat / place.name)
    cost = Cost([*TO_PARQUET, flat, table, "--rebuild"])
    print(
        f"  the {made:,} in one flat folder: {cost.cpu:.1f} CPU s, "
        f"{cost.cpu / made * 1e6:.1f} us/sample, {cost.wall:.1f} s, peak {cost.peak:.0f} MB"
    )


def main():
    measures = {
        "json": measure_json,
        "collected": measure_collected,
        "update": measure_update,
        "tar": measure_tar,
        "growth": measure_growth,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "which",
        nargs="*",
        choices=[*measures, []],
        default=[],
        help="json, collected, update, tar or growth (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    parser.add_argument("--images", type=int, default=20_000, help="of tar (default: 20,000)")
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    args = parser.parse_args()
    measures["tar"] = partial(measure_tar, images=args.images)
    small = pictures(1000)
    for which in args.which or measures:
        where = Path(tempfile.mkdtemp(prefix="postprocess-", dir=args.folder))
        try:
            measures[which](where, small, 10 if args.quick else 1, 3)
        finally:
            shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
