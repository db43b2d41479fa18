"""verify_dataset.py without --manifest: verify, repair, print the findings, write the manifest."""

import json
import os
from pathlib import Path

from common.command_line import DONE, FAILED, UserError
from common.console import visible
from common.files import read_json, write_whole
from postprocess_dataset.manifest.manifest import NAME, write_manifest
from postprocess_dataset.manifest.shards import Unreadable
from postprocess_dataset.own_files import refuse_other
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import refuse_name
from postprocess_dataset.verification.repair import repair
from postprocess_dataset.verification.verify import Report, VerifySettings, verify

REPORT_BYTES = 1 << 26


def run(settings: VerifySettings, path: str, mend: bool) -> int:
    """Print what was found and write it to `path`; the exit status.

    mend: repair what can be, and verify again. UserError: a named file or folder is not there.
    """
    if not path or Path(path).is_dir():
        raise UserError(f"--report {path!r}: give the name of a file")
    if not Path(settings.scratch).is_dir():
        raise UserError(f"--report {path}: there is no folder {settings.scratch}")
    refuse_name(path, ".json", "a verification's report")
    _refuse_other_json(path)
    if settings.tars:
        refuse_other(os.path.join(settings.tars, NAME), NAME)
    report = verify(settings)
    if mend and report.found.mends:
        for line in repair(settings, report):
            print(f"mended: {visible(line)}", flush=True)
        report = verify(settings)
    try:
        show(report)
    finally:  # a full disk under standard output loses no hours of reading
        write_whole(path, json.dumps(report.document(), indent=1) + "\n")
    if not report.counted["samples"]:
        raise UserError(f"{', '.join(settings.folders)}: no sample there: nothing was checked")
    if not report.good:
        print(f"NOT GOOD: see above, and {visible(path)}")
        return FAILED
    print("all agree")
    if settings.tars:
        root = manifest(settings.tars, report)
        print(f"root {root} of {visible(os.path.join(settings.tars, NAME))}")
    return DONE


def _refuse_other_json(path: str) -> None:
    """UserError if the path holds another JSON than a report, such as a sample's."""
    try:
        document = read_json(path, REPORT_BYTES)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or "good" not in document:
        raise UserError(f"--report {path}: there is another file; give another name")


def manifest(folder: str, report: Report) -> str:
    """Write the manifest of verified tars; its root."""
    progress = Progress("samples in the manifest")
    try:
        # The run's own tars say where they were made; those of make_release_forms.py do not.
        return write_manifest(folder, progress, ["private_field"], report.known)
    except Unreadable as error:
        raise UserError(f"{error}; it has changed since it was verified") from None
    finally:
        progress.close()


def show(report: Report) -> None:
    """Counts, what was found, and what was not looked at."""
    counted = ", ".join(f"{count:,} {name}" for name, count in report.counted.items())
    print(f"counted: {counted.replace('_', ' ')}")
    for line in report.found.lines(report.allowed):
        print(visible(line))
    for line in report.not_checked:
        print(f"not checked: {visible(line)}")
