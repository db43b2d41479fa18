"""The options of a run in a YAML file: read with --config, written beside the data set.

words = words_of("run.yaml", parser)       # ["--model=tiny", "--compile=True"]
store(args, definition, folder)            # generated_images/HPDv2/run.yaml

Every value is read as text (`time: 6:00:00`) and means the same as on the command line. Options on
the command line override the file.
"""

import contextlib
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from common.command_line import Options, UserError, nearest
from common.files import write_whole
from common.untrusted import Refused, read_text
from common.version import version
from generate.dataset.prompts_file import find_prompts

NAME = "run.yaml"
PROMPTS = "data_path"  # the only one that is no option
LARGEST = 1 << 20  # bytes
# Not allowed in a file: what a single call asks for, and options between the scripts.
NOT_IN_FILES = {"config", "help", "version", "is_slurm_task"}
# Not stored: options that only look at a run, the output root, options accepted and ignored.
NOT_STORED = NOT_IN_FILES | {
    "cancel",
    "dry_run",
    "extend",
    "invalidate_cache",
    "output_root",
    "preview",
    "redo",
    "slurm_task_datetme",
    "slurm_task_index",
    "status",
    "tail_log",
}
# The user's own files, stored with their whole path so that they are found from anywhere.
FILES = (PROMPTS, "llm_attributes", "llm_backends", "llm_instruction")


def config_of(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the file that --config names, the other words) of a command line; the last one counts.

    A first word that ends in .yaml means the same: `generate_images.py run.yaml`.
    """
    found = None
    others = []
    left = list(words)
    if left and not left[0].startswith("-") and left[0].endswith((".yaml", ".yml")):
        found = left.pop(0)
    while left:
        word = left.pop(0)
        if word == "--config" and left:
            found = left.pop(0)
        elif word.startswith("--config="):
            found = word.partition("=")[2]
        else:
            others.append(word)
    return found, others


def words_of(path: str, parser: Options) -> tuple[list[str], str | None]:
    """The file's options as words of a command line, and its data_path, if it names one.

    UserError, naming the file, for what is no such file and for an option that does not exist.
    """
    given = _read(path)
    prompts = given.pop(PROMPTS, None)
    words = [f"--{name}={value}" for name, value in given.items()]
    known = {name for action in parser._actions for name in action.option_strings}
    known -= {f"--{name}" for name in NOT_IN_FILES}
    for word in (words := parser.plain_words(words)):
        name = word.partition("=")[0]
        if name not in known:
            near = nearest(name, sorted(known))
            hint = f"did you mean {near.removeprefix('--')}?" if near else "see --help"
            raise UserError(f"{path}: there is no option {name.removeprefix('--')!r}; {hint}")
    prog = parser.prog
    parser.prog = f"{prog}: {path}"  # for an error in a value
    parser.parse_args(words)
    parser.prog = prog
    return words, prompts


def _read(path: str) -> dict[str, str]:
    """{option: value}, all of them texts."""
    try:
        # no types: 6:00:00 would become 21600, and `no` False
        document = yaml.load(read_text(Path(path), LARGEST), Loader=yaml.BaseLoader)
    except Refused as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {path}: not UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict):
        raise UserError(
            f"{path} holds no options; expected lines like `model: tiny`, see "
            "generate/run.example.yaml"
        )
    for name, value in document.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UserError(
                f"{path}: {str(name)[:80]} must be one text, number, true or false; "
                "JSON goes between quotes"
            )
        if "\0" in value or value != value.encode(errors="replace").decode():
            what = f"{path}: the value of {name[:80]}"
            raise UserError(f"{what} holds a NUL or half a surrogate pair, which no option can")
    return document


def _whole_path(word: str) -> str:
    """`my_score.py:Mine` with the file's whole path; other words as they are."""
    file, colon, kind = word.strip().rpartition(":")
    return f"{os.path.abspath(file)}{colon}{kind}" if file.endswith(".py") else word.strip()


def store(args: Namespace, definition: dict[str, Any], folder: Path) -> None:
    """Write the options of this run to run.yaml in the data set's folder, if they have changed.

    Size, steps and guidance are those of the definition, so that defaults of another version change
    nothing. A full disk only costs the file: publishing images will report it.
    """
    used = {
        name: value
        for name, value in sorted(vars(args).items())
        if value is not None and name not in NOT_STORED
    }
    if not definition.get("sizes"):  # a mix of sizes stays as it was given
        used.pop("resolution", None)
        used["size"] = f"{definition['width']}x{definition['height']}"
    for name in ("num_inference_steps", "guidance_scale", "negative_prompt"):
        if definition.get(name) is not None:
            used[name] = definition[name]
    with contextlib.suppress(UserError):  # it has left meanwhile
        used[PROMPTS] = str(find_prompts(args.data_path))
    for name in FILES:
        if used.get(name):
            used[name] = os.path.abspath(used[name])
    for name in ("pipeline", "scores"):  # FILE.py:CLASS, of scores several
        if used.get(name):
            used[name] = ",".join(map(_whole_path, used[name].split(",")))
    options = yaml.safe_dump(used, sort_keys=False, allow_unicode=True, width=1000)
    head = (
        "# The options that this data set's newest run has used. Again, elsewhere:\n"
        f"#   python {shlex.quote(sys.argv[0])} --config {NAME} --output_root FOLDER\n"
    )
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and read_text(path, LARGEST).endswith(f"\n{options}"):
            return
        write_whole(path, f"{head}# version {version()}\n{options}")
    except (OSError, ValueError) as error:
        print(f"{path} is not written: {error}", file=sys.stderr)
