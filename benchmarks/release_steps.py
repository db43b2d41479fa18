"""What each step of release.py takes of a sample: CPU of this process and of its workers.

    python benchmarks/release_steps.py                 # 8,000 samples, 0.5 GB of images

Both forms, two workers. A step's start (imports, the report, word lists) is part of it.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_run import arguments, made_run
from postprocess_dataset.options import DataOptions
from postprocess_dataset.release_forms import make_forms
from postprocess_dataset.releasing import steps
from postprocess_dataset.verification import verify

WHERE = {
    "table": (steps, "make_table"),
    "public table": (make_forms, "make_public"),
    "tars": (make_forms, "convert"),
    "parquet": (make_forms, "write_parquet"),
    "verification: tars": (verify.TarPass, "run"),
    "verification: folder": (verify.FolderPass, "run"),
    "verification: comparison": (verify, "compare"),
    "report": (steps, "make_report_page"),
    "card": (steps, "make_card"),
    "manifest": (steps, "make_manifest"),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    parser.set_defaults(samples=8_000)
    taken = {}
    for step, (place, name) in WHERE.items():
        setattr(place, name, timed(getattr(place, name), step, taken))
    with made_run(parser.parse_args()) as run:
        settings = steps.ReleaseSettings(
            [str(run.data)],
            str(run.where / "release"),
            data=DataOptions(workers=2),
            licences=["hpd=CC0-1.0"],
            allow=["duplicate_image"],
        )
        steps.make_release(settings)
        print("\n| step | CPU s | us a sample |\n|---|---|---|")
        for step, cpu in taken.items():
            print(f"| {step} | {cpu:.2f} | {cpu / run.samples * 1e6:.0f} |")


def timed(function, step, taken):
    """The function, which notes its CPU as that of the step."""

    def call(*args, **options):
        before = os.times()
        try:
            return function(*args, **options)
        finally:
            taken[step] = sum(os.times()[:4]) - sum(before[:4])

    return call


if __name__ == "__main__":
    main()
