"""How far a data set is when no job server runs: counted from its files.

print("\n".join(lines_of(output_root, "HPDv2")))
"""

import shlex
import sys
from pathlib import Path

from common.console import INDENT
from generate.dataset.definition import stored_definition
from generate.dataset.layout import FOLDER
from generate.dataset.scan import scan_folder
from generate.protocol.output_root import dataset_folder


def lines_of(root: Path, name: str) -> list[str]:
    """The counts as lines; empty if there is no such data set. ValueError: it is damaged."""
    folder = dataset_folder(root, name)
    definition = stored_definition(folder)
    if definition is None:
        return []
    total = definition["total"]
    done = images = failed = 0
    for number in range(-(-total // FOLDER)):
        for files in scan_folder(folder, number).values():
            done += files.done(definition["images_per_prompt"])
            images += len(files.images & files.jsons)
            failed += len(files.failed)
    share = 100 * done / total
    server = f"python generate/image_server.py --output_root {shlex.quote(str(root))}"
    lines = [
        f"no job server runs for {root}; this is counted from the files:",
        f"{name:10s} {done:,} of {total:,} prompts done ({share:.1f} %), {images:,} images"
        + (f", {failed:,} given up" if failed else ""),
        f"{INDENT}{definition.get('model')}, {definition['images_per_prompt']} images a prompt, "
        f"begun {definition.get('created', '')}",
        f"{INDENT}images: {folder}",
    ]
    if done < total:
        lines.append(f"{INDENT}go on: the command that began it; its options: {folder}/run.yaml")
    lines.append(f"{INDENT}the page shows its images, too: {server}")
    return lines


def interrupted(done: int, total: int, images: int) -> str:
    """What a run that was stopped says last."""
    return (
        f"stopped at {done:,} of {total:,} prompts, {images:,} images; nothing is lost. Type it "
        f"again to go on:\n{shlex.join(['python', *sys.argv])}"
    )
