"""SLURM's options of generate_images.py."""


def add_slurm_options(parser):
    """SLURM's options, with their published names and defaults."""
    parser.flag("--use_slurm", "submit a SLURM array instead of running here")
    parser.flag("--is_slurm_task", "this process is a task of the array (its script says so)")
    parser.add_argument(
        "--num_workers",
        type=int,
        help="clients at a time: tasks of the array that run together, or processes here (default: 1)",
        default=1,
    )
    parser.add_argument("--num_chunks", type=int, help="tasks of the array (default: num_workers)")
    parser.add_argument("--partition", default="all", help="SLURM partition (default: all)")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument("--qos", help="SLURM quality of service")
    parser.add_argument("--constraint", help='SLURM constraint, e.g. "a100|h100"')
    parser.add_argument("--exclude", help="nodes not to be used, e.g. gpu03,gpu[07-09]")
    parser.add_argument("--time", default="6:00:00", help="time limit of a task (default: 6:00:00)")
    parser.add_argument(
        "--gres",
        default="gpu:1",
        help="what a task needs (default: gpu:1); '' for sites that say it otherwise",
    )
    parser.add_argument("--mem", default="24g", help="memory of a task (default: 24g)")
    parser.add_argument("--cpus_per_task", type=int, default=8, help="CPUs of a task (default: 8)")
    parser.add_argument(
        "--sbatch_args",
        default="",
        help='further sbatch options, with "=": --sbatch_args="--reservation=r1 --comment=images"',
    )
    parser.add_argument(
        "--setup",
        default="",
        help='shell lines before each task starts, e.g. "module load cuda; ulimit -n 4096"',
    )
    parser.flag("--start_server", "submit the job server too; the array waits until it runs")
    parser.flag("--dry_run", "show the sbatch script and the estimate, submit nothing")
    parser.flag("--status", "say how the run is doing, and which logs to read")
    parser.flag("--cancel", "cancel the arrays of this data set")
    parser.flag("--tail_log", "follow the newest logs (after a submission: those of its tasks)")
