"""All images of a data set, scored into a table; what is there already is not scored again.

    scores = FolderScores("generated_images/HPDv2", "scores", "nsfw,dhash")
    scores.run(0, 1)                      # the first of one part
    scores.summary(); scores.problems

A prompt's images are in one part, so that near duplicates among them are found. What is computed is
published every minute: a killed process loses no more.
"""

import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy

from common.command_line import UserError
from common.json_form import SHA256, has_form, number
from common.sample_reader import Sample, iterate
from common.scores import dhash
from common.scores.interface import load_scores, values_of
from common.untrusted import open_jpeg
from postprocess_dataset import near_table, score_table, table
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft, refuse_samples
from postprocess_dataset.release_folder import FIRST, work_folder
from postprocess_dataset.score_table import ScoreTable
from postprocess_dataset.scored import near_images
from postprocess_dataset.scored.embeddings import packed

BATCH = 32
MOST_PIXELS = 8192 * 8192  # of one image, and of those that are scored at once: 200 MB
DECODERS = 2  # threads; Pillow decodes outside of the interpreter's lock
PUBLISH_EVERY_S = 60
MOST_ROWS = 20_000  # of a file
DHASH = "dhash"
SHOWN = 5  # problems in the summary
Row = dict[str, Any]


@dataclass
class Found:
    """A sample to be scored. pixels None: its JSON holds all scores that are asked for.

    image: before it is decoded.
    """

    sample: Sample
    row: Row
    pixels: Any = None
    image: Any = None


