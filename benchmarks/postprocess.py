"""How fast millions of small files become a table and tars, beside a C program that only reads them, pandas, GNU tar and webdataset.

    python benchmarks/postprocess.py                        # half an hour and 12 GB in a temporary folder
    python benchmarks/postprocess.py --quick                # a tenth of the sizes: two minutes
    python benchmarks/postprocess.py tar --folder /data/tmp # one of json, update, tar, growth

All repetitions of a comparison are interleaved; figures are medians. CPU is user + system time of the command and its workers, memory the
largest resident set of one process, and of all of them together (shared pages counted once, sampled every 0.2 s).
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "postprocess_dataset"
FLOOR_C = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {                  /* open, read and close every .json of the directories: nobody can do less */
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
frame = pandas.DataFrame(rows).sort_values(["input_file", "prompt_index", "augmentation_idx"], ignore_index=True)
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
                sink.write({"__key__": row["__key__"], "jpg": f.read(), "txt": row["caption"], "json": json.dumps(row).encode()})
"""
TO_PARQUET, TO_TARS = (
    [sys.executable, SCRIPTS / f"{name}.py"]
    for name in ("convert_json_to_parquet", "convert_parquet_to_wds")
)
WORDS = "portrait cat castle neon rain oil painting digital art cinematic lighting misty forest dragon vintage café “quoted” sunset".split()


class Cost:
    """What a command took."""

    def __init__(self, command):
        started, self.together = time.monotonic(), 0
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        reading = threading.Thread(target=self.read, args=(process.stdout,))
        reading.start()
        watching = threading.Thread(target=self.watch, args=(process,))
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall = time.monotonic() - started
        reading.join(), watching.join()
        if process.returncode:
            raise SystemExit(
                f"{' '.join(map(str, command))} ended with {process.returncode}: {self.said}"
            )
        self.cpu, self.peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def read(self, stream):
        self.said = stream.read().decode(errors="replace")

    def watch(self, process):
        while process.returncode is None:
            total, waiting = 0, [process.pid]
            while waiting:
                pid = waiting.pop()
                try:
                    shares = Path(
                        f"/proc/{pid}/smaps_rollup"
                    ).read_text()  # Pss: a page that n processes share counts 1/n in each
                    total += int(shares.split("\nPss:")[1].split()[0]) / 1024
                    waiting += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                except (OSError, IndexError):
                    continue
            self.together = max(self.together, total)
            time.sleep(0.2)


def compare(title, ways, reference, repetitions, before=lambda name: None):
    """Run each way in turns and print medians, as ratios of `reference`."""
    costs = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, command in ways.items():
            before(name)
            costs[name].append(Cost(command))
    middle = {
        name: {
            field: statistics.median(getattr(c, field) for c in some)
            for field in ("cpu", "wall", "peak", "together")
        }
        for name, some in costs.items()
    }
    print(f"\n{title} (medians of {repetitions}, interleaved; reference: {reference})")
    print(f"  {'':44}{'CPU s':>8}{'ratio':>7}{'wall s':>9}{'ratio':>7}{'peak MB':>9}{'all MB':>8}")
    for name, m in middle.items():
        base = middle[reference]
        print(
            f"  {name:44}{m['cpu']:8.2f}{m['cpu'] / base['cpu']:7.2f}{m['wall']:9.2f}{m['wall'] / base['wall']:7.2f}"
            f"{m['peak']:9.0f}{m['together']:8.0f}",
            flush=True,
        )
    return middle


