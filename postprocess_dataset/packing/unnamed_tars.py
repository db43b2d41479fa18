"""Tars of a sub-folder that no mark names: what a killed packer leaves, or all that is left.

    remove_unnamed_tars(Path("HPDv2/000012"), packed("HPDv2/000012"))

A packer that is killed before its mark leaves a tar whose files all lie loose as well: it goes.
Where a mark was deleted, or an older one came back from a backup, the tar may hold the only copy of
a sample: then nothing of the folder is packed until somebody has decided.
"""

import os
from pathlib import Path

from common.packed_folder import COLLECTED, MARK, TAR, PackedFolder, read_file
from common.packed_tar import HEADER, members
from common.untrusted import Refused
from postprocess_dataset.packing.loose_file import OTHER_BYTES
from postprocess_dataset.tar_header import END


def remove_unnamed_tars(folder: Path, mark: PackedFolder | None) -> None:
    """Remove each tar that `mark` does not name and whose files lie beside it, byte for byte.

    Refused (an OSError): a tar holds something that is nowhere else, or cannot be read.
    """
    named = {tar["name"] for tar in mark.record["tars"]} if mark else set()
    for name in sorted(os.listdir(folder)):
        if TAR.fullmatch(name) and name not in named:
            if alone := first_only_in(folder / name):
                raise Refused(
                    f"no {MARK} names it, and its {alone} is not beside it, so nothing of this "
                    f"folder is packed; verify_dataset.py {folder.parent} --repair makes {MARK} "
                    "again from all tars; move the tar away if it is not wanted",
                    folder / name,
                )
            (folder / name).unlink()


def first_only_in(tar: Path) -> str | None:
    """The first file of a tar that its folder lacks, or has with other bytes; None: none is.

    A .samples is derived from the JSONs beside it. OSError: the tar is damaged.
    """
    for name, member in members(tar, 0, max(tar.stat().st_size - END, HEADER)):
        if name.endswith(COLLECTED):
            continue
        packed_bytes = member.read(OTHER_BYTES)
        try:
            if read_file(tar.parent / name, member.size) != packed_bytes:
                return name
        except (FileNotFoundError, Refused):  # Refused: it is larger
            return name
    return None
