"""SLURM's side of a run: the array is submitted, watched and cancelled here, and its logs are followed here.

python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 --use_slurm --dry_run
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from common import slurm
from common.slurm import run
from generate.dataset import definition as definitions
from generate.launch import sbatch as slurm_script
from generate.launch import status as run_status

WHERE = "Is this a machine of the cluster, and does `sinfo` work?"


# ---------------------------------------------------------------- submission


def submit(args, definition, output_root, items, argv=None):
    """Submit the array that draws `definition` (the dataset of /get_indices), after the preflight and the estimate; return the exit status.

    args: the options as parsed. items: the prompts (prompts_file.read_prompts). argv: the words of the command line, default sys.argv[1:];
    each task runs generate_images.py with them, less the options of this module, plus --is_slurm_task, in the same folder.
    With args.dry_run nothing is submitted: script and estimate are printed. While an array of this data set is queued or runs, no second
    one is submitted: its throttle becomes args.num_workers. SystemExit (one line) for what would otherwise fail in every task.
    """
    output_root, dataset = Path(output_root).resolve(), definition["name"]
    if args.num_workers < 1 or (args.num_chunks is not None and args.num_chunks < 1):
        raise SystemExit("generate_images: --num_workers and --num_chunks are at least 1")
    if not shutil.which("sbatch") and not args.dry_run:
        raise SystemExit(
            "generate_images: sbatch was not found: submit from a machine of the cluster, or leave out --use_slurm to draw here"
        )
    parts = slurm_script.split(
        args.num_chunks or args.num_workers, args.num_workers, max_array_size()
    )
    script = slurm_script.array(
        args, dataset, output_root, parts[0], sys.argv[1:] if argv is None else argv
    )
    running = [] if args.dry_run else live_arrays(output_root, dataset)
    if running:
        return set_throttle(running, args.num_workers)
    if not args.dry_run:
        preflight(args, definition, output_root, script)
        folder = make_server_folder(output_root)
        dependency, server = ensure_server(args, output_root, folder)
        if not server and (ended := nothing_left(output_root, definition)):
            return 3 if ended.set_aside else 0
    estimate = run_status.estimate(
        args, definition, items, output_root, run_status.fetch(output_root).document
    )
    if args.dry_run:
        more = [
            f"# and, as MaxArraySize is {max_array_size()}, once more with --array={part}"
            for part in parts[1:]
        ]
        print("\n".join([script, *more, *estimate]))
        return 0
    print("\n".join(estimate), flush=True)
    path = (
        folder / f"generate_parallel_{dataset}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.sbatch"
    )
    path.write_text(script)
    arrays = {}
    for part in parts:
        arrays[sbatch([f"--array={part}", *dependency, path])] = part
        with open(
            folder / "arrays.jsonl", "a"
        ) as record:  # after each part, so that --cancel knows a half-submitted run
            record.write(
                json.dumps(
                    {
                        "dataset": dataset,
                        "array": list(arrays)[-1],
                        "tasks": part,
                        "server": server,
                        "script": path.name,
                    }
                )
                + "\n"
            )
    print(
        "\n".join(
            f"array {array} submitted: tasks {part}, logs {output_root}/{array}_*.out"
            for array, part in arrays.items()
        )
    )
    print(
        f"watch:  python {sys.argv[0]} {shlex.quote(args.data_path)} "
        f"--output_root {shlex.quote(str(output_root))} --status   (or --tail_log, --cancel)"
    )
    print(
        f"then:   sbatch --dependency=afterany:{':'.join(arrays)} --wrap '…'   converts when all tasks have ended"
    )
    if args.tail_log:
        tail_log(output_root, dataset)
    return 0


def preflight(args, definition, output_root, script):
    """SystemExit, with one line, for what would otherwise fail in each task."""
    sbatch(["--test-only"], stdin=script)
    longest, wanted = longest_s(args.partition), slurm.seconds(args.time)
    # SLURM takes such a job, and lets it wait for ever; a QOS may allow more than the partition.
    if longest and args.time and not args.qos and (wanted is None or wanted > longest):
        raise SystemExit(
            f"generate_images: --time {args.time} is more than partition {args.partition} allows ({longest // 60} minutes): "
            f"no task would ever start; give --time {longest // 60}"
        )
    check_definition(output_root, definition)
    if not args.pipeline:
        from generate.client import image_generator as diffusion

        diffusion.check_model(args.model, args.revision)
    try:
        output_root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_root).close()
    except OSError as error:
        raise SystemExit(
            f"generate_images: cannot write to the output root {output_root}: {error.strerror}; choose another with --output_root"
        ) from None


def check_definition(output_root, definition):
    """SystemExit if this data set was begun with another definition (changed prompts, another model): the server would refuse each task."""
    folder = output_root / "generated_images" / definition["name"]
    try:
        stored = definitions.stored_definition(folder)
        if stored and not definition.get("extend"):
            definitions.compare(stored, definition, definitions.newest_file(folder)[1].name)
    except ValueError as error:
        raise SystemExit(f"generate_images: {error}") from None
    except definitions.Differs as error:
        changed = (
            "the prompts file has changed: " if error.field in ("prompts_sha256", "total") else ""
        )
        raise SystemExit(f"generate_images: {changed}{error}") from None


def ensure_server(args, output_root, folder):
    """sbatch's words that make the array wait for a server that does not run yet, and that server's job (or None).
    SystemExit if there is none."""
    answer = run_status.fetch(output_root)
    if answer.document:
        return [], None
    log = f"{output_root}/image_server.out"
    jobs = run(
        "squeue",
        "--noheader",
        "--me",
        "--name=image_server",
        "--states=PENDING,CONFIGURING,RUNNING",
        "--Format=JobID:32,STDOUT:1024",
    ).stdout
    jobs = [line.split(maxsplit=1) for line in jobs.splitlines() if line.strip()]
    # Its log tells whose server a job is; where it lies elsewhere, it may still be ours, unless we are to start one.
    jobs = [job for job, out in jobs if out.strip() == log or not args.start_server]
    if jobs:
        print(
            f"the job server was submitted as job {jobs[0]} and does not answer yet: the array waits until it runs"
        )
        return [f"--dependency=after:{jobs[0]}"], jobs[0]
    if not args.start_server:
        raise SystemExit(f"generate_images: {answer.why}; or add --start_server")
    path = folder / "image_server.sbatch"
    path.write_text(slurm_script.server(args, output_root, longest_s(args.partition)))
    job = sbatch([path])
    print(
        f"job server submitted: job {job}, log {output_root}/image_server.out; the array waits until it runs"
    )
    return [f"--dependency=after:{job}"], job


def nothing_left(output_root, definition):
    """AllDone if the server that runs has no work for this data set, else None; SystemExit if it refuses the definition. Else each task
    would ask."""
    from generate.client import job_client
    from generate.launch import local as local_run

    return local_run.nothing_left(
        job_client.JobClient(output_root, definition, slurm.identity(), server_timeout_s=30)
    )


def make_server_folder(output_root):
    folder = Path(output_root) / ".server"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def sbatch(words, stdin=None):
    """Run sbatch; return the job's number. SystemExit with sbatch's own words when it refuses."""
    # An interactive job's SLURM_* settings (memory, CPUs) would contradict the script's; a GPU chosen here says nothing there.
    keep = {"SLURM_CONF", "SLURM_CLUSTERS"}
    env = {
        k: v
        for k, v in os.environ.items()
        if (k in keep or not k.startswith("SLURM_"))
        and k not in ("CUDA_VISIBLE_DEVICES", "SBATCH_EXPORT")
    }
    done = subprocess.run(
        ["sbatch", "--parsable", *map(str, words)],
        input=stdin,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = [
            re.sub(r"^(sbatch: )?(error|fatal): |^allocation failure: ", "", line)
            for line in done.stderr.strip().split("\n")
        ]
        said = "; ".join(dict.fromkeys(said))
        if re.search("contact slurm controller|configuration source", said, re.I):
            raise SystemExit(f"generate_images: SLURM does not answer: {said}. {WHERE}")
        raise SystemExit(
            f"generate_images: SLURM refuses the job: {said}. See --partition, --account, --qos, --gres, --mem, --time"
        )
    return done.stdout.strip().split(";")[0]


def longest_s(partition):
    """The time limit of a partition, in seconds (of several, the longest); None if there is none, or none is known."""
    limits = [
        slurm.seconds(line)
        for line in run(
            "sinfo", "--noheader", f"--partition={partition}", "--format=%l"
        ).stdout.split()
    ]
    return None if None in limits else max(limits, default=None)


def max_array_size():
    """The number of tasks an array may have at most (its largest index is one less); without an answer, SLURM's default of 1001."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run("scontrol", "show", "config").stdout, re.M)
    return max(1, int(found[1])) if found else 1001


