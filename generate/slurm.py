"""SLURM's side of a run: the array is submitted, watched and cancelled here, and a task asks here who and where it is.

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

import definitions
import run_status
import slurm_script

WHERE = "Is this a machine of the cluster, and does `sinfo` work?"


def add_options(parser):
    """Add the options of this module, with their published names and defaults, to an options.Options."""
    parser.flag("--use_slurm", "submit a SLURM array instead of running here")
    parser.flag("--is_slurm_task", "this process is a task of the array (its script says so)")
    parser.add_argument(
        "--num_workers", type=int, help="clients at a time: tasks of the array that run together, or processes here (default: 1)", default=1
    )
    parser.add_argument("--num_chunks", type=int, help="tasks of the array (default: num_workers)")
    parser.add_argument("--partition", default="all", help="SLURM partition (default: all)")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument("--qos", help="SLURM quality of service")
    parser.add_argument("--constraint", help='SLURM constraint, e.g. "a100|h100"')
    parser.add_argument("--exclude", help="nodes not to be used, e.g. gpu03,gpu[07-09]")
    parser.add_argument("--time", default="6:00:00", help="time limit of a task (default: 6:00:00)")
    parser.add_argument("--gres", default="gpu:1", help="what a task needs (default: gpu:1); '' for sites that say it otherwise")
    parser.add_argument("--mem", default="24g", help="memory of a task (default: 24g)")
    parser.add_argument("--cpus_per_task", type=int, default=8, help="CPUs of a task (default: 8)")
    parser.add_argument(
        "--sbatch_args", default="", help='further sbatch options, with "=": --sbatch_args="--reservation=r1 --comment=images"'
    )
    parser.add_argument("--setup", default="", help='shell lines before each task starts, e.g. "module load cuda; ulimit -n 4096"')
    parser.flag("--start_server", "submit the job server too; the array waits until it runs")
    parser.flag("--dry_run", "show the sbatch script and the estimate, submit nothing")
    parser.flag("--status", "say how the run is doing, and which logs to read")
    parser.flag("--cancel", "cancel the arrays of this data set")
    parser.flag("--tail_log", "follow the newest logs (after a submission: those of its tasks)")


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
    parts = slurm_script.split(args.num_chunks or args.num_workers, args.num_workers, max_array_size())
    script = slurm_script.array(args, dataset, output_root, parts[0], sys.argv[1:] if argv is None else argv)
    running = [] if args.dry_run else live_arrays(output_root, dataset)
    if running:
        return set_throttle(running, args.num_workers)
    if not args.dry_run:
        preflight(args, definition, output_root, script)
        folder = make_server_folder(output_root)
        dependency, server = ensure_server(args, output_root, folder)
        if not server and (ended := nothing_left(output_root, definition)):
            return 3 if ended.set_aside else 0
    estimate = run_status.estimate(args, definition, items, output_root, run_status.fetch(output_root).document)
    if args.dry_run:
        more = [f"# and, as MaxArraySize is {max_array_size()}, once more with --array={part}" for part in parts[1:]]
        print("\n".join([script, *more, *estimate]))
        return 0
    print("\n".join(estimate), flush=True)
    path = folder / f"generate_parallel_{dataset}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.sbatch"
    path.write_text(script)
    arrays = {}
    for part in parts:
        arrays[sbatch([f"--array={part}", *dependency, path])] = part
        with open(folder / "arrays.jsonl", "a") as record:  # after each part, so that --cancel knows a half-submitted run
            record.write(
                json.dumps({"dataset": dataset, "array": list(arrays)[-1], "tasks": part, "server": server, "script": path.name}) + "\n"
            )
    print("\n".join(f"array {array} submitted: tasks {part}, logs {output_root}/{array}_*.out" for array, part in arrays.items()))
    print(
        f"watch:  python {sys.argv[0]} {shlex.quote(args.data_path)} "
        f"--output_root {shlex.quote(str(output_root))} --status   (or --tail_log, --cancel)"
    )
    print(f"then:   sbatch --dependency=afterany:{':'.join(arrays)} --wrap '…'   converts when all tasks have ended")
    if args.tail_log:
        tail_log(output_root, dataset)
    return 0


def preflight(args, definition, output_root, script):
    """SystemExit, with one line, for what would otherwise fail in each task."""
    sbatch(["--test-only"], stdin=script)
    longest, wanted = longest_s(args.partition), slurm_script.seconds(args.time)
    # SLURM takes such a job, and lets it wait for ever; a QOS may allow more than the partition.
    if longest and args.time and not args.qos and (wanted is None or wanted > longest):
        raise SystemExit(
            f"generate_images: --time {args.time} is more than partition {args.partition} allows ({longest // 60} minutes): "
            f"no task would ever start; give --time {longest // 60}"
        )
    check_definition(output_root, definition)
    if not args.pipeline:
        import diffusion

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
        changed = "the prompts file has changed: " if error.field in ("prompts_sha256", "total") else ""
        raise SystemExit(f"generate_images: {changed}{error}") from None


def ensure_server(args, output_root, folder):
    """sbatch's words that make the array wait for a server that does not run yet, and that server's job (or None).
    SystemExit if there is none."""
    answer = run_status.fetch(output_root)
    if answer.document:
        return [], None
    log = f"{output_root}/image_server.out"
    jobs = run(
        "squeue", "--noheader", "--me", "--name=image_server", "--states=PENDING,CONFIGURING,RUNNING", "--Format=JobID:32,STDOUT:1024"
    ).stdout
    jobs = [line.split(maxsplit=1) for line in jobs.splitlines() if line.strip()]
    # Its log tells whose server a job is; where it lies elsewhere, it may still be ours, unless we are to start one.
    jobs = [job for job, out in jobs if out.strip() == log or not args.start_server]
    if jobs:
        print(f"the job server was submitted as job {jobs[0]} and does not answer yet: the array waits until it runs")
        return [f"--dependency=after:{jobs[0]}"], jobs[0]
    if not args.start_server:
        raise SystemExit(f"generate_images: {answer.why}; or add --start_server")
    path = folder / "image_server.sbatch"
    path.write_text(slurm_script.server(args, output_root, longest_s(args.partition)))
    job = sbatch([path])
    print(f"job server submitted: job {job}, log {output_root}/image_server.out; the array waits until it runs")
    return [f"--dependency=after:{job}"], job


def nothing_left(output_root, definition):
    """AllDone if the server that runs has no work for this data set, else None; SystemExit if it refuses the definition. Else each task
    would ask."""
    import job_client
    import local_run

    return local_run.nothing_left(job_client.JobClient(output_root, definition, identity(), server_timeout_s=30))


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
        if (k in keep or not k.startswith("SLURM_")) and k not in ("CUDA_VISIBLE_DEVICES", "SBATCH_EXPORT")
    }
    done = subprocess.run(["sbatch", "--parsable", *map(str, words)], input=stdin, env=env, capture_output=True, text=True)
    if done.returncode:
        said = [re.sub(r"^(sbatch: )?(error|fatal): |^allocation failure: ", "", line) for line in done.stderr.strip().split("\n")]
        said = "; ".join(dict.fromkeys(said))
        if re.search("contact slurm controller|configuration source", said, re.I):
            raise SystemExit(f"generate_images: SLURM does not answer: {said}. {WHERE}")
        raise SystemExit(f"generate_images: SLURM refuses the job: {said}. See --partition, --account, --qos, --gres, --mem, --time")
    return done.stdout.strip().split(";")[0]


def longest_s(partition):
    """The time limit of a partition, in seconds (of several, the longest); None if there is none, or none is known."""
    limits = [slurm_script.seconds(line) for line in run("sinfo", "--noheader", f"--partition={partition}", "--format=%l").stdout.split()]
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
            raise SystemExit(f"generate_images: array {array} keeps its throttle: {done.stderr.strip()}")
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
    print(f"array {', '.join(arrays)} cancelled; the tasks publish what they have drawn and give the rest back. The job server goes on")
    return 0


def tail_log(output_root, dataset):
    """Follow the newest logs of the data set's tasks (`tail -F`); does not return."""
    entries = submitted(output_root, dataset)
    if not entries:
        raise SystemExit(f"generate_images: no array of {dataset} was submitted for {output_root}; the logs are {output_root}/*.out")
    arrays = [entry["array"] for entry in entries if entry["script"] == entries[-1]["script"]]
    while not (logs := [log for array in arrays for log in Path(output_root).glob(f"{array}_*.out")]):
        print(f"array {', '.join(arrays)}: no task has started yet", flush=True)
        time.sleep(10)
    logs = sorted(logs, key=lambda log: log.stat().st_mtime)[-5:]
    os.execvp("tail", ["tail", "-n", "20", "-F", *map(str, logs)])


