"""Make the mark PACKED of a sub-folder again, from its tars alone.

prompts = remake_mark(Path("HPDv2/000012"))        # how many

For a mark that is damaged or lost: without it nothing of what was packed counts. The damaged one
stays as PACKED.damaged.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import keep_damaged
from common.json_text import parse_json
from common.number_ranges import ranges
from common.packed_folder import FILE, MARK, TAR, shortfall
from common.packed_tar import HEADER, Member, members
from common.untrusted import open_untrusted
from postprocess_dataset.packing.loose_file import generation_of
from postprocess_dataset.packing.publish_mark import publish_mark
from postprocess_dataset.tar_header import END, padded

CAPTIONS_BYTES = 64 << 20


def remake_mark(folder: Path) -> int:
    """Write FOLDER/PACKED from the tars in it; the number of prompts.

    UserError: a tar is damaged, so its files are not known. OSError: the disk.
    """
    names = sorted(name for name in os.listdir(folder) if TAR.fullmatch(name))
    if not names:
        raise UserError(f"{folder}: there is no tar to make {MARK} of")
    tars = []
    entries: dict[str, dict[str, Any]] = {}
    for number in range(int(names[-1][5:10]) + 1):
        name = f"part-{number:05d}.tar"
        if name not in names:  # the mark names it as missing, and it keeps its number
            tars.append({"name": name, "bytes": 0, "sha256": ""})
            continue
        try:
            with os.fdopen(open_untrusted(folder / name), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            _add(entries, number, list(members(folder / name, 0, size - END)))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder / name} is damaged too ({error}); restore it from a backup, or move it "
                "away: its prompts are then generated again"
            ) from None
        tars.append({"name": name, "bytes": size, "sha256": digest})
    prompts = {index: _finished(entry) for index, entry in entries.items()}
    if os.path.lexists(folder / MARK):
        keep_damaged(folder / MARK)
    publish_mark(folder, {"format": 1, "tars": tars, "prompts": prompts})
    return len(prompts)


def _add(entries: dict[str, dict[str, Any]], tar: int, files: list[tuple[str, Member]]) -> None:
    """Add the files of one tar: those of a prompt follow each other."""
    last = ""
    for name, member in files:
        match = FILE.fullmatch(name)
        if match is None:
            raise ValueError(f"it holds {name!r:.80}, which is no file of a prompt")
        entry = entries.setdefault(
            match[1],
            {"at": [], "jpg": set(), "json": set(), "captions": None, "generation": 0},
        )
        stop = member.offset + padded(member.size)
        if match[1] != last:
            entry["at"].append([tar, member.offset - HEADER, 0])
        last = match[1]
        span = entry["at"][-1]
        span[2] = stop - span[1]
        kind = match[3]
        if match[2] is not None and kind in ("jpg", "json"):
            entry[kind].add(int(match[2]))
        elif match[2] is None and (generation := generation_of(name)):
            _add_captions(entry, generation, member)


def _add_captions(entry: dict[str, Any], generation: int, member: Member) -> None:
    if generation < entry["generation"]:
        return
    record = parse_json(member.read(CAPTIONS_BYTES))
    if not isinstance(record, dict) or not isinstance(record.get("texts"), list):
        raise ValueError("a .prompts in it holds no texts")
    try:
        short = shortfall(record.get("short"))
    except ValueError:
        short = None  # of a .prompts that somebody edited: its images count all the same
    entry |= {"generation": generation, "captions": len(record["texts"]), "short": short}


def _finished(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as packing.py writes it."""
    return {
        "at": entry["at"],
        "images": ranges(entry["jpg"] & entry["json"]),
        "failed": "",
        "captions": entry["captions"],
        "generation": entry["generation"],
        "short": entry.get("short"),
    }
