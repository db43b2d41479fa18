"""The real client as a process of its own, for tests.

`generate_images.py … --is_slurm_task` with the FakePipeline, and what it must leave behind.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from common.jpeg import without_folders
from generate.dataset import samples
from generate.dataset.captions import read_captions
from generate.dataset.layout import collected_path, path_of, stem
from tests.fakes import fake_pipeline
from tests.fakes.forked_script import forked

ROOT = Path(__file__).resolve().parent.parent.parent
PIPELINE = f"{ROOT}/tests/fakes/fake_pipeline.py:FakePipeline"
ENVIRONMENT = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("SLURM", "FAKE_"))
    and k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
}


class Run:
    """A prompts file `birds.json` in a folder, its output root, and clients that draw it.

    variations: in the file, so that no LLM is asked. given_root: the output root (default: out in
    the folder); seen_at: where this process sees it.
    """

    def __init__(
        self,
        folder,
        total=12,
        images=6,
        variations=True,
        options=(),
        given_root=None,
        seen_at=None,
        **environment,
    ):
        self.folder = Path(folder)
        self.given_root = given_root or self.folder / "out"
        self.root = seen_at or self.given_root
        self.total = total
        self.images = images
        self.options = list(options)
        self.environment = environment
        self.clients = []
        self.variations = variations
        self.root.mkdir(exist_ok=True)
        self.write_prompts(total)

    def write_prompts(self, total):
        self.total = total
        names = [f"a painting of bird number {i}" for i in range(total)]
        items = [
            {
                "prompt": name,
                "source": ["birds"],
                "variations": [f"{name}, view {k}" for k in range(9)],
            }
            if self.variations
            else name
            for name in names
        ]
        (self.folder / "birds.json").write_text(json.dumps(items))

    @property
    def data(self):
        return self.root / "generated_images" / "birds"

    def command(self, *options, task=True):
        words = [
            self.folder / "birds.json",
            "--pipeline",
            PIPELINE,
            "--resolution",
            32,
            "--batch_size",
            4,
            "--chunk_size",
            2,
            "--output_root",
            self.given_root,
            "--expected_samples_per_index",
            self.images,
            *self.options,
            *options,
            *(["--is_slurm_task"] if task else []),
        ]
        return [
            sys.executable,
            "-u",
            str(ROOT / "generate" / "generate_images.py"),
            *map(str, words),
        ]

    def start(self, *options, prefix=(), **environment):
        """A client process; its output is added to the log."""
        return self.begin([*prefix, *self.command(*options)], **environment)

    def begin(self, command, log=None, **environment):
        """As start, by a command of the test's own; log: default client.out in the output root."""
        with open(log or self.root / "client.out", "ab") as out:
            self.clients.append(
                subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=out,
                    env=ENVIRONMENT | self.environment | environment,
                    cwd=self.folder,
                )
            )
        return self.clients[-1]

    def run(self, *options, task=True, **environment):
        """Run a command to its end."""
        _, _, _, *words = self.command(*options, task=task)
        env = ENVIRONMENT | self.environment | environment
        return forked("generate/generate_images.py", *words, folder=self.folder, environment=env)

    def log(self):
        return (self.root / "client.out").read_text(errors="replace")

    def count(self):
        return len(list(self.data.glob("*/*.json")))

    def snapshot(self):
        """{name: (mtime, bytes)} of everything published; .samples are derived from the rest."""
        return {
            path.relative_to(self.data): (path.stat().st_mtime_ns, path.read_bytes())
            for path in self.data.glob("*/[0-9]*")
            if path.suffix != ".samples"
        }

    def check(self, images=None, given_up=()):
        """Everything is there once, and whole.

        Texts as they were published, each image shows its own text, JSON = JPEG; no draft is left.
        """
        stems = set()
        for index in range(self.total):
            record = read_captions(self.data, index)
            assert record and len(record["texts"]) == (images or self.images), (
                f"index {index}: {record}\n{self.log()[-2000:]}"
            )
            lines = []
            for aug, text in enumerate(record["texts"]):
                if stem(index, aug) in given_up:
                    continue
                path = path_of(self.data, index, aug, ".json")
                sample = json.loads(path.read_bytes())
                lines.append(path.read_bytes())
                data = path.with_suffix(".jpg").read_bytes()
                assert sample["image_sha256"] == hashlib.sha256(data).hexdigest()
                carried = {
                    key: sample[key]
                    for key in sample
                    if key not in (*samples.PLACE, "image_sha256")
                }
                assert samples.read_comment(data) == without_folders(carried)
                assert (
                    sample["prompt_index"],
                    sample["augmentation_idx"],
                    sample["augmented_prompt"],
                ) == (index, aug, text["text"])
                assert sample["original_prompt"] == record["original_prompt"] and sample[
                    "is_augmented"
                ] == (text["text"] != record["original_prompt"])
                image = Image.open(path.with_suffix(".jpg"))
                assert image.size == (sample["width"], sample["height"]) and fake_pipeline.shows(
                    image, text["text"]
                ), f"{path} shows another text"
                stems.add(path.stem)
            collected = collected_path(self.data, index)
            assert not collected.exists() or collected.read_bytes() == b"".join(lines)
        assert list(self.data.glob("*/*.samples")) or (images or self.images) == 1
        assert (
            stems
            == {path.stem for path in self.data.glob("*/*.jpg")}
            == {path.stem for path in self.data.glob("*/*.json")}
        )
        assert not list(self.data.glob("*/.[0-9]*")), "no draft is left behind"

    def stop(self):
        for client in self.clients:
            if client.poll() is None:
                client.kill()
            client.wait()
