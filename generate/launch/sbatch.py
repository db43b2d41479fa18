"""sbatch scripts as text: that of the array, and that of the job server.

print(array(args, "HPDv2", output_root, "0-999%128", sys.argv[1:]))
"""

import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.command_line import WORDS, UserError
from common.files import CHECKOUT
from common.slurm import seconds
from generate.client.worker import SUBMISSION
from generate.launch.options import SUBMISSION_FLAGS, SUBMISSION_VALUES

HERE = CHECKOUT / "generate"
KEEPERS = Path(__file__).resolve().parent / "batch"
# Proxies, which can hold a password, stay out of the file; --export=ALL passes them, like API keys.
PASSED_ON = (
    SUBMISSION,
    "UNIDISC_DIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
SERVER_MINUTES = 4320  # three days, as published
LEAD_S = 120  # from SIGUSR1 to the time limit: to finish a batch, publish it and release the rest


def array(
    args: Namespace, dataset: str, output_root: Path, tasks: str, words: Sequence[str]
) -> str:
    """The script of the array. tasks: --array's value. words: of the submitting command line.

    UserError for a value that an sbatch script cannot hold.
    """
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
    command = ["generate_images.py", *task_words(words)]
    if not any(word.split("=")[0] == "--output_root" for word in command):
        command.append(f"--output_root={output_root}")
    command.append("--is_slurm_task")
    return "\n".join(
        [
            *_head(options, output_root, "%A_%a.out", args.sbatch_args),
            *_run_once(args.setup, command),
            *_keeper("task.sh"),
        ]
    )


def server(args: Namespace, output_root: Path, longest_s: int | None) -> str:
    """The script of the job server. longest_s: the time limit of the partition, or None."""
    options = {
        "job-name": "image_server",
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "exclude": args.exclude,
        "time": min(SERVER_MINUTES, longest_s // 60) if longest_s else SERVER_MINUTES,
        "mem": "16G",
        "cpus-per-task": 4,
        "signal": f"B:USR1@{LEAD_S}",
    }
    command = ["image_server.py", f"--output_root={output_root}"]
    return "\n".join(
        [
            *_head(options, output_root, "image_server.out"),
            *_run_once(args.setup, [*command, "--stop_when_done"]),
            *_function("another_answers", [_command([*command, "--status"])]),
            *_keeper("server.sh"),
        ]
    )


def _head(
    options: Mapping[str, object], output_root: Path, log: str, further: str = ""
) -> list[str]:
    """The #SBATCH lines; an option without a value is left out."""
    path = f"{str(output_root).replace('%', '%%')}/{log}"
    everywhere = {
        "output": path,
        "error": path,
        "open-mode": "append",  # or a requeue would truncate the log
        "export": "ALL",
        "chdir": Path.cwd(),
    }
    lines = [
        f"#SBATCH --{name}={_quoted(_escaped(value), f'--{name}')}"
        for name, value in {**options, **everywhere}.items()
        if value
    ]
    lines.append("#SBATCH --requeue")
    if further:
        _quoted(further, "--sbatch_args")  # several options, as the user has quoted them
        lines.append(f"#SBATCH {further}")
    return ["#!/bin/bash", *lines, ""]


def _escaped(value: object) -> str:
    """A value with backslashes doubled: sbatch takes one for an escape even in single quotes."""
    return str(value).replace("\\", "\\\\")


def _run_once(setup: str, command: list[str]) -> list[str]:
    """The shell function run_once(), which becomes the client or server process."""
    exports = [
        f"export {name}={_quoted(os.environ[name], name)}"
        for name in PASSED_ON
        if os.environ.get(name) and "@" not in os.environ[name]
    ]
    return _function(
        "run_once", [*([setup] if setup else []), *exports, f"exec {_command(command)}"]
    )


def _function(name: str, lines: list[str]) -> list[str]:
    return [f"{name}() {{", *lines, "}", ""]


def _command(words: list[str]) -> str:
    script, *rest = words
    command = [sys.executable, "-u", str(HERE / script), *rest]
    return " ".join(_quoted(word, "the command line") for word in command)


def _keeper(name: str) -> list[str]:
    """The shell code that watches that process; as text, since a node may lack the checkout."""
    return [(KEEPERS / part).read_text() for part in ("child.sh", name)]


def _quoted(value: str, name: str) -> str:
    """A word as the shell and sbatch take it.

    UserError for a line break, which would end an #SBATCH line and begin another, for other control
    characters, and for what is no text: a file name in another encoding.
    """
    if not value.isprintable() and re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise UserError(
            f"{name}: {value!r} holds a line break, a control character or a byte that is no "
            "UTF-8: an sbatch script cannot take it; choose another name or value"
        )
    return shlex.quote(value)


def task_words(words: Sequence[str]) -> list[str]:
    """The words of the command line without the options that concern the submission alone."""
    flags = {f"--{name}" for name in SUBMISSION_FLAGS}
    negated = {f"--no-{name}" for name in SUBMISSION_FLAGS}
    values = {f"--{name}" for name in SUBMISSION_VALUES}
    kept = []
    skip = False
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if skip:
            skip = False
        elif name in flags:
            skip = not value and following.lower() in WORDS  # --use_slurm True
        elif name in values:
            skip = "=" not in word
        elif word not in negated:
            kept.append(word)
    return kept


def split(tasks: int, throttle: int, max_size: int) -> list[str]:
    """--array's values for `tasks` tasks, of which `throttle` run at a time.

    One value, or as many as arrays of at most max_size tasks make necessary, of equal size, with
    the throttle shared out: split(1000, 128, 600) == ["0-499%64", "0-499%64"].
    """
    count = -(-tasks // max_size)
    sizes = [tasks * (i + 1) // count - tasks * i // count for i in range(count)]
    return [
        f"0-{size - 1}%{share}" for size, share in zip(sizes, shares(throttle, count), strict=True)
    ]


def shares(throttle: int, count: int) -> list[int]:
    """`throttle` shared out among `count` arrays, at least 1 each (0 would mean: no limit)."""
    return [max(1, throttle * (i + 1) // count - throttle * i // count) for i in range(count)]
