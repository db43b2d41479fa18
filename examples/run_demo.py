"""The whole flow on one machine, on embedded models: `make demo`, or

    .venv/bin/python examples/run_demo.py            everything, into demo/ (emptied first)
    .venv/bin/python examples/run_demo.py --table    only the last table: counts again
    VERBOSE=1 make demo                              every command and all that it says

Prompts are cleaned and combined, a job server leases them, two clients ask a small LLM for
variations and draw them with a tiny Stable Diffusion 3, and one client is killed on the way. Then
come parquet, WebDataset tars, a report, a contact sheet and a release. Each figure of the last
table is counted by an independent reader; the demo fails if two that must be equal are not.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

import argparse
import json
import shutil
from pathlib import Path

from common.command_line import UserError, run_script
from common.files import CHECKOUT
from common.number_options import whole
from examples.demo_generation import generate
from examples.demo_steps import Steps
from examples.demo_table import CHOSEN, SOURCES, Demo, shown, table_of
from generate.launch.tiny_prompts import KNOWN

DIFFERS = "the figures above do not agree: something was lost, is there twice, or shows no shape"


def main() -> int:
    args = options()
    demo = Demo(args.folder.resolve())
    if args.table and not demo.status.exists():
        raise UserError(f"no finished run lies in {shown(demo.folder)}; leave out --table")
    if not args.table:
        shutil.rmtree(demo.folder, ignore_errors=True)
        make(demo, args.prompts, args.images)
    text, agree = table_of(demo)
    print(f"\n{text}")
    if not agree:
        raise UserError(DIFFERS)
    print(f"\n{what_happened(demo)}")
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", action="store_true", help="only count again what lies in the demo's folder"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=CHECKOUT / "demo",
        help="the demo's folder (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts",
        type=whole(1, 10_000),
        default=10,
        help="prompts to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=whole(1, 10_000),
        default=10,
        help="images of each prompt, the original's included (default: %(default)s)",
    )
    return parser.parse_args()


def make(demo: Demo, prompts: int, images: int) -> None:
    """Every step, a line each."""
    steps = Steps(demo.folder / "demo.log")
    print(f"The demo: one to two minutes on two cores. All that it says: {shown(steps.path)}\n")
    with steps.step("prompts of four sources, a validation set left out"):
        make_prompts(demo, steps, prompts)
    with steps.step("images by two clients, one of them is killed", demo.drawn):
        generate(demo, steps, images)
    with steps.step("a parquet table and WebDataset tars"):
        convert(demo, steps)
    with steps.step("a report and a contact sheet"):
        look(demo, steps)
    with steps.step("a release, verified and described"):
        release(demo, steps)


def make_prompts(demo: Demo, steps: Steps, count: int) -> None:
    """From the five sources to the prompts of the demo: those that the tiny model can draw."""
    processors = [
        steps.start(
            f"combine_prompts/process_{source.lower()}.py",
            "--input",
            f"examples/{source.lower()}",
            "--output",
            demo.prompts / f"{source}.json",
        )
        for source in SOURCES
    ]
    for source, process in zip(SOURCES, processors, strict=True):
        steps.wait(process, f"process_{source.lower()}.py")
    steps.run(
        "combine_prompts/combine.py",
        *[demo.prompts / f"{source}.json" for source in SOURCES[:4]],
        "--exclude",
        demo.prompts / "gecko.json",
        "--output",
        demo.prompts / "combined.json",
    )
    combined = json.loads((demo.prompts / "combined.json").read_text())
    shapes = [item for item in combined if KNOWN.fullmatch(item["prompt"])][:count]
    demo.shapes.write_text(json.dumps(shapes, indent=1))
    steps.say(f"{len(shapes)} of the {len(combined)} prompts are such that the tiny model knows")


def convert(demo: Demo, steps: Steps) -> None:
    """To a parquet table, and to WebDataset tars: of all rows, and of those that CHOSEN takes."""
    steps.run("postprocess_dataset/convert_json_to_parquet.py", demo.dataset, demo.table)
    for folder, options in ((demo.tars, ()), (demo.subset, ("--where", CHOSEN))):
        steps.run(
            "postprocess_dataset/convert_parquet_to_wds.py",
            "--parquet_file",
            demo.table,
            "--base_dir",
            demo.dataset,
            "--output_dir",
            folder,
            "--num_workers=2",
            "--shard_size_mb",
            "1",
            *options,
        )


def look(demo: Demo, steps: Steps) -> None:
    """What a person looks at: report.html and contact_sheet.jpg."""
    steps.run(
        "postprocess_dataset/make_report.py",
        demo.table,
        demo.report,
        "--base_dir",
        demo.dataset,
        "--status",
        demo.status,
        "--name",
        "The demo's data set",
    )
    from examples.demo_pictures import draw_contact_sheet

    draw_contact_sheet(demo)


def release(demo: Demo, steps: Steps) -> None:
    """What could be published. Pick-a-Pic states no licence for its prompts: the card says so."""
    steps.run(
        "postprocess_dataset/release.py",
        demo.dataset,
        demo.release,
        "--prompts",
        demo.shapes,
        "--status",
        demo.status,
        "--allow",
        "licence_unknown",
        "--num_workers=2",
    )


def what_happened(demo: Demo) -> str:
    """What was done, where to look, where the data are, what to type next."""
    prompts = len(json.loads(demo.shapes.read_text()))
    images = len(list(demo.dataset.glob("*/*.jpg")))
    return f"""\
{prompts} prompts became {images} images. A small LLM made up variations, which keep the shapes of
their prompt and nothing else; a real LLM keeps the meaning. A tiny model drew them, and drew again
what was not right. A client that was killed on the way cost nothing.
Look at {shown(demo.sheet)}, and open {shown(demo.report)} in a browser.
The data set is {shown(demo.dataset)}, its table {shown(demo.table)}, its tars {shown(demo.tars)};
{shown(demo.release)} is what could be published of it (docs/release.md).
Next, prompts of your own, one a line in my_prompts.txt. The tiny model knows circles, squares and
triangles in red, green, blue, yellow, white and black, each time on a background, and nothing else:
"two red circles on a blue background".

    .venv/bin/python generate/generate_images.py my_prompts.txt --config examples/shapes.yaml"""


if __name__ == "__main__":
    run_script(main)
