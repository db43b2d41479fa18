"""Submit a SLURM array with its job server: check, estimate, sbatch.

python generate/generate_images.py HPDv2.json --num_workers=128 --use_slurm --dry_run
"""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import slurm
from common.command_line import LEFT_OUT, UserError
from common.console import first_line
from common.files import write_whole
from generate.client.job_client import JobClient
from generate.client.process import nothing_left
from generate.client.worker import submission, this_host
from generate.dataset.prompts_file import Item
from generate.image_models.fetch import fetch_files, is_fetched
from generate.image_models.model_commit import COMMIT
from generate.launch import array, preflight, sbatch, server_job
from generate.launch.estimate import estimate
from generate.launch.run_file import store
from generate.launch.status import fetch
from generate.protocol.output_root import dataset_folder


def submit(
    args: Namespace,
    definition: dict[str, Any],
    output_root: Path,
    items: Sequence[Item],
    words: Sequence[str],
) -> int:
    """Submit the array that generates `definition`; the exit status.

    words: the command line. Each task runs generate_images.py with them, less the options that
    concern the submission alone, in the same folder. With args.dry_run script and estimate are
    printed, and nothing is written. While an array of this data set is queued or runs, no second
    one is submitted: its throttle becomes args.num_workers.
    UserError for what would otherwise fail in every task.
    """
    if not args.dry_run:
        preflight.check_slurm()
    parts = sbatch.split(
        args.num_chunks or args.num_workers, args.num_workers, slurm.max_array_size()
    )
    submission()  # its name goes into the script
    script = sbatch.array(args, definition["name"], output_root, parts[0], words)
    if args.dry_run:
        print(script)
        for part in parts[1:]:
            print(
                f"# and, as MaxArraySize is {slurm.max_array_size()}, once more with --array={part}"
            )
        print("\n".join(estimate(args, definition, items, output_root, fetch(output_root))))
        return 0
    if running := array.live(output_root, definition["name"]):
        array.set_throttle(running, args.num_workers)
        return 0
    folder = preflight.check(args, definition, output_root, script)
    if args.start_server:
        limit_s = slurm.partition_limit_s(args.partition)
        write_whole(server_job.script_path(output_root), sbatch.server(args, output_root, limit_s))
    server = waiting_server(args, output_root)
    if not server:
        job = JobClient(output_root, definition, this_host(), server_timeout_s=30)
        if ended := nothing_left(job):
            return LEFT_OUT if ended.failed else 0
    print("\n".join(estimate(args, definition, items, output_root, fetch(output_root))), flush=True)
    fetch_model(args, definition)
    name = definition["name"]
    store(args, definition, dataset_folder(output_root, name))
    path = folder / f"{array.job_name(name)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sbatch"
    write_whole(path, script)
    arrays = []
    for part in parts:
        after = [f"--dependency=after:{server}"] if server else []
        number = slurm.sbatch([f"--array={part}", *after, path])
        arrays.append(number)
        # after each part, so that --cancel knows an array that was submitted by half
        entry = {"array": number, "tasks": part, "server": server, "script": path.name}
        array.record(output_root, {"dataset": name, **entry})
        print(f"array {number} submitted: tasks {part}, logs {output_root}/{number}_*.out")
    print(_what_next(args, output_root, arrays))
    return array.tail_log(output_root, name) if args.tail_log else 0


def fetch_model(args: Namespace, definition: dict[str, Any]) -> None:
    """Fetch the model's files once for all tasks, which then load them without asking the hub.

    One line where this machine cannot: the first task tries again, on its node.
    """
    if args.pipeline:
        return
    commit = definition.get("model_commit") or ""
    revision = commit if COMMIT.fullmatch(commit) else args.revision
    if is_fetched(args.model, revision):
        return
    print(f"fetching {args.model} for all tasks", flush=True)
    try:
        fetch_files(args.model, revision)
    except Exception as error:  # of the hub, the network, the disk, diffusers
        why = first_line(error)
        print(f"{args.model} was not fetched here ({why}): the first task fetches it", flush=True)


def _what_next(args: Namespace, output_root: Path, arrays: list[str]) -> str:
    prompts = shlex.quote(args.data_path)
    root = shlex.quote(str(output_root))
    return (
        f"watch:  python {sys.argv[0]} {prompts} --output_root {root} --status   "
        "(or --tail_log, --cancel)\n"
        f"then:   sbatch --dependency=afterany:{':'.join(arrays)} --wrap '…'   converts when all "
        "tasks have ended"
    )


def waiting_server(args: Namespace, output_root: Path) -> str | None:
    """The job of a server that does not answer yet; with --start_server one is submitted.

    None if a server answers. UserError if there is none.
    """
    answer = fetch(output_root)
    if answer.document:
        return None
    log = f"{output_root}/image_server.out"
    queued = slurm.run(
        "squeue",
        "--noheader",
        "--me",
        f"--name={server_job.NAME}",
        "--states=PENDING,CONFIGURING,RUNNING",
        "--Format=JobID:32,STDOUT:1024",
    ).stdout
    # other lines are a site's own, or an error
    for job, out in re.findall(r"^([0-9]\S*) +(/.*)$", queued, re.M):
        # A job's log says whose server it is. A server that was submitted by hand may have its log
        # elsewhere: without --start_server we wait for it all the same.
        if out.strip() == log or not args.start_server:
            print(
                f"the job server was submitted as job {job} and does not answer yet: the array "
                "waits until it runs"
            )
            return str(job)
    if not args.start_server:
        raise UserError(f"{answer.why}; or add --start_server")
    submitted = server_job.submit(output_root)
    if not submitted:
        raise UserError(
            f"another process submits a job server for {output_root} just now, or its job is "
            "queued and squeue does not show it: try again in a minute"
        )
    print(f"job server submitted: job {submitted}, log {log}; the array waits until it runs")
    return submitted