# ---------------------------------------------------------------- inside a job


def identity(environ=None):
    """Who this process is: {"host", "array_job", "task", "restart", "slurm_job_id"}; all but host are None outside of SLURM.

    host: SLURMD_NODENAME, else the host's name. slurm_job_id: "4711"; restart: int, 0 in the first run. A task keeps its id when it is
    requeued, so a worker is (slurm_job_id, restart).
    """
    environ = os.environ if environ is None else environ
    job = environ.get("SLURM_JOB_ID")
    return {
        "host": environ.get("SLURMD_NODENAME") or os.uname().nodename,
        "array_job": environ.get("SLURM_ARRAY_JOB_ID") if job else None,
        "task": environ.get("SLURM_ARRAY_TASK_ID") if job else None,
        "restart": int(environ.get("SLURM_RESTART_COUNT") or 0) if job else None,
        "slurm_job_id": job,
    }


def task_name(environ=None):
    """`<array>_<task>` (or the id of a job without array), to act on; None outside of SLURM. The last task of an array to start has the
    array's own id as SLURM_JOB_ID: whoever acts on that hits the whole array."""
    who = identity(environ)
    return f"{who['array_job']}_{who['task']}" if who["array_job"] else who["slurm_job_id"]


def time_left_s():
    """Seconds this job may still run; None if unlimited, unknown or outside of SLURM. Costs a call of squeue: count down from it."""
    name = task_name()
    return slurm_script.seconds(run("squeue", "--noheader", f"--jobs={name}", "--format=%L").stdout.strip()) if name else None


