"""Data sets as a run leaves them and as the published scripts left them, and both converters."""

import contextlib
import hashlib
import importlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.command_line import run_script
from common.jpeg import carried
from common.sample_reader import iterate
from generate.dataset.captions import publish_captions
from tests.fakes.forked_script import forked

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "postprocess_dataset"
LONG_AGO = itertools.count(1_600_000_000)


class Folder:
    """Makes samples.

    `published` ones lie flat, with an absolute image_path and without the newer fields.
    """

    def __init__(self, path, published=False, input_file="HPDv2.json"):
        self.path, self.published, self.input_file = Path(path), published, input_file
        self.path.mkdir(parents=True, exist_ok=True)
        if not published:
            (self.path / "dataset.yaml").write_text("name: HPDv2\n")

    def place(self, prompt, augmentation):
        """The sample's path without extension."""
        folder = self.path if self.published else self.path / f"{prompt // 1000:06d}"
        folder.mkdir(exist_ok=True)
        return folder / f"{prompt}_{augmentation}"

    def image(self, prompt, augmentation, tag=""):
        """A small JPEG that is nobody else's."""
        from PIL import Image

        data = io.BytesIO()
        comment = {"image_path": f"{self.path.name} {prompt} {augmentation} {tag}"}
        Image.new("RGB", (8, 8), (prompt % 256, augmentation % 256, 77)).save(
            data, "JPEG", comment=carried(comment)
        )
        return data.getvalue()

    def record(self, prompt, augmentation, image):
        place = self.place(prompt, augmentation)
        record = {
            "prompt_index": prompt,
            "augmentation_idx": augmentation,
            "original_prompt": f"a café, no. {prompt}",
            "augmented_prompt": f"a café, no. {prompt}, take “{augmentation}”",
            "is_augmented": augmentation > 0,
            "model_name": "stabilityai/stable-diffusion-3-medium-diffusers",
            "llm_model_name": "gemma2" if augmentation else None,
            "height": 8,
            "width": 8,
            "input_file": self.input_file,
            "hostname": "node1",
            "image_path": f"{place}.jpg",
            "gpu_name": "L40S",
            "generation_timestamp": "2026-01-02T03:04:05+00:00",
        }
        if not self.published:
            record |= {
                "image_path": f"{place.parent.name}/{place.name}.jpg",
                "source": ["hpd", "sac"],
                "seed": 2**62 + prompt,
                "num_inference_steps": 28,
                "guidance_scale": 7,
                "dtype": "bfloat16",
                "batch_size": 4,
                "library_versions": "torch 2.13.0",
                "image_sha256": hashlib.sha256(image).hexdigest(),
                "slurm_job_id": "77",
                "lease": "3-12",
            }
        return record

    def add(self, prompt, augmentation=0, **changes):
        image = self.image(prompt, augmentation)
        record = self.record(prompt, augmentation, image) | changes
        place = self.place(prompt, augmentation)
        place.with_suffix(".jpg").write_bytes(image)
        place.with_suffix(".json").write_text(json.dumps(record))
        return place

    def fill(self, prompts, images=2):
        """Samples in an order that is nobody's, as many workers leave them."""
        for prompt in sorted(prompts, key=lambda p: hashlib.md5(str(p).encode()).digest()):
            for augmentation in range(images):
                self.add(prompt, augmentation)
        return self

    def settle(self):
        """A week passes: the mtime of each folder that has changed is a new one, but long ago.

        Only such a folder may be skipped.
        """
        for path in [self.path, *self.path.glob("*/")]:
            if path.stat().st_mtime > 1_700_000_000:
                os.utime(path, (now := next(LONG_AGO), now))

    def heavier(self, size):
        """`size` bytes more in each image; its JSON tells of the new bytes."""
        for place in self.path.glob("*/*.jpg"):
            more = os.urandom(size).replace(b"\xff", b"\0")
            image = place.read_bytes()[:-2] + more + b"\xff\xd9"
            place.write_bytes(image)
            record = json.loads(place.with_suffix(".json").read_text())
            place.with_suffix(".json").write_text(
                json.dumps(record | {"image_sha256": hashlib.sha256(image).hexdigest()})
            )
        return self


@pytest.fixture
def folder(tmp_path):
    return lambda name="HPDv2", published=False, input_file="HPDv2.json": Folder(
        tmp_path / name, published, input_file
    )


CRASH = """
import os, signal
left = [int(os.environ["DIE_AT"])]
def dies(function, torn=False):
    def wrapped(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            if torn and len(args) > 1:
                function(args[0], args[1][:7])
            os.killpg(0, signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
for name in ("rename", "fsync", "unlink", "truncate"):
    setattr(os, name, dies(getattr(os, name)))
from common.files import NamedFile
NamedFile.write = dies(NamedFile.write, torn=True)
from postprocess_dataset import sorted_rows
cut = sorted_rows.RowWriter._cut
sorted_rows.RowWriter._cut = dies(cut)
"""


