"""The sbatch scripts of a run, as text: the array's, and that of the job server.

print(slurm_script.array(args, "HPDv2", output_root, "0-999%128", sys.argv[1:]))
"""

import os
import shlex
import sys
from pathlib import Path

from common.command_line import WORDS
from common.files import CHECKOUT
from common.slurm import seconds

HERE = CHECKOUT / "generate"
# A proxy with a password stays out of the file; like API keys it travels with --export=ALL.
PASSED_ON = "UNIDISC_DIR HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
FLAGS = {
    "--use_slurm",
    "--is_slurm_task",
    "--start_server",
    "--dry_run",
    "--status",
    "--cancel",
    "--tail_log",
}
VALUES = (
    "partition account qos constraint exclude time gres mem cpus_per_task sbatch_args setup".split()
)
SUBMISSION_ONLY = FLAGS | {f"--{name}" for name in VALUES}
SERVER_MINUTES = 4320  # three days, as published
LEAD_S = 120  # from SIGUSR1 to the end of the time limit: to finish a batch, publish it and give the rest back


def array(args, dataset, output_root, tasks, argv):
    """The script of the array. tasks: --array's value. argv: the words of the command line that submits it."""
    limit = seconds(args.time)
    options = {
        "job-name": f"generate_parallel_{dataset}",
        "array": tasks,
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "constraint": args.constraint,
        "exclude": args.exclude,
        "time": args.time,
        "gres": args.gres,
        "mem": args.mem,
        "cpus-per-task": args.cpus_per_task,
        "signal": f"B:USR1@{int(min(LEAD_S, limit / 4)) if limit else LEAD_S}",
    }
    words = task_words(argv)
    if not any(word.split("=")[0] == "--output_root" for word in words):
        words.append(f"--output_root={output_root}")
    return _script(
        options,
        output_root,
        "%A_%a.out",
        args.sbatch_args,
        args.setup,
        ["generate_images.py", *words, "--is_slurm_task"],
    )


def server(args, output_root, longest_s):
    """The script of the job server, in the array's partition. longest_s: the partition's time limit in seconds, or None."""
    minutes = min(SERVER_MINUTES, longest_s // 60) if longest_s else SERVER_MINUTES
    options = {
        "job-name": "image_server",
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "exclude": args.exclude,
        "time": minutes,
        "mem": "16G",
        "cpus-per-task": 4,
        "signal": f"B:USR1@{LEAD_S}",
    }
    words = ["image_server.py", f"--output_root={output_root}", "--stop_when_done"]
    return _script(options, output_root, "image_server.out", "", args.setup, words)


def _script(options, output_root, log, sbatch_args, setup, words):
    log = str(output_root).replace("%", "%%") + "/" + log
    options |= {
        "output": log,
        "error": log,
        "open-mode": "append",
        "export": "ALL",
        "chdir": str(Path.cwd()),
    }
    lines = [
        "#!/bin/bash",
        *(
            f"#SBATCH --{name}={shlex.quote(str(value))}"
            for name, value in options.items()
            if value
        ),
        "#SBATCH --requeue",
    ]
    lines += [f"#SBATCH {sbatch_args}"] if sbatch_args else []
    lines += ["", *([setup] if setup else [])]
    lines += [
        f"export {name}={shlex.quote(os.environ[name])}"
        for name in PASSED_ON
        if os.environ.get(name) and "@" not in os.environ[name]
    ]
    # exec: python takes the shell's place, so that --signal=B: reaches it
    return "\n".join(
        [*lines, f"exec {shlex.join([sys.executable, '-u', str(HERE / words[0]), *words[1:]])}", ""]
    )


def task_words(argv):
    """The words of the command line without the options that concern the submission alone."""
    words, skip = [], False
    for word, following in zip(argv, [*argv[1:], ""]):
        name = word.split("=")[0]
        if skip:
            skip = False
        elif name in SUBMISSION_ONLY:
            skip = "=" not in word and (name not in FLAGS or following.lower() in WORDS)
        else:
            words.append(word)
    return words


def split(tasks, throttle, max_size):
    """--array's values for `tasks` tasks, `throttle` of them at a time: one, or as many as arrays of max_size tasks make necessary, of
    equal size, with the throttle shared out. split(1000, 128, 600) == ["0-499%64", "0-499%64"]"""
    count = -(-tasks // max_size)
    sizes = [tasks * (i + 1) // count - tasks * i // count for i in range(count)]
    return [f"0-{size - 1}%{share}" for size, share in zip(sizes, shares(throttle, count))]


def shares(throttle, count):
    """`throttle` shared out among `count` arrays, at least 1 each (0 would mean: no limit)."""
    return [max(1, throttle * (i + 1) // count - throttle * i // count) for i in range(count)]
