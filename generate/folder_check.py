"""What a data set folder says about a block of 1,000 indices, for the ledger: which are done, with how many images.

    found = check_block(dataset_dir, 12, 1000, images_per_prompt, samples.scan_folder, trust_complete=False)

A folder of 1,000 finished indices carries a COMPLETE mark (JSON, with the figures per index), by which the rebuild of a lost ledger goes fast.
"""

import contextlib
import json
import os
from pathlib import Path

BLOCK = 1000


def finished(files, images_per_prompt):
    """{index: (images, missing)} of the done indices among files, {index: samples.IndexFiles}.

    Done: every text of the newest .prompts has an image with its JSON or is .failed, and there are as many texts as the data set asks for, or
    the record says that the LLMs gave fewer of that very number. missing: how many of images_per_prompt there are not.
    """
    found = {}
    for index, file in files.items():
        if file.texts is None:
            continue
        asked = file.texts + (file.short or {}).get("missing", 0)
        pairs = file.images & file.jsons
        if asked >= images_per_prompt and all(aug in pairs or aug in file.failed for aug in range(file.texts)):
            images = sum(aug in pairs for aug in range(file.texts))
            found[index] = (images, max(0, asked - images))
    return found


def check_block(dataset_dir, block, size, images_per_prompt, scan_folder, trust_complete):
    """{index: (images, missing)} of the done indices of a block. Keeps its COMPLETE mark: written when all are done, else removed.

    trust_complete: a mark for this very number of images stands for the folder's names (only when a lost ledger is rebuilt).
    """
    mark = Path(dataset_dir) / f"{block:06d}" / "COMPLETE"
    if trust_complete:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            stored = json.loads(mark.read_bytes())
            if stored["images_per_prompt"] == images_per_prompt and stored["size"] == size:
                short = {int(index): tuple(figures) for index, figures in stored["short"].items()}
                return {index: short.get(index, (images_per_prompt, 0)) for index in range(block * BLOCK, block * BLOCK + size)}
    found = finished(scan_folder(dataset_dir, block), images_per_prompt)
    if len(found) == size:
        write_complete(mark, size, images_per_prompt, found)
    else:
        mark.unlink(missing_ok=True)
    return found


def write_complete(mark, size, images_per_prompt, found):
    """The COMPLETE mark with counts; indices that are short stand in it with their own. A mark that says just this is left alone."""
    short = {str(index): figures for index, figures in sorted(found.items()) if figures != (images_per_prompt, 0)}
    content = {"size": size, "images_per_prompt": images_per_prompt, "images": sum(images for images, _ in found.values()), "short": short}
    line = json.dumps(content) + "\n"
    if mark.exists() and mark.read_text() == line:
        return
    draft = mark.with_name(f".COMPLETE.{os.getpid()}.tmp")
    with open(draft, "w") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, mark)
