"""Some prompts of one sub-folder: every file read once, every text judged.

    done = check_chunk(Judge(validation), Chunk(path, "HPDv2/000012", "HPDv2.json", prompts))
    done.found, done.facts, done.licences

This is what worker processes do; what comes back is small.
"""

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from common import safety
from common.given_up import read_given_up
from common.packed_folder import COLLECTED, MARK, packed, read_file
from common.sample_reader import CAPTIONS_BYTES, read_captions
from common.terms import source_of
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, open_untrusted, read_untrusted
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.table import JSON_FIELDS, key_of
from postprocess_dataset.verification.evidence import Sample, absent
from postprocess_dataset.verification.names import PromptNames
from postprocess_dataset.verification.samples import Facts, Image, Look, check_sample

if TYPE_CHECKING:
    from common.validation_set import ValidationSet

# A sample's fields that may hold words of somebody; hashes, sizes and times do not, and what an
# image shall not show (negative_prompt) may name anything.
TOLD = (
    "source",
    "input_file",
    "model_name",
    "llm_model_name",
    "scheduler",
    "lora",
    "left_out",
    "truncated",
    "dtype",
    "library_versions",
    "quantize",
    "quantize_args",
    "attention_backend",
    "offload",
)
DIGITS = re.compile(r"[\d_/]+")  # of a key, which stands in tars and tables
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')  # of JSON: values and names, without the scores

Licences = Counter[
    tuple[str, tuple[str, ...]]
]  # ("source", (a, b)), ("llm", (name,)), ("model", …)


