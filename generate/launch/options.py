"""Options of generate_images.py: scores, SLURM, and looking at a run."""

from argparse import _ArgumentGroup

from common.command_line import Options
from common.expression import option
from common.number_options import MOST_PARTS, MOST_PROCESSES, number, whole
from generate.protocol.fields import MOST_IMAGES

# Options that concern the submission alone: a task's command line is without them.
SUBMISSION_FLAGS = (
    "use_slurm",
    "is_slurm_task",
    "dry_run",
    "status",
    "cancel",
    "tail_log",
)
SUBMISSION_VALUES = (
    "partition",
    "account",
    "qos",
    "constraint",
    "exclude",
    "time",
    "gres",
    "mem",
    "cpus_per_task",
    "sbatch_args",
    "setup",
)


def add_score_options(parser: Options) -> None:
    """Which images are accepted."""
    scores = parser.add_argument_group("scores of images, see docs/scores.md")
    scores.add_argument(
        "--scores",
        metavar="NAMES",
        help="scores that each image gets: clip,nsfw,dhash, …, or FILE.py:CLASS of your own",
    )
    scores.add_argument(
        "--accept",
        type=option,
        metavar="EXPRESSION",
        help='images that are accepted: "clip > 0.26 and nsfw < 0.2"; others are drawn again',
    )
    scores.add_argument(
        "--max_tries",
        type=whole(1, 10_000),
        metavar="N",
        help="images of a caption that are drawn at most (default: 4)",
    )
    scores.add_argument(
        "--min_accepted",
        type=number(0, 1),
        default=0.01,
        metavar="SHARE",
        help="end the run if a smaller share of its images is accepted; 0: never "
        "(default: %(default)s)",
    )
    scores.add_argument(
        "--keep_rejected",
        type=whole(1, MOST_IMAGES),
        metavar="N",
        help="keep N images of each prompt that are not accepted, in OUTPUT_ROOT/rejected_images",
    )


def add_slurm_options(parser: Options, most_used: _ArgumentGroup | None = None) -> None:
    """SLURM's options, with their published names and defaults."""
    slurm = parser.add_argument_group("SLURM")
    usual = most_used or slurm
    parser.flag("--use_slurm", "submit a SLURM array instead of running here", group=usual)
    usual.add_argument(
        "--num_workers",
        metavar="N",
        type=whole(1, MOST_PARTS),
        default=1,
        help="clients at a time: tasks of the array that run together, or processes here "
        "(default: %(default)s)",
    )
    usual.add_argument(
        "--num_chunks",
        metavar="N",
        type=whole(1, MOST_PARTS),
        help="tasks of the array (default: num_workers)",
    )
    parser.flag(
        "--start_server",
        "submit the job server too: the array waits until it runs, and submits it again if it dies",
        group=slurm,
    )
    slurm.add_argument("--partition", default="all", help="SLURM partition (default: %(default)s)")
    slurm.add_argument(
        "--time", default="6:00:00", help="time limit of a task (default: %(default)s)"
    )
    parser.may_be_empty.add("--gres")
    slurm.add_argument(
        "--gres",
        default="gpu:1",
        help="GPUs of a task (default: %(default)s); '' for sites that name them otherwise",
    )
    slurm.add_argument("--mem", default="24g", help="memory of a task (default: %(default)s)")
    slurm.add_argument(
        "--cpus_per_task",
        type=whole(1, MOST_PROCESSES),
        default=8,
        help="CPUs of a task (default: %(default)s)",
    )
    slurm.add_argument("--account", help="SLURM account")
    slurm.add_argument("--qos", help="SLURM quality of service")
    slurm.add_argument("--constraint", help='SLURM constraint, e.g. "a100|h100"')
    slurm.add_argument("--exclude", help="nodes not to be used, e.g. gpu03,gpu[07-09]")
    slurm.add_argument(
        "--sbatch_args",
        default="",
        help='further sbatch options, with "=": --sbatch_args="--reservation=r1 --comment=images"',
    )
    slurm.add_argument(
        "--setup",
        default="",
        help='shell lines before each task starts, e.g. "module load cuda; ulimit -n 4096"',
    )


def add_look_options(parser: Options, most_used: _ArgumentGroup | None = None) -> None:
    """What looks at a run, or tries one out, and changes nothing; and --cancel."""
    looking = parser.add_argument_group("looking at a run, or at what it would be")
    usual = most_used or looking
    usual.add_argument(
        "--preview",
        type=whole(1, 10_000),
        metavar="N",
        help="generate the first N prompts into a contact sheet, and measure images an hour",
    )
    parser.flag("--dry_run", "print what a run would take, and start nothing", group=usual)
    parser.flag("--status", "print how the run is doing, and which logs to read", group=usual)
    parser.flag(
        "--tail_log",
        "follow the newest logs (after a submission: those of its tasks)",
        group=looking,
    )
    parser.flag("--cancel", "cancel the arrays of this data set", group=looking)
    looking.add_argument(
        "--redo",
        metavar="INDEX[_AUG]",
        help="generate again from the stored JSON and compare; replaces nothing",
    )
