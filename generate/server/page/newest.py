"""The newest images for the page, each with its prompt's original."""

import contextlib
import functools
import io
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.json_text import parse_json
from common.packed_folder import changed_ns, exists, is_plain, read_file
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, open_jpeg
from generate.dataset.captions import Captions, read_captions
from generate.dataset.layout import NAME, path_of, stem
from generate.dataset.rejected_images import RejectedImages
from generate.protocol.output_root import dataset_folder

NEWEST = 8  # prompts whose newest image is shown
MOST_FOLDERS = 1000  # sub-folders of a data set of which the newest is looked for
TEXT = 2000  # characters of a prompt
MOST_SCORES = 10  # shown under an image
SMALL = 320  # pixels of a thumbnail: 16 images of 1024 x 1024 would be 5 MB through an ssh tunnel
Json = dict[str, Any]
Candidate = tuple[str, int]  # data set, index


def newest_images(output_root: Path, candidates: Iterable[Candidate]) -> list[Json]:
    """Newest image of each prompt that is being worked on or was finished last, newest first."""
    wanted = list(dict.fromkeys(candidates))[: 4 * NEWEST]
    found = [_newest_of(output_root, dataset, index) for dataset, index in wanted]
    shown = [entry for entry in found if entry]
    return sorted(shown, key=lambda entry: entry["time"], reverse=True)[:NEWEST]


def from_folders(output_root: Path, names: Iterable[str]) -> list[Candidate]:
    """Prompts whose images lie in the data sets' newest sub-folders; packed ones are left out.

    For a server that has just started and has seen no prompt finished.
    """
    found: list[tuple[int, Candidate]] = []
    for name in list(names)[:NEWEST]:
        with contextlib.suppress(OSError):  # it has left, or is not readable
            entries = itertools.islice(os.scandir(dataset_folder(output_root, name)), MOST_FOLDERS)
            folders = [
                (entry.stat().st_mtime_ns, entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
            ]
            for entry in os.scandir(max(folders)[1]) if folders else ():
                if (match := NAME.fullmatch(entry.name)) and match[3] == "jpg":
                    then = entry.stat(follow_symlinks=False).st_mtime_ns
                    found.append((then, (name, int(match[1]))))
    newest = [candidate for _, candidate in sorted(found, reverse=True)]
    return list(dict.fromkeys(newest))[: 2 * NEWEST]


def _newest_of(output_root: Path, dataset: str, index: int) -> Json | None:
    folder = dataset_folder(output_root, dataset)
    record = _captions(output_root, dataset, index)
    if record is None:
        return None
    try:
        aug = last_generated(folder, index, len(record["texts"]))
        if aug is None:
            return None
        changed = {k: changed_ns(path_of(folder, index, k, ".jpg")) for k in (aug, 0)}
    except OSError:  # somebody takes images away, or they cannot be looked at
        return None

    def address(k: int) -> str:
        # an image that was generated again has another ?v=, or browsers would show the old one
        return f"/image/{quote(dataset)}/{stem(index, k)}?v={changed[k]}"

    return {
        "dataset": dataset,
        "index": index,
        "aug": aug,
        "prompt": record["texts"][aug]["text"][:TEXT],
        "original_prompt": record["original_prompt"][:TEXT],
        "image": address(aug),
        "original": address(0) if aug else None,
        "time": changed[aug] / 1e9,
        **_judged(path_of(folder, index, aug, ".json")),
    }


def _judged(path: Path) -> Json:
    """{"scores": {name: number or null}, "tries"} of a sample's JSON; both None without scores."""
    record: Any = None
    with contextlib.suppress(OSError, ValueError):  # not written yet, or damaged
        record = parse_json(read_file(path, SAMPLE_BYTES))
    scores = record.get("scores") if isinstance(record, dict) else None
    if not isinstance(scores, dict):
        return {"scores": None, "tries": None}
    known = {
        str(name)[:40]: value if type(value) in (int, float) else None
        for name, value in list(scores.items())[:MOST_SCORES]
    }
    tries = record.get("tries")
    return {"scores": known, "tries": tries if type(tries) is int else None}


def last_generated(folder: Path, index: int, texts: int) -> int | None:
    """Number of the last image of an index with so many texts, or None.

    They are generated in order, so a binary search finds it in 8 looks at 200 images. A gap (a
    failed image) may hide later ones; the page then shows an earlier one.
    """
    low = 0
    high = texts
    while low < high:
        middle = (low + high) // 2
        if exists(path_of(folder, index, middle, ".jpg")):
            low = middle + 1
        else:
            high = middle
    return low - 1 if low else None


def add_prompts(output_root: Path, rows: Iterable[Json]) -> None:
    """Add the original prompt to each row of failed prompts."""
    for row in rows:
        record = _captions(output_root, row["dataset"], row["index"])
        row["prompt"] = record["original_prompt"][:TEXT] if record else None


def caption_of(output_root: Path, dataset: str, index: int, aug: int) -> str | None:
    """The text of one image, or None: not published yet, or broken."""
    record = _captions(output_root, dataset, index)
    texts = record["texts"] if record else []
    return texts[aug]["text"][:TEXT] if aug < len(texts) else None


def rejected_address(output_root: Path, row: Json) -> str | None:
    """Where the page finds a rejected image that was kept (--keep_rejected); None: it was not.

    One that fails a condition on nsfw is not shown on the page.
    """
    if any("nsfw" in part for part in row["refused_by"]):
        return None
    dataset, index, aug, attempt = row["dataset"], row["index"], row["aug"], row["try"] - 1
    kept = RejectedImages(dataset_folder(output_root, dataset), 0).path_of(index, aug, attempt)
    if not is_plain(kept):
        return None
    return f"/rejected/{quote(dataset, safe='')}/{stem(index, aug)}/{attempt}"


def _captions(output_root: Path, dataset: str, index: int) -> Captions | None:
    """The .prompts record, or None: not written yet, or broken, which its client reports."""
    try:
        return read_captions(dataset_folder(output_root, dataset), index)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=128)
def thumbnail(path: str, mtime_ns: int) -> bytes:
    """The image (a JPEG's bytes) at SMALL pixels at most; mtime_ns is part of the cache's key.

    A broken image raises whatever Pillow raises for it.
    """
    data = read_file(path, IMAGE_BYTES)
    with open_jpeg(data) as image:
        if max(image.size) <= SMALL:
            return data
        image.draft("RGB", (SMALL, SMALL))
        image.thumbnail((SMALL, SMALL))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=85)
        return out.getvalue()
