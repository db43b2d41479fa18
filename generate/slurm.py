"""SLURM's side of a run: the array is submitted, watched and cancelled here, and a task asks here who and where it is.

    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 --use_slurm --dry_run
"""


def add_options(parser):
    """Add the options of this module to an `options.Options`, with the published names and defaults:

    --use_slurm --is_slurm_task --num_workers (default 1) --num_chunks (default: num_workers) --partition all --account --qos --constraint
    --exclude --time 6:00:00 --gres gpu:1 --mem 24g --cpus_per_task 8 --sbatch_args --setup --start_server --dry_run --status --cancel --tail_log.
    All but --num_workers are for the submission alone and are left out of the task's own command line.
    """


def submit(args, definition, output_root, items, argv=None):
    """Submit the array that draws `definition` (the dataset of /get_indices), after the preflight and the estimate; return the exit status.

    args: the options as parsed (`args.data_path`, `args.llm_backends`, … are read too). items: the prompts (prompts_file.read_prompts).
    argv: the words of the command line, default sys.argv[1:]; each task runs `generate_images.py` with them, less the options of this
    module, plus `--is_slurm_task`, in the same folder. With args.dry_run nothing is submitted: script and estimate are printed.
    While an array of this data set is queued or runs, no second one is submitted: its throttle becomes args.num_workers.
    SystemExit (one line) for what would otherwise fail in every task: no sbatch, unwritable root, changed prompts file, gated model,
    unknown partition, no server.
    """


def cancel(output_root, dataset):
    """Cancel all tasks of the arrays of this data set (its name); return the exit status."""


def tail_log(output_root, dataset=None):
    """Follow the newest logs of the data set's tasks (`tail -F`); does not return."""


def identity(environ=None):
    """Who this process is: {"host", "array_job", "task", "restart", "slurm_job_id"}; all but host are None outside of SLURM.

    host: SLURMD_NODENAME, else the host's name. slurm_job_id: "4711"; restart: int, 0 in the first run. A task keeps its id when it is
    requeued, so a worker is (slurm_job_id, restart). The GPU's UUID is added by the client.
    """


def task_name(environ=None):
    """`<array>_<task>` (or the id of a job without array), to act on; None outside of SLURM. The last task of an array to start has the
    array's own id as SLURM_JOB_ID: whoever acts on that hits the whole array."""


def time_left_s():
    """Seconds this job may still run, by `squeue -o %L`; None if unlimited, unknown or outside of SLURM. Costs a call: count down from it."""


def requeue_self(reason):
    """Have this very task requeued (`scontrol requeue <array>_<task>`): the same task starts again, restart + 1, in about two minutes.
    Returns whether SLURM took it; SIGTERM follows at once, so this is the last thing a client does."""


def queue(timeout_s=15):
    """My jobs as SLURM sees them now: {(slurm_job_id, restart): state}, state "RUNNING", "PENDING", …; None = unknown (squeue failed).

    One call of squeue for all. A job that is requeued and waits has the restart count of its next run. An empty dict is an answer.
    """


def exclude_node(array_job, node, exclude=True):
    """Keep the pending tasks of an own array off a node (or let them use it again); returns whether SLURM took it."""