# ---------------------------------------------------------------- a submitted array


def submitted(output_root, dataset):
    """What was submitted for this data set, oldest first: [{"array": number, "tasks", "server", "script"}]."""
    record, entries = Path(output_root) / ".server" / "arrays.jsonl", []
    for number, line in enumerate(record.read_text().splitlines() if record.exists() else [], 1):
        try:
            entries.append(json.loads(line))
        except ValueError:
            raise SystemExit(
                f"generate_images: {record}: line {number} is torn (a full disk?); remove it, and look for its array in squeue"
            ) from None
    return [entry for entry in entries if entry["dataset"] == dataset]


def live_arrays(output_root, dataset):
    """The arrays of this data set that are queued or run: their numbers, as text, oldest first. SystemExit if squeue does not say."""
    entries = submitted(output_root, dataset)
    if not entries:
        return []
    done = run("squeue", "--noheader", "--me", "--format=%F %j")
    if done.returncode:
        raise SystemExit(f"generate_images: SLURM does not answer: {done.stderr.strip()}. {WHERE}")
    # The whole name is compared here: --name= would take "cats, dogs" for two names. A number alone might be used again one day.
    known = set(done.stdout.splitlines())
    return [e["array"] for e in entries if f"{e['array']} generate_parallel_{dataset}" in known]