def make_samples(folder, start, stop, images, ours):
    """Samples start … stop, each file its own, in the order in which many workers make them: published form, or `ours`."""
    chance, order, made = random.Random(start), list(range(start, stop)), set()
    chance.shuffle(order)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(22, 38))) for _ in range(5000)]
    for sample in order:
        prompt, augmentation = divmod(sample, 20)
        place = (
            f"{folder}/{prompt // 1000:06d}/{prompt}_{augmentation}"
            if ours
            else f"{folder}/{prompt}_{augmentation}"
        )
        original = f"{texts[prompt % 4999][:80]}, no. {prompt}"
        record = {
            "prompt_index": prompt,
            "augmentation_idx": augmentation,
            "original_prompt": original,
            "augmented_prompt": f"{texts[sample % 4999]}, take {sample}"
            if augmentation
            else original,
            "is_augmented": augmentation > 0,
            "model_name": "black-forest-labs/FLUX.1-dev",
            "llm_model_name": chance.choice(["gemma2", "gpt-4o-mini"]) if augmentation else None,
            "height": 512,
            "width": 512,
            "input_file": "HPDv2.json",
            "hostname": f"node-{chance.randrange(40)}",
            "image_path": f"{place}.jpg",
            "gpu_name": "NVIDIA A100-SXM4-80GB",
            "generation_timestamp": f"2026-09-{chance.randrange(1, 30):02d}T08:09:36.{chance.randrange(10**6):06d}+00:00",
        }
        image = images[sample % len(images)]
        tag = b"sample %012d" % sample  # in a JPEG comment, so that no two images are the same
        image = image[:2] + b"\xff\xfe" + (len(tag) + 2).to_bytes(2, "big") + tag + image[2:]
        if ours:
            if prompt // 1000 not in made:
                made.add(prompt // 1000)
                os.makedirs(os.path.dirname(place), exist_ok=True)
            record |= {
                "source": ["hpd"],
                "seed": chance.getrandbits(60),
                "num_inference_steps": 28,
                "guidance_scale": 7.0,
                "dtype": "bfloat16",
                "batch_size": 10,
                "library_versions": "torch 2.13.0, diffusers 0.38.0",
                "image_sha256": hashlib.sha256(image).hexdigest(),
                "slurm_job_id": "4711",
                "lease": "3-127",
            }
        for suffix, content in ((".jpg", image), (".json", json.dumps(record).encode())):
            fd = os.open(place + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, content)
            os.close(fd)


def pictures(size):
    """50 JPEGs of about `size` bytes."""
    import numpy
    from PIL import Image

    chance, made = numpy.random.default_rng(3), []
    for _ in range(50):
        rough = numpy.asarray(
            Image.fromarray(chance.integers(0, 256, (12, 12, 3), numpy.uint8)).resize(
                (512, 512), Image.BICUBIC
            ),
            numpy.float32,
        )
        side = 512 if size > 10_000 else 16
        noisy = Image.fromarray(
            numpy.clip(rough + chance.normal(0, 9.3, (512, 512, 1)), 0, 255).astype(numpy.uint8)
        ).resize((side, side))
        data = io.BytesIO()
        noisy.save(data, "JPEG", quality=75)
        made.append(data.getvalue())
    print(f"images of {statistics.mean(map(len, made)) / 1000:.1f} KB")
    return made


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


def measure_tar(where, small, less, repetitions):
    n, ours, table = 20_000 // less, where / "ours", where / "ours.parquet"
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
        "GNU tar of the images",
        repetitions,
        before,
    )


def measure_growth(where, small, less, repetitions):
    ours, table, made = where / "ours", where / "ours.parquet", 0
    make_floor(where)
    print(
        "\nGrowth, small images in sub-folders (one run each; tars with 2 workers; floor: the C program on the same files)"
    )
    print(
        f"  {'samples':>10}{'':3}{'table: CPU s':>13}{'us/sample':>11}{'floor us':>10}{'wall s':>8}{'peak MB':>9}{'':3}"
        f"{'tars: CPU s':>12}{'us/sample':>11}{'wall s':>8}{'peak MB':>9}{'all MB':>8}"
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
            f"  {n:10,}{'':3}{first.cpu:13.1f}{first.cpu / n * 1e6:11.1f}{floor.cpu / n * 1e6:10.1f}{first.wall:8.1f}{first.peak:9.0f}"
            f"{'':3}{second.cpu:12.1f}{second.cpu / n * 1e6:11.1f}{second.wall:8.1f}{second.peak:9.0f}{second.together:8.0f}",
            flush=True,
        )
    print(
        f"  {first.said.strip().rsplit(': ', 1)[1]}\n  {second.said.strip().splitlines()[-1].split(': ', 1)[1]}",
        flush=True,
    )
    flat = where / "flat"
    flat.mkdir()
    for place in ours.glob("*/*"):
        os.rename(place, flat / place.name)
    cost = Cost([*TO_PARQUET, flat, table, "--rebuild"])
    print(
        f"  the {made:,} in one flat folder: {cost.cpu:.1f} CPU s, {cost.cpu / made * 1e6:.1f} us/sample, {cost.wall:.1f} s, "
        f"peak {cost.peak:.0f} MB"
    )


def main():
    measures = {
        "json": measure_json,
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
        help="json, update, tar or growth (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    args = parser.parse_args()
    small = pictures(1000)
    for which in args.which or measures:
        where = Path(tempfile.mkdtemp(prefix="postprocess-", dir=args.folder))
        try:
            measures[which](where, small, 10 if args.quick else 1, 3)
        finally:
            shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