def requeue_self(reason):
    """Have this very task requeued: it starts again, restart + 1, in about two minutes. Returns whether SLURM took it; SIGTERM follows at
    once, so this is the last thing a client does."""
    name = task_name()
    if not name:
        return False
    print(f"{reason}: asking SLURM to requeue {name}", flush=True)
    done = run("scontrol", "requeue", name)
    if done.returncode:
        print(f"SLURM did not requeue {name}: {done.stderr.strip()}", flush=True)
    return done.returncode == 0


def queue():
    """My jobs as SLURM sees them now: {(slurm_job_id, restart): state}, state "RUNNING", "PENDING", …; None = unknown (squeue failed).

    One call of squeue for all. A job that is requeued and waits has the restart count of its next run. An empty dict is an answer.
    """
    done = run("squeue", "--noheader", "--me", "--Format=JobID:32,RestartCnt:12,State:32")
    if done.returncode:
        return None
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return {(job, int(restart)): state for job, restart, state in rows}


def exclude_node(array_job, node, exclude=True):
    """Keep the pending tasks of an own array off a node, or let them use it again: "done", "there" (it was so already), or ""
    (SLURM refused, or no task waits). The user's own --exclude stays as long as exclude=False is called for nodes that were "done" only."""
    shown = run("scontrol", "show", "job", array_job)
    pending = [record for record in shown.stdout.split("\n\n") if "JobState=PENDING" in record]
    if not pending:
        return ""
    found = re.search(r"ExcNodeList=(\S+)", pending[0])
    nodes = set(run("scontrol", "show", "hostnames", found[1]).stdout.split()) if found and found[1] != "(null)" else set()
    if (node in nodes) == exclude:
        return "there"
    wanted = nodes | {node} if exclude else nodes - {node}
    # Status 1 only says that running tasks of the array cannot be changed; each record that was has its line "…: No error".
    done = run("scontrol", "update", f"JobId={array_job}", f"ExcNodeList={','.join(sorted(wanted))}")
    return "done" if done.returncode == 0 or "No error" in done.stdout + done.stderr else ""


def run(*words, timeout_s=15):
    """Run one of SLURM's commands; a missing command and no answer in time look like a failure (9 s with slurmctld down)."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))