@dataclass(frozen=True)
class Chunk:
    """prompts: of a folder at `path`; stems: samples with other names.

    has_captions: whether each prompt should have a .prompts (the published script wrote none).
    tars: packed ones, with the sha256 that the mark states. in_tars: of the samples that are in
    tars whose writer has hashed them, print and sha256 of the image.
    """

    path: str
    subdirectory: str
    prompts: Sequence[tuple[int, PromptNames]]
    stems: Sequence[str] = ()
    has_captions: bool = True
    tars: Sequence[tuple[str, str | None]] = ()
    in_tars: Mapping[str, Image] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The keys of its samples."""
        stems = [f"{index}_{n}" for index, names in self.prompts for n in names.samples]
        return [key_of(self.subdirectory, stem) for stem in (*stems, *self.stems)]

    @cached_property
    def is_loose(self) -> bool:
        """Whether nothing is packed; a look for each file took a fifth of the time to read it."""
        return not os.path.lexists(f"{self.path}/{MARK}")


@dataclass
class Checked:
    """What a chunk gave. done: prompts of which nothing is missing. given_up: images.

    facts: of each sample, and without any hash of those that should be there and are not.
    """

    found: Findings = field(default_factory=Findings)
    facts: list[Sample] = field(default_factory=list)
    samples: int = 0
    given_up: int = 0
    licences: Licences = field(default_factory=Counter)
    done: list[int] = field(default_factory=list)
    wanted: int = 0  # images that the LLMs' texts fell short
    bytes: int = 0


class Judge:
    """Judges texts: safety always, the validation set if there is one."""

    def __init__(self, validation: "ValidationSet | None" = None) -> None:
        self.validation = validation
        safety.find("")  # makes its tables: workers that are forked later need not, 0.13 s each

    def judge(self, place: str, texts: Sequence[str], found: Findings) -> None:
        """A finding for each text that is unsafe, or of the validation set."""
        # A lone surrogate is no text that could be embedded.
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        for text in texts:
            _judge_safety(place, text, found)
        if self.validation is None:
            return
        for text, match in zip(texts, self.validation.find_all(texts), strict=True):
            if match:
                found.add("validation_leak", place, f"{match.how}: {text[:80]!r}")


def _judge_safety(place: str, text: str, found: Findings) -> None:
    seen = safety.find(text)
    if why := seen.minors or seen.sexual or seen.hate:
        found.add("unsafe_text", place, f"{why!r} in {text[:80]!r}")


class Beside:
    """Judges what is published beside captions: the original prompt, names, further fields.

    Nearly all of it is the same from sample to sample, and is judged once.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.same: set[bytes] = set()  # all fields of a sample together

    def judge(
        self, place: str, record: dict[str, Any], captions: Collection[str], found: Findings
    ) -> None:
        """captions: judged already."""
        texts = {DIGITS.sub(" ", place)}
        if record["original_prompt"] not in captions:
            texts.add(record["original_prompt"])
        told = [record.get(name) for name in TOLD]
        further = {name: record[name] for name in record.keys() - JSON_FIELDS.keys()}
        try:
            fields = orjson.dumps([told, further], option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits, many levels
            fields = b""
        if not fields or fields not in self.same:
            self.same.add(fields)
            with contextlib.suppress(RecursionError):  # no table takes a JSON of so many levels
                values = json.dumps([told, further], ensure_ascii=False)
                texts.add(", ".join(STRING.findall(values)))
        for text in texts - self.seen:
            self.seen.add(text)
            _judge_safety(place, text.encode("utf-8", "replace").decode(), found)


def check_chunk(judge: Judge, chunk: Chunk) -> Checked:
    """Read and compare all files of the chunk."""
    done = Checked()
    beside = Beside()
    for index, names in chunk.prompts:
        _prompt(judge, beside, chunk, index, names, done)
    for stem in chunk.stems:
        key = key_of(chunk.subdirectory, stem)
        look = Look(key, None, None, None, chunk.in_tars.get(key))
        facts = _sample(chunk, look, stem, done, hashlib.sha256())
        if facts.record:
            caption = facts.record["augmented_prompt"]
            judge.judge(facts.key, [caption], done.found)
            beside.judge(facts.key, facts.record, [caption], done.found)
    for name, sha256 in chunk.tars:
        with os.fdopen(open_untrusted(f"{chunk.path}/{name}"), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                why = f"its bytes are not those that {MARK} states"
                done.found.add("wrong_hash", f"{chunk.subdirectory}/{name}", why)
    return done


def _prompt(
    judge: Judge, beside: Beside, chunk: Chunk, index: int, names: PromptNames, done: Checked
) -> None:
    place = f"{chunk.subdirectory}/{index}"
    before = done.found.counts.total()
    jsons = hashlib.sha256()
    record = _captions(chunk, index, names, done)
    texts = None if record is None else [text["text"] for text in record["texts"]]
    judged = set(texts or ())
    originals = set()
    for augmentation in sorted(names.images ^ names.jsons):
        there, gone = ("json", "jpg") if augmentation in names.jsons else ("jpg", "json")
        done.found.add("missing", f"{place}_{augmentation}.{gone}", f"its .{there} is there")
        done.facts.append(absent(f"{place}_{augmentation}"))
    captions = []
    for augmentation in sorted(names.samples):
        stem = f"{index}_{augmentation}"
        caption = None
        if texts is not None and augmentation >= len(texts):
            done.found.add("foreign", f"{place}_{augmentation}", "its .prompts has no such text")
        elif texts is not None:
            caption = texts[augmentation]
        key = key_of(chunk.subdirectory, stem)
        look = Look(key, index, augmentation, caption, chunk.in_tars.get(key))
        facts = _sample(chunk, look, stem, done, jsons)
        if facts.record:
            originals.add(facts.record["original_prompt"])
            beside.judge(facts.key, facts.record, judged, done.found)
        if facts.record and caption is None:
            captions.append(facts.record["augmented_prompt"])
    if record and originals - {record.get("original_prompt")}:
        done.found.add("caption_differs", f"{place}.prompts", "its images have another prompt")
    if done.found.counts.total() == before:
        _collected(chunk, index, jsons.digest(), done.found)
    judge.judge(place, captions, done.found)
    damaged = _damaged_marks(chunk, index, names)
    given_up = names.failed - names.samples - damaged.keys()
    done.given_up += len(given_up)
    if texts is None:
        return
    judge.judge(f"{place}.prompts", texts, done.found)
    missing = set(range(len(texts))) - given_up - names.images - names.jsons
    for augmentation in sorted(missing):
        why = damaged.get(augmentation, "neither an image nor .failed")
        mend = ""
        if _lies_in_tar(chunk.path, index, augmentation):
            why = f"it lies in a tar, and {MARK} does not list it"
            mend = f"mark {chunk.path}"
        done.found.add("missing", f"{place}_{augmentation}", why, mend=mend)
        done.facts.append(absent(f"{place}_{augmentation}"))
    if set(range(len(texts))) <= given_up | names.samples:
        done.done.append(index)


def _damaged_marks(chunk: Chunk, index: int, names: PromptNames) -> dict[int, str]:
    """{augmentation: why its .failed counts for nothing}; where an image is, that counts."""
    damaged = {}
    for augmentation in names.failed - names.samples:
        try:
            read_given_up(f"{chunk.path}/{index}_{augmentation}.failed")
        except (OSError, ValueError) as error:
            damaged[augmentation] = str(error)
    return damaged


def _collected(chunk: Chunk, index: int, jsons: bytes, found: Findings) -> None:
    """A .samples holds the JSONs of its prompt; readers take it for them."""
    path = f"{chunk.path}/{index}{COLLECTED}"
    try:
        content = read_file(path, CAPTIONS_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        found.add("torn", path, f"cannot be read: {error.strerror}")
        return
    if hashlib.sha256(content).digest() != jsons:
        place = f"{chunk.subdirectory}/{index}{COLLECTED}"
        # a packed one cannot be renamed: the mark is made again from what its tars hold
        mend = f"file {path}" if os.path.lexists(path) else f"mark {chunk.path}"
        found.add("wrong_hash", place, "its lines are not the JSONs", mend=mend)


def _lies_in_tar(folder: str, index: int, augmentation: int) -> bool:
    """Whether a packed sub-folder's tars hold a sample that its mark does not list."""
    try:
        mark = packed(folder)
        files = mark.files_of(index) if mark else {}
    except OSError:  # a damaged tar, which is named as such
        return False
    return {f"{index}_{augmentation}.{kind}" for kind in ("jpg", "json")} <= files.keys()


def _captions(chunk: Chunk, index: int, names: PromptNames, done: Checked) -> dict[str, Any] | None:
    """The .prompts of a prompt; None where there is no .prompts that says."""
    if not chunk.has_captions:
        return None
    place = f"{chunk.subdirectory}/{index}.prompts"
    if not names.generation:
        done.found.add("missing", place, "its images are there")
        return None
    try:
        record = read_captions(Path(chunk.path), index, names.generation)
    except OSError as error:
        done.found.add("torn", place, f"cannot be read: {error.strerror}")
        return None
    except ValueError as error:
        done.found.add("torn", place, str(error))
        return None
    short = record.get("short")
    done.wanted += short["missing"] if isinstance(short, dict) else 0
    return record


def _sample(chunk: Chunk, look: Look, stem: str, done: Checked, jsons: Any) -> Facts:
    """Check a sample; the bytes of its JSON are added to the hash `jsons`."""
    image = _read(f"{chunk.path}/{stem}.jpg", IMAGE_BYTES, chunk.is_loose)
    content = _read(f"{chunk.path}/{stem}.json", SAMPLE_BYTES, chunk.is_loose)
    jsons.update(content if isinstance(content, bytes) else b"")
    facts = check_sample(look, image, content, done.found)
    hashes = (facts.sha256, facts.caption, facts.facts, facts.picture, facts.print)
    done.facts.append((facts.key, *hashes))
    done.samples += 1
    done.bytes += len(image) if isinstance(image, bytes) else 0
    if facts.record:
        _count_licences(facts.record, done.licences)
    return facts


def _count_licences(record: dict[str, Any], licences: Licences) -> None:
    sources = record.get("source") or [source_of(record["input_file"])]
    licences["source", tuple(sorted(set(sources)))] += 1
    licences["model", (record["model_name"],)] += 1
    if record.get("llm_model_name"):
        licences["llm", (record["llm_model_name"],)] += 1


def _read(path: str, limit: int, loose: bool) -> bytes | OSError:
    try:
        if loose:
            with contextlib.suppress(FileNotFoundError):  # it may be packed by now
                return read_untrusted(path, limit)
        return read_file(path, limit)
    except OSError as error:
        return error
