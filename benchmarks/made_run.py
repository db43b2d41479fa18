"""A finished run to measure, and the steps that release.py and verification.py compare with.

with made_run(arguments(parser)) as run:
    run.convert(workers=1)                     # table and tars, each measured
    measured("release.py", [..., run.data])    # a line of the table that is printed
"""

import contextlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import Cost
from benchmarks.made_samples import TO_PARQUET, TO_TARS, collect, make_samples, pictures

# The made pictures are 50, each with its own comment, and of a made source.
OPTIONS = ["--allow", "duplicate_image", "--licence", "hpd=CC0-1.0"]
IMAGES = 20  # of a prompt, as make_samples() makes them
HEAD = "| step | CPU s | wall s | MB |\n|---|---|---|---|"


def measured(name, command):
    """Run a step and print what it took; its Cost."""
    cost = Cost(command)
    print(f"| {name} | {cost.cpu:.1f} | {cost.wall:.1f} | {cost.together:.0f} |", flush=True)
    return cost


@dataclass(frozen=True)
class Run:
    """where: a folder for all that is made; data: the data set's own."""

    where: Path
    samples: int

    @property
    def data(self):
        return self.where / "HPDv2"

    @property
    def table(self):
        return self.where / "t.parquet"

    @property
    def tars(self):
        return self.where / "tars"

    def convert(self, *options):
        """Table and tars; the Cost of the tars."""
        measured("table", [*TO_PARQUET, self.data, self.table])
        words = ["--parquet_file", self.table, "--base_dir", self.where, "--output_dir", self.tars]
        return measured("tars", [*TO_TARS, *words, *options])

    def hashed(self, name, *patterns):
        """The hashing alone of the files of some patterns; its Cost."""
        code = (
            "import hashlib, pathlib; [hashlib.file_digest(p.open('rb'), 'sha256') for pattern in "
            f"{patterns} for p in pathlib.Path({str(self.where)!r}).glob(pattern) if p.is_file()]"
        )
        return measured(name, [sys.executable, "-c", code])


def arguments(parser):
    """How large the run is, and where it lies."""
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=50_000, help="of an image")
    parser.add_argument("--folder", help="where temporary data goes (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")


@contextlib.contextmanager
def made_run(args):
    """The run, which is removed at the end; prints the head of the table."""
    samples = args.samples // (10 if args.quick else 1) // IMAGES * IMAGES
    run = Run(Path(tempfile.mkdtemp(dir=args.folder, prefix="benchmark.")), samples)
    try:
        run.data.mkdir()
        make_samples(run.data, 0, samples, pictures(args.bytes), ours=True)
        collect(run.data)
        give_captions(run.data, IMAGES)
        print(f"{samples:,} samples\n\n{HEAD}")
        yield run
    finally:
        shutil.rmtree(run.where)


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
