"""The mark PACKED, on disk: from then on the tars count, and the loose files that it lists do not.

publish_mark(Path("HPDv2/000012"), {"format": 1, "tars": […], "prompts": {…}})
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.files import write_whole
from common.json_text import parse_json
from common.packed_folder import DAMAGE, MARK, MARK_BYTES, PackedFolder
from common.untrusted import Refused


def publish_mark(folder: Path, record: dict[str, Any], names: Iterable[str] = ()) -> None:
    """Write FOLDER/PACKED, once it was read as every reader reads it, and lists all `names`.

    Refused (an OSError): readers would not take it; the mark of before stands. OSError: the disk.
    """
    text = json.dumps(record) + "\n"
    try:
        if len(text) > MARK_BYTES:
            raise ValueError(f"it is larger than {MARK_BYTES:,} bytes")
        tars: list[Path | None] = [folder / tar["name"] for tar in record["tars"]]
        mark = PackedFolder(folder, parse_json(text), tars)
        if lost := [name for name in names if not mark.find(name)]:
            raise ValueError(f"it would not list {lost[0]}")
    except DAMAGE as error:
        why = f"nothing is packed: no reader would take it ({error})"
        raise Refused(why, folder / MARK) from None
    write_whole(folder / MARK, text, temporary=".PACKED.tmp")
