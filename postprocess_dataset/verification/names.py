"""List the names in one sub-folder of a data set by prompt, and report foreign ones.

    names = list_names("/data/HPDv2/000012", "HPDv2/000012", found)
    names.prompts[12345].samples         # {0, 1, 2}: image and JSON are there, loose or packed

Reads no file but the mark of a packed sub-folder, and tars that no mark names.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from common.packed_folder import MARK, TAR, PackedFolder, packed
from common.sample_reader import FOLDER_OF_PROMPTS
from postprocess_dataset.dataset_folder import BLOCK
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.packing.unnamed_tars import first_only_in
from postprocess_dataset.sample_checks import is_utf8

NAME = re.compile(
    r"(0|[1-9][0-9]{0,11})(?:_(0|[1-9][0-9]{0,5}))?"
    r"\.(jpg|json|failed|prompts(?:[2-9]|[1-9][0-9]{1,2})?|samples)"
)
OURS = re.compile(r"COMPLETE|dataset(\.[0-9]+)?\.yaml|run\.yaml")
# Files that the run itself has renamed, and its temporary files.
FOREIGN = "no name of a data set"
ASIDE = re.compile(r"\..*|.*\.(foreign|broken|damaged)(-[0-9]+)?")


@dataclass
class PromptNames:
    """Of one prompt; images, jsons, failed: augmentations. generation: of the newest .prompts."""

    images: set[int] = field(default_factory=set)
    jsons: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    generation: int = 0

    @property
    def samples(self) -> set[int]:
        """Augmentations whose image and JSON are there."""
        return self.images & self.jsons


@dataclass
class Names:
    """What lies in a sub-folder. others: stems of samples whose name is not NUMBER_NUMBER.

    lost: samples packed in a tar that is missing or cut, by prompt. tars: name and
    stated sha256 of the others. unknown: the mark of what is packed is damaged or lost. folders:
    names of folders in it.
    """

    prompts: dict[int, PromptNames] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    lost: dict[int, list[int]] = field(default_factory=dict)
    tars: list[tuple[str, str | None]] = field(default_factory=list)
    unknown: bool = False
    folders: list[str] = field(default_factory=list)
    complete: bool = False

    def of(self, index: int) -> PromptNames:
        """The names of a prompt."""
        return self.prompts.setdefault(index, PromptNames())


def list_names(path: str, subdirectory: str, found: Findings) -> Names:
    """One listing. OSError: the folder cannot be read."""
    names = Names()
    block = _block_of(path)
    other_images = set()
    other_jsons = set()
    tars = []
    named_so = False  # something is called PACKED
    with os.scandir(path) as entries:
        for entry in entries:
            place = f"{subdirectory}/{entry.name}"
            if not is_utf8(entry.name):
                found.add("foreign", repr(place), "its name is not UTF-8")
                continue
            match = NAME.fullmatch(entry.name)
            if ASIDE.fullmatch(entry.name):
                continue
            if match and (block is None or int(match[1]) // BLOCK == block):
                if _is_file(entry):
                    _add(names.of(int(match[1])), match[2], match[3])
                else:
                    found.add("foreign", place, "is no file")
            elif match:
                found.add("foreign", place, f"belongs to {int(match[1]) // BLOCK:06d}")
            elif entry.name == MARK and block is not None:
                named_so = True
            elif entry.is_dir(follow_symlinks=False):
                names.folders.append(entry.name)
            elif block is None and entry.name.endswith(".jpg") and _is_file(entry):
                other_images.add(entry.name.removesuffix(".jpg"))
            elif block is None and entry.name.endswith(".json") and _is_file(entry):
                other_jsons.add(entry.name.removesuffix(".json"))
            elif entry.name == "COMPLETE":
                names.complete = True
            elif block is not None and TAR.fullmatch(entry.name):
                tars.append(entry.name)
            elif not OURS.fullmatch(entry.name):
                why = "is a link, which is not followed" if entry.is_symlink() else FOREIGN
                found.add("foreign", place, why)
    names.others = other_jsons & other_images
    for stem in sorted(other_jsons ^ other_images):
        found.add("missing", f"{subdirectory}/{stem}", "image or JSON is not beside the other")
    names.folders.sort()
    try:
        mark = packed(path)
    except OSError as error:
        found.add("torn", f"{subdirectory}/{MARK}", str(error.strerror), mend=f"mark {path}")
        names.unknown = True
        return names
    if mark:
        _add_packed(subdirectory, mark, names, found)
    elif named_so:
        found.add("foreign", f"{subdirectory}/{MARK}", "is no mark: no tar lies beside it")
    named = {entry["name"] for entry in mark.record["tars"]} if mark else set()
    for name in sorted(set(tars) - named):
        _check_unnamed(Path(path) / name, subdirectory, names, found)
    return names


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A file, or a link to one; a link to itself is none, while entry.is_file() raises OSError."""
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)


def _block_of(path: str) -> int | None:
    """12 of a sub-folder 000012; None of any other folder."""
    name = os.path.basename(path)
    return int(name) if FOLDER_OF_PROMPTS.fullmatch(name) else None


def _add(prompt: PromptNames, augmentation: str | None, kind: str) -> None:
    if kind.startswith("prompts"):
        prompt.generation = max(prompt.generation, int(kind[7:] or 1))
    elif augmentation is not None and kind in ("jpg", "json", "failed"):
        places = {"jpg": prompt.images, "json": prompt.jsons, "failed": prompt.failed}
        places[kind].add(int(augmentation))


def _add_packed(subdirectory: str, mark: PackedFolder, names: Names, found: Findings) -> None:
    """Add the files that the mark PACKED lists; they count like loose ones."""
    names.tars = _check_tars(subdirectory, mark, found)
    for index, packed_prompt in mark.prompts.items():
        prompt = names.of(index)
        prompt.images |= packed_prompt.images
        prompt.jsons |= packed_prompt.images
        prompt.generation = max(prompt.generation, packed_prompt.generation)
    names.lost = {index: sorted(prompt.images) for index, prompt in mark.lost.items()}


def _check_tars(
    subdirectory: str, mark: PackedFolder, found: Findings
) -> list[tuple[str, str | None]]:
    """(name, sha256 as the mark says) of the tars that are there."""
    there = []
    for entry, tar in zip(mark.record["tars"], mark.tars, strict=True):
        if tar is None:
            why = "is missing or cut; its prompts no longer count"
            found.add("unreadable_shard", f"{subdirectory}/{entry['name']}", why)
        else:
            there.append((entry["name"], entry.get("sha256")))
    return there


def _check_unnamed(tar: Path, subdirectory: str, names: Names, found: Findings) -> None:
    """A tar that no mark names: what a killed packer left is all loose, too, and is no damage."""
    place = f"{subdirectory}/{tar.name}"
    try:
        alone = first_only_in(tar)
    except OSError as error:
        found.add("foreign", place, f"{MARK} does not list it: {error.strerror}")
        return
    if alone:
        why = f"{MARK} does not list it, and its {alone} is not beside it"
        found.add("foreign", place, why, mend=f"mark {tar.parent}")
        names.unknown = True
