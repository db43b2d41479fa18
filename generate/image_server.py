#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
# fmt: off
#SBATCH --job-name=image_server
#SBATCH --mem=16G
#SBATCH --cpus-per-task=4
#SBATCH --time=4320
#SBATCH --output=image_server.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
# fmt: on
"""The job server: hands out prompts to any number of clients and keeps account of every one.

    python generate/image_server.py                  # or: sbatch generate/image_server.py
    python generate/image_server.py --status         # how the run is doing, the link to its page
    python generate/image_server.py --retry_failed   # give the prompts that failed another try

One server per output root. It may be killed at any moment and started again, on another node too:
clients find it by <output root>/.server/server.json and go on. Its log is
<output root>/image_server.out.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if "SLURM_JOB_ID" in os.environ and not os.path.isdir(sys.path[0] + "/generate/server"):
    # SLURM runs a copy from its spool folder: the true path is the `Command=` of the job. The
    # arguments follow it, and it may hold blanks itself.
    import subprocess
    from pathlib import Path

    try:
        shown = subprocess.run(
            ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]],
            capture_output=True,
            text=True,
            errors="surrogateescape",
        ).stdout
    except OSError:  # it is not on PATH
        shown = ""
    commands = [line.strip() for line in shown.splitlines() if "Command=" in line]
    words = (commands or [""])[0].removeprefix("Command=").split(" ")
    paths = [Path(" ".join(words[:n])) for n in range(1, len(words) + 1)]
    found = [path for path in paths if path.name and path.with_name("server").is_dir()]
    if not found:
        sys.exit(
            "image_server: scontrol does not say where this script lies; use: "
            f"sbatch --wrap 'python {Path.cwd()}/generate/image_server.py'"
        )
    sys.path.insert(0, str(found[0].resolve().parents[1]))
    sys.argv[0] = str(found[0])
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

import argparse

from common.command_line import Options, run_script
from common.number_options import DAY_S, MANY, YEAR_S, number, whole
from generate.protocol.output_root import default_output_root

ORDERS = (  # to a running server
    "drain",
    "resume",
    "retry_failed",
    "release_quarantine",
    "forget",
    "llm_budget_usd",
    "llm_spent_usd",
    "rotate_token",
)


def main() -> int:
    args = options()
    from generate.launch import server_command

    status = server_command.run(args, ORDERS)
    if status is not None:
        return status
    from generate.server import app  # flask: only for who serves

    app.run(args)


def options() -> argparse.Namespace:
    parser = Options(__doc__)
    parser.add_argument(
        "--output_root",
        default=default_output_root(),
        help="where logs and data sets lie (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="::",
        help="address to listen on (default: all, since clients are on other nodes)",
    )
    parser.add_argument(
        "--port", type=whole(0, 65_535), help="default: 5000, else the next free one"
    )
    parser.flag("--take_over", "take the place of a server that runs already")
    parser.add_argument(
        "--while_locked", metavar="FILE", help="end once nobody locks FILE (a local run gives it)"
    )
    parser.flag("--stop_when_done", "stop once all is done and no client has asked for 10 minutes")
    parser.add_argument(
        "--ttl_s",
        type=number(0.1, DAY_S),
        default=120,
        help="seconds after which a lease without a heartbeat expires (default: 120)",
    )
    parser.add_argument(
        "--beat_s",
        type=number(0.01, DAY_S),
        default=15,
        help="seconds between heartbeats (default: 15)",
    )
    parser.add_argument(
        "--max_marks",
        type=whole(1),
        default=3,
        help="failures (strikes) after which a prompt has failed for good (default: 3)",
    )
    parser.add_argument(
        "--max_failures",
        type=whole(1),
        default=5,
        help="failures in a row that quarantine a worker (default: 5)",
    )
    parser.add_argument(
        "--probe_s",
        type=number(0, YEAR_S),
        default=600,
        help="seconds after which a quarantined worker is tried again (default: 600)",
    )
    parser.flag("--status", "print how the running server is doing")
    parser.flag("--json", "with --status: the whole document")
    parser.add_argument(
        "--retry_failed",
        nargs="?",
        const="",
        metavar="DATASET",
        help="try failed prompts again (of one data set, or of all)",
    )
    parser.add_argument(
        "--release_quarantine",
        nargs="?",
        const="",
        metavar="HOST",
        help="trust the workers of a host (or all) again",
    )
    parser.flag("--rotate_token", "give the run a new token; links and cookies of the page end")
    parser.add_argument(
        "--forget",
        metavar="DATASET",
        help="remove what is known of a data set; its folder stays as it is",
    )
    parser.flag("--drain", "let the running leases finish and grant no more")
    parser.flag("--resume", "grant leases again")
    parser.add_argument(
        "--llm_budget_usd", type=number(0, MANY), help="change the cap on the cost of LLMs"
    )
    parser.add_argument(
        "--llm_spent_usd",
        type=number(0, MANY),
        help="what the LLMs had cost before the ledger was lost",
    )
    args: argparse.Namespace = parser.parse_args()
    parser.at_most_one(args, "drain", "resume")
    for order in ORDERS:
        for other in ("status", "take_over", "stop_when_done"):
            parser.at_most_one(args, other, order)
    parser.at_most_one(args, "status", "take_over")
    parser.at_most_one(args, "status", "stop_when_done")
    if args.json and not args.status:
        parser.error("--json goes with --status")
    if args.beat_s > args.ttl_s / 2:
        parser.error("--beat_s is at most half of --ttl_s: one lost heartbeat would end a lease")
    return args


if __name__ == "__main__":
    run_script(main)