def set_throttle(arrays, num_workers):
    for array, share in zip(arrays, slurm_script.shares(num_workers, len(arrays))):
        done = run("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={share}")
        if done.returncode:
            raise SystemExit(
                f"generate_images: array {array} keeps its throttle: {done.stderr.strip()}"
            )
    print(
        f"already submitted as array {', '.join(arrays)}: at most {num_workers} tasks run at a time from now on, "
        "nothing else was changed (--cancel first for a new array)"
    )
    return 0


def cancel(output_root, dataset):
    """Cancel all tasks of the arrays of this data set; return the exit status. What they hold goes back to the server at once."""
    arrays = live_arrays(output_root, dataset)
    if not arrays:
        print(f"no array of {dataset} is queued or runs for {output_root}")
        return 0
    done = run("scancel", *(f"{array}_[0-{max_array_size() - 1}]" for array in arrays))
    if done.returncode:
        raise SystemExit(f"generate_images: scancel failed: {done.stderr.strip()}")
    print(
        f"array {', '.join(arrays)} cancelled; the tasks publish what they have drawn and give the rest back. The job server goes on"
    )
    return 0


def tail_log(output_root, dataset):
    """Follow the newest logs of the data set's tasks (`tail -F`); does not return."""
    entries = submitted(output_root, dataset)
    if not entries:
        raise SystemExit(
            f"generate_images: no array of {dataset} was submitted for {output_root}; the logs are {output_root}/*.out"
        )
    arrays = [entry["array"] for entry in entries if entry["script"] == entries[-1]["script"]]
    while not (
        logs := [log for array in arrays for log in Path(output_root).glob(f"{array}_*.out")]
    ):
        print(f"array {', '.join(arrays)}: no task has started yet", flush=True)
        time.sleep(10)
    logs = sorted(logs, key=lambda log: log.stat().st_mtime)[-5:]
    os.execvp("tail", ["tail", "-n", "20", "-F", *map(str, logs)])
