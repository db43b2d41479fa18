"""The demo's last table: each figure is counted by an independent reader, not by the steps' code.

text, agree = table_of(Demo(Path("demo")))

Heavy readers are imported where they are used, so that run_demo.py --help and errors come at once.
"""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.files import CHECKOUT

LEAST_RIGHT = 0.97  # share of images that show what their captions say
CHOSEN = "score_shape > 0.9 and augmentation_idx > 0"  # the variations that are right
SOURCES = ("image_reward", "sac", "pickscore", "HPDv2", "gecko")


@dataclass(frozen=True)
class Demo:
    """The paths of the demo."""

    folder: Path

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts"

    @property
    def shapes(self) -> Path:
        return self.prompts / "shapes.json"

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    @property
    def server_json(self) -> Path:
        return self.outputs / ".server" / "server.json"

    @property
    def dataset(self) -> Path:
        return self.outputs / "generated_images" / "shapes"

    @property
    def status(self) -> Path:
        return self.folder / "status.json"

    @property
    def table(self) -> Path:
        return self.folder / "shapes.parquet"

    @property
    def tars(self) -> Path:
        return self.folder / "tars"

    @property
    def subset(self) -> Path:
        """Tars of the rows that CHOSEN takes."""
        return self.folder / "subset"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def release(self) -> Path:
        return self.folder / "release" / "shapes"

    @property
    def sheet(self) -> Path:
        return self.folder / "contact_sheet.jpg"

    def drawn(self) -> str:
        """How many images are there, for the terminal."""
        return f": {sum(1 for _ in self.dataset.glob('*/*.jpg')):,}"


def shown(path: object) -> str:
    """A path as the user would type it."""
    return str(path).replace(f"{CHECKOUT}/", "")


def table_of(demo: Demo) -> tuple[str, bool]:
    """(the table as text, whether the figures agree and the images show their captions)."""
    from examples.demo_pictures import right_images

    records = [json.loads(path.read_text()) for path in demo.dataset.glob("*/*.prompts")]
    expected = sum(len(record["texts"]) for record in records)
    given_up = len(list(demo.dataset.glob("*/*.failed")))
    expected -= given_up
    wanted = len(json.loads(demo.shapes.read_text()))
    found = {
        "JSON files": json_files(demo),
        "JPEGs that open": sum(map(opens, demo.dataset.glob("*/*.jpg"))),
        "parquet rows": parquet_rows(demo),
        "tar samples, by webdataset": len(read_webdataset(demo)),
        "tar samples, by datasets": len(read_datasets(demo)),
        "release loaded by its folder": loaded_release(demo),
        "release verified by its manifest": verified_release(demo),
    }
    chosen, again = chosen_samples(demo), chosen_again(demo)
    right = right_images(demo)
    document = json.loads(demo.status.read_text())
    # unheard: a client that leaves in order says why
    given_back = document["datasets"][0]["given_back"].get("expired", 0)

    rows = [("prompts to draw", f"{wanted:,}"), ("images expected", f"{expected:,}")]
    if short := sum(record["short"]["missing"] for record in records if record["short"]):
        rows += [("  fewer than asked for (the LLM repeated itself)", f"{short:,}")]
    if given_up:
        rows += [("  given up: eight images of a caption were wrong", f"{given_up:,}")]
    rows += [
        (name, f"{number:,}" + ("" if number == expected else "   <-- differs"))
        for name, number in found.items()
    ]
    differ = "" if chosen == again else "   <-- differs"
    rows += [("a subset's samples (--where)", f"{len(chosen):,}")]
    rows += [("  chosen again, from the release alone", f"{len(again):,}{differ}")]
    few = right < LEAST_RIGHT * expected
    rows += [("images that show what their caption says", f"{right:,}" + "   <-- too few" * few)]
    rows += [("prompts taken over from the killed client", f"{given_back:,}")]
    complete = expected > 0 and len(records) == wanted and given_back > 0 and not few
    agree = complete and bool(chosen) and chosen == again
    agree = agree and all(number == expected for number in found.values())
    return "\n".join(f"{name:46} {value}" for name, value in rows), agree


def json_files(demo: Demo) -> int:
    """As the shell counts them."""
    command = f"find '{demo.dataset}' -type f -name '*.json' | wc -l"
    return int(subprocess.run(command, shell=True, capture_output=True, text=True).stdout)


def opens(path: Path) -> bool:
    from PIL import Image

    try:
        Image.open(path).load()
        return True
    except OSError as error:
        print(f"{path}: {error}")
        return False


def parquet_rows(demo: Demo) -> int:
    import pyarrow.parquet

    rows: int = pyarrow.parquet.read_table(demo.table, columns=["__key__"]).num_rows
    return rows


def read_webdataset(demo: Demo) -> list[str]:
    """A line for each sample in the tars, as webdataset reads them."""
    import webdataset

    shards = sorted(str(path) for path in demo.tars.glob("*.tar"))
    return [
        f"{sample['__key__']}: {sample['txt'].decode()}, {len(sample['jpg']):,} bytes of JPEG"
        for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    ]


def read_datasets(demo: Demo) -> list[str]:
    """A line for each sample in the tars, as datasets reads them."""
    import datasets

    datasets.disable_progress_bars()
    shards = sorted(map(str, demo.tars.glob("*.tar")))
    tars = datasets.load_dataset("webdataset", data_files=shards, split="train", streaming=True)
    tars = tars.cast_column("jpg", datasets.Image(decode=False))
    return [
        f"{sample['__key__']}: {sample['txt']}, image {image_size(sample['jpg']['bytes'])}"
        for sample in tars
    ]


def loaded_release(demo: Demo) -> int:
    """Samples of the release, as its card tells `datasets` where they are."""
    import datasets

    splits = datasets.load_dataset(str(demo.release), cache_dir=str(demo.folder / "cache"))
    return sum(split.num_rows for split in splits.values())


def verified_release(demo: Demo) -> int:
    """Samples of a copy of the release, if it passes the check by its MANIFEST.json; else 0."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(demo.release, Path(folder) / "copy")
        command = [sys.executable, "postprocess_dataset/verify_dataset.py", copy, "--manifest"]
        ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    samples = re.search(r"([\d,]+) samples in webdataset", ended.stdout)
    return int(samples[1].replace(",", "")) if samples and ended.returncode == 0 else 0


def chosen_samples(demo: Demo) -> set[str]:
    """Keys of the samples in the subset's tars."""
    names: list[str] = []
    for path in demo.subset.glob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return {name.removesuffix(".jpg") for name in names if name.endswith(".jpg")}


def chosen_again(demo: Demo) -> set[str]:
    """Keys of the samples that the same expression chooses from the release alone."""
    import pandas

    columns = ["__key__", "score_shape", "augmentation_idx"]
    rows = pandas.read_parquet(demo.release / "data", columns=columns).query(CHOSEN)
    return set(rows["__key__"])


def image_size(data: bytes) -> str:
    from PIL import Image

    return "{}x{}".format(*Image.open(io.BytesIO(data)).size)
