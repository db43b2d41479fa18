"""verify_dataset.py DIR --manifest: check a download by its MANIFEST.json alone."""

import os

from common.command_line import DONE, FAILED, UserError
from common.console import visible
from postprocess_dataset.manifest.card import check_card
from postprocess_dataset.manifest.manifest import NAME, check_manifest
from postprocess_dataset.progress import Progress

AGAIN = "download it again; if that changes nothing, tell its publisher"


def verify_download(folder: str) -> int:
    """Print what was found; the exit status. UserError: there is no manifest, or nothing in it."""
    progress = Progress("samples")
    try:
        download = check_manifest(folder, progress)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: there is no such file; a release has one, "
            "a folder of a run is verified without --manifest"
        ) from None
    except ValueError as error:
        raise UserError(f"{error}; download it again") from None
    finally:
        progress.close()
    counts: dict[str, int] = {}
    for path, count in download.samples.items():
        form = "parquet" if path.endswith(".parquet") else "webdataset"
        counts[form] = counts.get(form, 0) + count
    found = download.found
    check_card(folder, counts, found)
    if not counts and not found.counts:
        raise UserError(f"{folder}: {NAME} lists no shard with samples: nothing was checked")
    for line in found.lines(download.allowed, AGAIN):
        print(visible(line))
    shown = ", ".join(f"{count:,} samples in {form}" for form, count in sorted(counts.items()))
    if found.counts.keys() - set(download.allowed):
        print(f"{visible(folder)}: DAMAGED; {shown or 'no shard is whole'}")
        return FAILED
    if hidden := sorted(name for name in os.listdir(folder) if name.startswith(".")):
        print(f"not looked at: {visible(', '.join(hidden))} (names with a leading dot)")
    print(f"{visible(folder)}: all as in {NAME}; {shown}")
    print(f"root {download.root}: compare it with the one that the publisher states")
    return DONE
