"""A folder of good small files, which a script takes, and of hostile ones in their place."""

import json
import os
from pathlib import Path

from PIL import Image

from generate.dataset.layout import path_of


def make_hostile_files(folder: Path) -> dict[str, str]:
    """{name: path}; those called bad_… are what a user may type or find on a disk."""
    out = folder / "out"
    out.mkdir()
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps(["a red fox in the snow at dawn", "a lighthouse on a cliff"]))
    backends = folder / "backends.yaml"
    backends.write_text(
        "tiers:\n- name: local\n  backends:\n  - provider: ollama\n    model: m\n"
        "    hosts: 127.0.0.1:9\n"
    )
    data = folder / "data" / "set"
    make_samples(data)
    good = {"out": out, "prompts": prompts, "backends": backends, "data": folder / "data"}
    good["table"] = make_table(folder)
    bad = {f"bad_{name}": path for name, path in hostile(folder).items()}
    return {name: str(path) for name, path in (good | bad).items()}


def make_samples(data: Path) -> None:
    for index in range(3):
        path = path_of(data, index, 0, ".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (90 * index, 20, 60)).save(path)
        record = {
            "prompt_index": index,
            "augmentation_idx": 0,
            "original_prompt": "a fox",
            "augmented_prompt": "a fox",
            "is_augmented": False,
            "model_name": "tiny",
            "height": 16,
            "width": 16,
            "input_file": "p.json",
            "image_path": f"000000/{index}_0.jpg",
        }
        path.with_suffix(".json").write_text(json.dumps(record))


def make_table(folder: Path) -> Path:
    """A foreign table with the columns that the tar step needs, and rows without images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = folder / "table.parquet"
    pq.write_table(pa.table({"image_path": ["set/000000/0_0.jpg"], "caption": ["a fox"]}), table)
    return table


def hostile(folder: Path) -> dict[str, Path]:
    where = folder / "hostile"
    where.mkdir()
    contents: dict[str, bytes] = {
        "empty.json": b"",
        "torn.json": b'["a fox", "a li',
        "deep.json": b"[" * 100_000,
        "bom.json": b'\xef\xbb\xbf["a red fox in the snow"]',
        "nan.json": b'[{"prompt": "a red fox in the snow", "x": NaN}]',
        "numbers.json": b"[1, null, {}]",
        "latin.txt": "ein müder Fuchs\n".encode("latin-1"),
        "zeros.parquet": bytes(4096),
        "deep.yaml": b"[" * 5000,
        "tag.yaml": b"!!python/object/apply:os.system ['touch pwned']\n",
    }
    for name, content in contents.items():
        (where / name).write_bytes(content)
    os.mkfifo(where / "fifo.json")
    (where / "loop.json").symlink_to("loop.json")
    (where / "folder.json").mkdir()
    line_break = where / "a\nb.json"
    line_break.write_text('["a red fox in the snow"]')
    paths = {path.name.replace(".", "_").replace("\n", "_"): path for path in where.iterdir()}
    return paths | {"missing": where / "missing.json", "zero": Path("/dev/zero")}


def doubling(text: str, levels: int = 26) -> str:
    """A YAML value of some hundred characters that is 2**levels texts where it is printed."""
    value = f"&a0 {text}"
    for level in range(levels):
        value = f"&a{level + 1} [{value}, *a{level}]"
    return value
