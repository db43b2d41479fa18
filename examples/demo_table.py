"""The demo's last table: every figure counted by a reader of its own, with no code of the steps.

agree = print_table(Demo(Path("demo")))

Heavy readers are imported where they read, so that run_demo.py --help and its errors come at once.
"""

import csv
import io
import json
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from common.files import CHECKOUT

SOURCES = ("image_reward", "sac", "pickscore", "HPDv2", "gecko")


@dataclass(frozen=True)
class Demo:
    """Where the demo keeps what."""

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


def shown(path: object) -> str:
    """A path as the user would type it."""
    return str(path).replace(f"{CHECKOUT}/", "")


def print_table(demo: Demo) -> bool:
    """Print what lies in demo/; whether the figures that must be equal are."""
    records = [json.loads(path.read_text()) for path in demo.dataset.glob("*/*.prompts")]
    expected = sum(len(record["texts"]) for record in records)
    wanted = len(json.loads(demo.shapes.read_text()))
    in_tars = read_webdataset(demo)
    in_tars_too = read_datasets(demo)
    found = {
        "JSON files": json_files(demo),
        "JPEGs that open": sum(map(opens, demo.dataset.glob("*/*.jpg"))),
        "parquet rows": parquet_rows(demo),
        "tar samples, by webdataset": len(in_tars),
        "tar samples, by datasets": len(in_tars_too),
    }
    document = json.loads(demo.status.read_text())
    # unheard: a client that leaves in order says why
    given_back = document["datasets"][0]["given_back"].get("expired", 0)

    rows = [(f"prompts read / kept: {source}", read_and_kept(demo, source)) for source in SOURCES]
    rows += [("prompts to draw", f"{wanted:,}"), ("images expected", f"{expected:,}")]
    rows += [("  of these short indices (the LLM gave fewer)", short_indices(records))]
    rows += [
        (name, f"{number:,}" + ("" if number == expected else "   <-- differs"))
        for name, number in found.items()
    ]
    rows += [("indices given back by the killed client", f"{given_back:,}")]
    rows += [("LLM calls / tokens", calls_and_tokens(document["llm"]))]
    rows += [("images a second, LLM included", f"{images_per_second(demo):.2f}")]
    print("\n" + "\n".join(f"{name:46} {value}" for name, value in rows))
    print(f"""
One sample as webdataset reads it: {in_tars[0] if in_tars else "-"}
One sample as datasets reads it:   {in_tars_too[0] if in_tars_too else "-"}
Look at the images in {shown(demo.dataset)}, the table in {shown(demo.table)}, \
the tars in {shown(demo.tars)}.
The tiny model knows circles, squares and triangles; variations that leave its grammar give \
blobs.""")
    complete = expected > 0 and len(records) == wanted
    return complete and all(number == expected for number in found.values()) and given_back > 0


def short_indices(records: list[dict[str, Any]]) -> str:
    short = [record["short"] for record in records if record["short"]]
    return f"{len(short)}, {sum(s['missing'] for s in short)} images fewer than asked"


def calls_and_tokens(llm: dict[str, Any]) -> str:
    return f"{llm['calls']:,} / {llm['prompt_tokens'] + llm['completion_tokens']:,}"


def images_per_second(demo: Demo) -> float:
    times = sorted(
        datetime.fromisoformat(json.loads(path.read_text())["generation_timestamp"])
        for path in demo.dataset.glob("*/*.json")
    )
    seconds = (times[-1] - times[0]).total_seconds() if times else 0
    return len(times) / seconds if seconds else 0


def read_and_kept(demo: Demo, source: str) -> str:
    kept = len(json.loads((demo.prompts / f"{source}.json").read_text()))
    return f"{rows_of(source):,} / {kept:,}"


def rows_of(source: str) -> int:
    """Prompts in the source's own files, read with no code of combine_prompts."""
    folder = CHECKOUT / "examples" / source.lower()
    if source in ("image_reward", "pickscore"):
        import pyarrow.parquet

        files = [pyarrow.parquet.ParquetFile(path) for path in folder.glob("**/*.parquet")]
        return sum(file.metadata.num_rows for file in files)
    if source == "sac":
        database = sqlite3.connect(next(folder.glob("*.sqlite")))
        count: int = database.execute("SELECT count(*) FROM generations").fetchone()[0]
        return count
    if source == "HPDv2":
        files = [path for path in folder.glob("**/*.json") if path.stem != "drawbench"]
        return sum(len(json.loads(path.read_text())) for path in files)
    with open(folder / "prompts.csv", newline="", encoding="utf-8") as file:
        return len(list(csv.DictReader(file)))


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


def image_size(data: bytes) -> str:
    from PIL import Image

    return "{}x{}".format(*Image.open(io.BytesIO(data)).size)
