"""Read a data set folder without the project's own readers.

Is each sample whole, does each caption stand beside its image, is an LLM asked for what is missing
and for nothing else?
"""

import contextlib
import hashlib
import io
import json
import re

from PIL import Image

SAMPLE = re.compile(r"(\d+)_(\d+)\.jpg")
GENERATIONS = ("", *map(str, range(2, 20)))


def plain(*paths):
    """Whether all are files themselves: no links, folders or pipes."""
    return all(path.is_file() and not path.is_symlink() for path in paths)


def read_plain(path):
    if not plain(path):
        raise FileNotFoundError(path)
    return path.read_bytes()


class FolderChecker:
    """definition: total, images_per_prompt; item(index): the prompts file's item."""

    def __init__(self, folder, definition, item):
        self.folder = folder
        self.total = definition["total"]
        self.images_per_prompt = definition["images_per_prompt"]
        self.item = item

    def images(self):
        """{(index, augmentation): path} of all that have image and JSON."""
        found = {}
        for path in self.folder.glob("*/*.jpg"):
            if (match := SAMPLE.fullmatch(path.name)) and plain(path, path.with_suffix(".json")):
                found[int(match[1]), int(match[2])] = path
        return found

    def captions(self, index):
        """The newest whole .prompts of an index, or None."""
        record = None
        for number in GENERATIONS:
            path = self.folder / f"{index // 1000:06d}" / f"{index}.prompts{number}"
            with contextlib.suppress(OSError, ValueError):
                value = json.loads(read_plain(path))
                if isinstance(value, dict) and value.get("prompt_index") == index:
                    record = value
        return record

    def check_question(self, prompt, n):
        """An LLM is asked for so many captions: they must be missing, by the folder's own files."""
        index = int(prompt.split()[4])
        record = self.captions(index)
        images = {aug for number, aug in self.images() if number == index}
        # of an image or a JSON that is gone: the caption stands all the same
        said = self._told_by_jsons(index) | self._told_by_images(index)
        standing = images | said | {0} | set(range(len(record["texts"])) if record else ())
        missing = self.images_per_prompt - len(standing)
        assert n == missing, f"prompt {index}: {n} captions asked for, {missing} are missing"

    def _told_by_jsons(self, index):
        found = set()
        for path in self.folder.glob(f"*/{index}_*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(read_plain(path))
                if record["prompt_index"] == index and record["augmented_prompt"]:
                    found.add(record["augmentation_idx"])
        return found

    def _told_by_images(self, index):
        found = set()
        for path in self.folder.glob(f"*/{index}_*.jpg"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with Image.open(io.BytesIO(read_plain(path))) as image:
                    record = json.loads(image.info["comment"])
                if record["prompt_index"] == index and record["augmented_prompt"]:
                    found.add(record["augmentation_idx"])
        return found

    def check(self):
        """Each sample is whole, is what its name says, and agrees with itself."""
        for (index, aug), path in self.images().items():
            data = path.read_bytes()
            record = json.loads(path.with_suffix(".json").read_bytes())
            with Image.open(path) as image:
                carried = json.loads(image.info["comment"])
            assert (record["prompt_index"], record["augmentation_idx"]) == (index, aug), path
            assert record["image_sha256"] == hashlib.sha256(data).hexdigest(), path
            assert carried["augmented_prompt"] == record["augmented_prompt"], path
            assert record["original_prompt"] == self.item(index)["prompt"], path

    def check_done(self):
        """All is there once: each caption of each prompt is an image, and nothing beside it."""
        self.check()
        samples = self.images()
        for index in range(self.total):
            record = self.captions(index)
            assert record, f"prompt {index} has no captions"
            texts = [text["text"] for text in record["texts"]]
            assert len(texts) >= self.images_per_prompt, f"prompt {index} has too few captions"
            for aug, text in enumerate(texts):
                assert (index, aug) in samples, f"{index}_{aug} is missing"
                path = samples.pop((index, aug))
                said = json.loads(path.with_suffix(".json").read_bytes())["augmented_prompt"]
                assert said == text, f"{path}: {said!r} beside {text!r}"
        assert not samples, f"images without a caption: {sorted(samples)}"