@dataclass
class FolderScores:
    """folder: of samples; output: the table's folder; words: as after --scores."""

    folder: str
    output: str
    words: str
    problems: list[str] = field(default_factory=list)
    scored: int = 0
    taken: int = 0  # from the JSONs
    known: int = 0  # in the table already
    near: near_images.Compared | None = None  # all images with each other

    def __post_init__(self) -> None:
        """UserError: no such folder or score, or a table of other scores."""
        if not os.path.isdir(self.folder):
            raise UserError(f"{self.folder}: no such folder; give that of a data set")
        words = [word.strip() for word in self.words.split(",") if word.strip()]
        self.hashes = DHASH in words
        others = [word for word in words if word != DHASH]
        self.scores = load_scores(",".join(others)) if others or not self.hashes else []
        versions = {score.name: score.version for score in self.scores}
        licences = {score.name: score.licence for score in self.scores}
        if self.hashes:
            versions[DHASH] = dhash.VERSION
        self.facts: score_table.Facts = {"scores": versions, "licences": licences}
        embed = [score for score in self.scores if self.hashes and hasattr(score, "vectors")]
        self.embeds: Any = embed[0] if embed else None  # a score whose embeddings are kept
        if self.embeds:
            self.facts[score_table.EMBEDDING] = self.embeds.name
        self.seen: dict[str, str | None] = {}  # key -> sha256 of its image
        self.prints: dict[str, dict[str, int]] = {}  # prompt -> key -> fingerprint
        refuse_samples(self.output)
        release = os.path.dirname(os.path.realpath(self.output))
        if os.path.exists(os.path.join(work_folder(release), FIRST)):
            raise UserError(
                f"{self.output} lies in a release, which replaces it: choose a folder outside, and "
                "give it to release.py with --scores"
            )
        if self.hashes:
            near_table.refuse_other(self.output)
        if score_table.files_of(self.output):
            self._take_over(ScoreTable.read(self.output))

    def _take_over(self, old: ScoreTable) -> None:
        if old.facts["scores"] != self.facts["scores"]:
            raise UserError(
                f"{self.output} holds the scores {_said(old.facts)}, and asked for are "
                f"{_said(self.facts)}: choose another OUTPUT"
            )
        rows = old.rows
        keys = rows[score_table.KEY].to_pylist()
        self.seen = dict(zip(keys, rows["image_sha256"].to_pylist(), strict=True))
        if self.hashes:
            for key, value in zip(keys, rows[DHASH].to_pylist(), strict=True):
                if value is not None:
                    self.prints.setdefault(prompt_of(key), {})[key] = int(value, 16)

    # ------------------------------------------------------------ one part

    def run(self, number: int, count: int) -> None:
        """Score what this part of the prompts lacks. OSError of the disk that is written to."""
        table.refuse_no_utf8(self.output)
        os.makedirs(self.output, exist_ok=True)
        stem = os.path.join(self.output, f"part-{number:05d}-of-{count:05d}")
        rows: list[Row] = []
        at = time.monotonic()
        with Draft(f"{stem}.lock"), ThreadPoolExecutor(DECODERS) as pool:
            progress = Progress("images")
            for batch in self._batches(number, count, pool):
                rows += self._score(batch)
                progress.add(len(batch))
                if len(rows) >= MOST_ROWS or time.monotonic() - at > PUBLISH_EVERY_S:
                    self._publish(rows, stem)
                    rows = []
                    at = time.monotonic()
            if rows:
                self._publish(rows, stem)
            progress.close()
        if self.hashes and count == 1 and score_table.files_of(self.output):
            self.near = near_images.compare(self.output)

    def _publish(self, rows: list[Row], stem: str) -> None:
        numbers = [int(path.split(".")[-2]) for path in score_table.files_of(self.output)]
        number = max(numbers, default=-1) + 1  # of all parts: a later row counts before an earlier
        score_table.publish(rows, f"{stem}.{number:06d}.parquet", self.facts)

    def _batches(self, number: int, count: int, pool: ThreadPoolExecutor) -> Iterator[list[Found]]:
        batch: list[Found] = []
        for sample in iterate(self.folder, self.problems.append):
            key = self._key(sample)
            if zlib.crc32(prompt_of(key).encode()) % count != number:
                continue
            sha256 = sample.metadata.get("image_sha256")
            if not has_form(sha256, (None, SHA256)):
                self.problems.append(f"{sample.key}.json: its image_sha256 is {sha256!r:.40}")
                continue
            if key in self.seen and self.seen[key] == sha256:
                self.known += 1
                continue
            row = {score_table.KEY: key, "image_sha256": sha256}
            batch.append(Found(sample, row))
            if len(batch) == BATCH:
                yield from self._decoded(batch, pool)
                batch = []
        if batch:
            yield from self._decoded(batch, pool)

    def _key(self, sample: Sample) -> str:
        """Its `__key__` in the table: that in a tar, or its place below the folder's parent."""
        if sample.text is not None:
            return sample.key
        folder, _, stem = f"/{sample.key}".rpartition("/")
        return table.key_of(os.path.basename(os.path.abspath(self.folder)) + folder, stem)

    def _decoded(self, batch: list[Found], pool: ThreadPoolExecutor) -> Iterator[list[Found]]:
        """Those whose pixels are there, or not needed; no more than MOST_PIXELS at once."""
        part: list[Found] = []
        for found in pool.map(self._open, batch):
            if found is None:
                continue
            if sum(map(_size, [*part, found])) > MOST_PIXELS:
                yield self._decode_all(part, pool)
                part = []
            part.append(found)
        yield self._decode_all(part, pool)

    def _open(self, found: Found) -> Found | None:
        """Without its pixels: a header of some bytes can state 169 million of them."""
        own = self._own(found.sample)
        if own is not None:
            found.row |= own
            self.taken += 1
            if not self.hashes:
                return found
        try:
            found.image = open_jpeg(found.sample.jpeg())
            if _size(found) > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
        except Exception as error:  # whatever a damaged image makes Pillow raise
            self._leave_out(found, error)
            return None
        return found

    def _decode_all(self, part: list[Found], pool: ThreadPoolExecutor) -> list[Found]:
        return [found for found in pool.map(self._decode, part) if found is not None]

    def _decode(self, found: Found) -> Found | None:
        if found.image is None:
            return found
        try:
            found.pixels = numpy.asarray(found.image.convert("RGB"))
        except Exception as error:
            self._leave_out(found, error)
            return None
        finally:
            found.image = None
        return found

    def _leave_out(self, found: Found, error: Exception) -> None:
        self.problems.append(f"{found.sample.key}.jpg: cannot be read: {error}")

    def _own(self, sample: Sample) -> Row | None:
        """The scores that the sample's JSON holds, if it holds all of these very versions."""
        versions = sample.metadata.get("score_versions")
        values = sample.metadata.get("scores")
        if not isinstance(versions, list) or not isinstance(values, dict):
            return None
        row: Row = {}
        for score in self.scores:
            value = values.get(score.name)
            if f"{score.name} {score.version}" not in versions:
                return None
            if value is not None and not number(value):
                return None
            row[f"score_{score.name}"] = None if value is None else float(value)
        return row

    def _score(self, batch: list[Found]) -> list[Row]:
        todo = [found for found in batch if f"score_{self._first}" not in found.row]
        if self.scores and todo:
            pixels = [found.pixels for found in todo]
            texts = [found.sample.caption for found in todo]
            for found, values in zip(todo, values_of(self.scores, pixels, texts), strict=True):
                found.row |= {f"score_{name}": value for name, value in values.items()}
            if self.embeds:
                for found, vector in zip(todo, packed(self.embeds.vectors), strict=True):
                    found.row[score_table.EMBEDDING] = vector
        for found in batch:
            if self.hashes:
                found.row |= self._near(found)
        self.scored += len(todo)
        return [found.row for found in batch]

    @property
    def _first(self) -> str:
        return self.scores[0].name if self.scores else ""

    def _near(self, found: Found) -> Row:
        """The image's fingerprint, and how far the nearest earlier one of its prompt is."""
        key = found.row[score_table.KEY]
        mine = dhash.fingerprint(found.pixels)
        others = self.prints.setdefault(prompt_of(key), {})
        distances = [dhash.distance(mine, value) for k, value in others.items() if k != key]
        others[key] = mine
        return {DHASH: f"{mine:016x}", "dhash_distance": min(distances, default=dhash.BITS)}

    def summary(self) -> str:
        """What was done, and what was left out."""
        said = f"{self.output}: {self.scored:,} images scored"
        said += f", {self.taken:,} taken from their JSONs" if self.taken else ""
        said += f", {self.known:,} were there" if self.known else ""
        said += f"; {self.near}" if self.near else ""
        if self.problems:
            more = " …" if len(self.problems) > SHOWN else ""
            said += f"; {len(self.problems):,} left out: {'; '.join(self.problems[:SHOWN])}{more}"
        return said


def _size(found: Found) -> int:
    """In pixels, as its header states; 0: they are not needed."""
    return found.image.width * found.image.height if found.image else 0


def prompt_of(key: str) -> str:
    """What the images of one prompt have in common: "000012/12345" of "000012/12345_3"."""
    return key.rpartition("_")[0] or key


def _said(facts: score_table.Facts) -> str:
    return ", ".join(f"{name} ({version})" for name, version in facts["scores"].items())
