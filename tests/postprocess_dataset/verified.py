"""A small data set as a run leaves it, with table and tars, that nothing is wrong with."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from generate.dataset.captions import publish_captions
from generate.dataset.samples import PLACE, comment_of, encode
from postprocess_dataset.to_tars import shard_plan
from tests.postprocess_dataset.conftest import Folder, called

PROMPTS = range(995, 1003)
IMAGES = 3
ROOM = ((10**6 - 1024) // 9 - 3 * 512) // 3  # nine samples a shard


class RunFolder(Folder):
    """Images that carry their metadata and are nobody else's, captions, a definition."""

    def image(self, prompt, augmentation, tag=""):
        pixels = random.Random(f"{prompt} {augmentation} {tag}").randbytes(8 * 8 * 3)
        record = self.record(prompt, augmentation, b"")
        hidden = (*PLACE, "image_sha256", *(["image_path"] if self.published else []))
        carried = {name: value for name, value in record.items() if name not in hidden}
        return encode(picture(pixels), comment_of(carried), 95)

    def record(self, prompt, augmentation, image):
        return super().record(prompt, augmentation, image) | {
            "hostname": None,
            "slurm_job_id": None,
            "left_out": [],
            "truncated": ["text_encoder_3"],
            "scores": {"clip": 0.3, "rendered_text": None},
            "score_versions": ["clip 1", "rendered_text 1"],
            "rejected": [],
        }

    def finish(self, prompts):
        for prompt in prompts:
            records = [self.record(prompt, n, b"") for n in range(IMAGES)]
            texts = [
                {"text": r["augmented_prompt"], "llm_model_name": r["llm_model_name"]}
                for r in records
            ]
            captions = {
                "prompt_index": prompt,
                "original_prompt": records[0]["original_prompt"],
                "source": records[0]["source"],
                "texts": [text | {"backend": None} for text in texts],
                "short": None,
            }
            publish_captions(self.path, captions, "1-1")
        definition = {"total": len(prompts), "images_per_prompt": IMAGES}
        (self.path / "dataset.yaml").write_text(yaml.safe_dump(definition))
        return self


def picture(pixels):
    from PIL import Image

    return Image.frombytes("RGB", (8, 8), pixels)


def convert(root, split=()):
    """Table and tars of the data set in `root`."""
    for name in ("t.parquet", "tars"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    made = called("convert_json_to_parquet", (root / "HPDv2", root / "t.parquet", "--relative"))
    assert made.status == 0, made.err
    make_tars(root, split)


def make_tars(root, options=()):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "padded", lambda size: ROOM)
        table, tars = root / "t.parquet", root / "tars"
        words = ("--parquet_file", table, "--base_dir", root, "--output_dir", tars)
        sizes = ("--shard_size_mb", 1, "--num_workers", 1)
        made = called("convert_parquet_to_wds", (*words, *sizes, *options))
    assert made.status == 0, made.err


def make(root) -> Path:
    """24 samples in two sub-folders, their table, three tars."""
    RunFolder(root / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)
    convert(root)
    return Path(root)


def verify(root, *options):
    """The script on everything in `root`, and what verification.json says."""
    words = ("--parquet_file", root / "t.parquet", "--tars", root / "tars")
    report = root / "verification.json"
    report.unlink(missing_ok=True)
    ended = called("verify_dataset", (root / "HPDv2", *words, "--report", report, *options))
    ended.document = json.loads(report.read_text()) if report.exists() else None
    return ended


def kinds(ended) -> dict[str, int]:
    """{kind: how many} that a verification found."""
    assert ended.document is not None, ended.err
    return {name: about["count"] for name, about in ended.document["found"].items()}


def rewrite(path, **changes):
    """Change fields of a sample's JSON."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record))


def put(place, image):
    """Another image under a sample's name, with the JSON that tells of it."""
    place.with_suffix(".jpg").write_bytes(image)
    rewrite(place.with_suffix(".json"), image_sha256=hashlib.sha256(image).hexdigest())


def release(root, *options):
    """Make the release birds of the data set HPDv2 below root."""
    return called("release", [root / "HPDv2", root / "birds", "--num_workers", 1, *options])


def refused(ended, *words):
    """In one line, which names the file."""
    assert ended.status == 1 and ended.err.count("\n") == 1, (ended.status, ended.err)
    assert all(word in ended.err for word in words), ended.err