@pytest.fixture
def dying():
    """dying(n, script, args…): the exit status of a real process group.

    It SIGKILLs itself at its n-th write, rename, fsync, unlink.
    """

    def run(at, script, *args):
        at = os.environ | {"DIE_AT": str(at)}
        path = f"postprocess_dataset/{script}.py"
        return forked(path, *args, environment=at, before=CRASH).returncode

    return run


class Ended:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


def called(module, args):
    """A script's main() in this process, ended as the script ends: status and what it printed."""
    out = io.StringIO()
    err = io.StringIO()
    before = sys.argv
    sys.argv = [f"{module}.py", *map(str, args)]
    main = importlib.import_module(f"postprocess_dataset.{module}").main
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(main)
    except SystemExit as end:
        return Ended(end.code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = before


@pytest.fixture
def to_parquet():
    return lambda *args: called("convert_json_to_parquet", args)


@pytest.fixture
def to_tars():
    """One worker, in this process, unless --num_workers says otherwise."""

    def run(table, base, output, *args):
        workers = () if "--num_workers" in args else ("--num_workers", 1)
        return called(
            "convert_parquet_to_wds",
            ("--parquet_file", table, "--base_dir", base, "--output_dir", output, *workers, *args),
        )

    return run


@pytest.fixture
def process():
    """A script as a process, forked but for an option: process("score_images", args…, env={…})."""

    def run(script, *args, env=None, **kwargs):
        if not env and not kwargs:
            return forked(f"postprocess_dataset/{script}.py", *args)
        return subprocess.run(
            [sys.executable, str(SCRIPTS / f"{script}.py"), *map(str, args)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **(env or {})},
            **kwargs,
        )

    return run


@pytest.fixture
def rows_of():
    """The table's rows as dictionaries."""

    def read(path):
        from postprocess_dataset import table

        return [row for batch in table.read_rows(table.files(path)) for row in batch.to_pylist()]

    return read


@pytest.fixture
def deleted():
    """The keys on a table's list of rows whose sample was deleted."""

    def read(path):
        path = Path(f"{path}.gone.jsonl")
        return (
            [json.loads(line)["__key__"] for line in path.read_text().splitlines()]
            if path.exists()
            else []
        )

    return read


@pytest.fixture
def tar_members():
    """{name: bytes} of all the shards of a folder, in order; a name that stands twice fails."""
    import tarfile

    def read(output, stem="output_dataset"):
        members = {}
        for path in sorted(Path(output).glob(f"{stem}_*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    assert member.name not in members
                    members[member.name] = tar.extractfile(member).read()
        return members

    return read


@pytest.fixture
def table(folder, to_parquet, tmp_path):
    """(folder of 12 prompts of 3 images each, its table)"""
    data = folder().fill(range(995, 1007), 3)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    return data, tmp_path / "t.parquet"


@pytest.fixture
def small_shards(monkeypatch):
    """small_shards(samples=7): shards of a few samples, though --shard_size_mb counts in MB."""
    from postprocess_dataset.to_tars import shard_plan

    def set_size(samples=7):
        room = ((10**6 - 1024) // samples - 3 * 512) // 3  # of image, text, JSON
        monkeypatch.setattr(shard_plan, "padded", lambda size: room)

    return set_size


@pytest.fixture
def tree():
    """tree(folder) -> {name: bytes} of its tars and of what is written beside them."""
    return lambda path: {
        p.name: p.read_bytes() for p in Path(path).iterdir() if p.suffix in (".tar", ".json")
    }


def pack(path, *args):
    return called("pack_finished_folders", (path, *args))


def captions(index, count):
    texts = [{"text": f"t{n}", "llm_model_name": None, "backend": None} for n in range(count)]
    record = {"prompt_index": index, "original_prompt": "p", "source": [], "texts": texts}
    return record | {"short": None}


@pytest.fixture
def data(folder):
    made = folder().fill([3, 7, 1002], 2)
    for index in (3, 7, 1002):
        publish_captions(made.path, captions(index, 2), "1-1")
    (made.path / "000000/COMPLETE").write_text("{}")
    return made


def seen(path):
    """{key: (image, metadata)} of each sample; one that comes twice fails."""
    found = [(sample.key, (sample.jpeg(), sample.metadata)) for sample in iterate(path)]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set with table, tars and ledger, as verify_dataset.py finds it; not to be changed."""
    from tests.postprocess_dataset.verified import make  # which needs this module

    return make(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(whole, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(whole, tmp_path / "root")
