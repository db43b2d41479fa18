"""Option parsing and error handling, shared by all scripts.

    def main() -> int:
        parser = Options(__doc__)
        parser.add_argument("data_path")
        parser.flag("--use_slurm", "submit an array")    # --use_slurm, =True, False, --no-use_slurm
        args = parser.parse_args()                       # --use-slurm is --use_slurm
        ...
    if __name__ == "__main__":
        run_script(main)

Library code raises UserError("what, where, what to do"); run_script prints it as one line,
`script: message`, and sets the exit status. No module but the scripts knows a script's name.
"""

import argparse
import contextlib
import difflib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from common.console import visible

# Exit statuses of all scripts; 128 + n after signal n.
DONE = 0
FAILED = 1  # the last line says what, where, and what to do
WRONG_OPTION = 2
LEFT_OUT = 3  # done, and what was left out is named
INTERRUPTED = 130
OUTPUT_CLOSED = 141  # what a shell shows for SIGPIPE

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
CLOSE = 0.7  # difflib ratio of a suggestion: `promt` for `prompt` 0.91, `bogus` for `qos` 0.5
TAB = "_ARGCOMPLETE"  # set by the shell when the Tab key is pressed, see complete()


class _Closed(io.TextIOWrapper):
    """Standard output that was closed (`>&-`): what is printed is lost, and `lost` says so."""

    lost = False

    def write(self, text: str) -> int:
        self.lost = self.lost or bool(text)
        return super().write(text)


class UserError(Exception):
    """An error that the user can fix. The text says what is wrong, where, and what to do."""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Call a script's main() and exit with its status; every expected error becomes one line.

    UserError: `script: text`, status 1. Ctrl-C: 130. A closed standard output (`| head`): 141.
    Errors of the system, input nested too deep and too little memory: in words, status 1.
    """
    _open_streams()
    if not sys.warnoptions:  # a library's warnings speak to programmers, of no file of the user
        warnings.simplefilter("ignore")
    try:
        _refuse_odd_timeouts()
        status = main() or DONE
    except UserError as error:
        status = _say(error)
    except KeyboardInterrupt:
        status = _say("interrupted", INTERRUPTED)
    except ModuleNotFoundError as error:
        status = _say(_missing(error))
    except SystemExit as end:  # --help, --version, a wrong option
        if not isinstance(end.code, int | None):
            raise
        status = end.code or DONE
    except RecursionError:
        status = _say("the input is nested too deep to be read")
    except MemoryError:
        status = _say("not enough memory")
    except OSError as error:
        status = _disk_or_pipe(error)
    sys.exit(_flushed(status))


def _refuse_odd_timeouts() -> None:
    """UserError: as huggingface_hub is loaded, by many modules, it ends with such a setting."""
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        if not os.environ.get(name, "0").strip().isdecimal():
            raise UserError(f"{name} in the environment is no whole number of seconds")


def _open_streams() -> None:
    """Make the standard streams usable: open closed ones (`>&-`), escape what one cannot show.

    Without this, sys.stdout is None and the next opened file gets descriptor 1; and printing `…`
    in an ASCII locale ends a script.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            if name == "stdout":
                sys.stdout = _Closed(os.fdopen(number, "wb", closefd=False))
            else:
                setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):  # Python's own choice for standard error
        sys.stdout.reconfigure(errors="backslashreplace")


def _missing(error: ModuleNotFoundError) -> str:
    """The message about a package that is not installed: most often the wrong Python runs."""
    package = (error.name or str(error)).partition(".")[0]
    return (
        f"the package {package} is not installed for {sys.executable}: `. .venv/bin/activate` in "
        "the checkout, or call .venv/bin/python; to set it up: README.md, step 0"
    )


def say_what_is_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """sys.excepthook of the scripts: imports at their heads fail before run_script() is called.

    Ctrl-C during them: Python itself ends with the signal then, which a shell shows as 130.
    """
    if issubclass(kind, KeyboardInterrupt):
        _say("interrupted")
        return
    if isinstance(error, ModuleNotFoundError) and error.name not in (None, "common", "generate"):
        _say(_missing(error))
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = say_what_is_missing


def _disk_or_pipe(error: OSError) -> int:
    """Print an OSError with the file that it names. Those of print() and read() name none."""
    if isinstance(error, BrokenPipeError):
        return _say("standard output was closed before the end", OUTPUT_CLOSED)
    what = error.filename or "standard output or a file"
    return _say(f"{what}: {error.strerror or error}")


def _flushed(status: int) -> int:
    """The exit status after standard output is flushed; Python prints no error of its own then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if status == DONE and isinstance(error, OSError):
            error.filename = "standard output"
            return _disk_or_pipe(error)
    if isinstance(sys.stdout, _Closed) and sys.stdout.lost:
        status = max(status, _say("standard output is closed, so that what was printed is lost"))
    return status


def _say(what: object, status: int = FAILED) -> int:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody is there to read it
            print(f"{script_name()}: {visible(what)}", file=sys.stderr, flush=True)
    return status


def script_name() -> str:
    """The name of the script that runs, without .py."""
    return Path(sys.argv[0]).stem


class _ShowVersion(argparse.Action):
    """--version. Only this asks git for the commit."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        from common.version import version

        print(parser.prog, version())
        parser.exit()


class Options(argparse.ArgumentParser):
    """argparse with true/false options, near names in its errors, and errors of one line.

    Every script knows --version; hyphens in an option's name are taken for underscores.
    """

    def __init__(self, doc: str | None, **kwargs: Any) -> None:
        super().__init__(
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.flags: set[str] = set()
        self.may_be_empty: set[str] = set()  # options for which "" is a value
        # no attribute of the result: some scripts pass all of them on
        self.add_argument(
            "--version",
            action=_ShowVersion,
            nargs=0,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            help="print the version and exit",
        )

    def format_help(self) -> str:
        """Help with a usage of one line: a usage that lists 60 options would fill a screen."""
        if self.usage is None:
            places = [action for action in self._actions if not action.option_strings]
            named = [action for action in self._actions if action.option_strings]
            words = [str(action.metavar or action.dest) for action in places]
            words += [
                f"{action.option_strings[0]} {action.metavar or action.dest.upper()}"
                for action in named
                if action.required
            ]
            self.usage = " ".join(["%(prog)s", *words, "[options]"])
        return super().format_help()

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse, but that --help on a full disk is an error."""
        if file is sys.stdout:
            print(message, end="")
        else:
            super()._print_message(message, file)

    def flag(
        self,
        name: str,
        help: str,
        default: bool | None = False,
        group: argparse._ArgumentGroup | None = None,
    ) -> None:
        """Add a true/false option: `--name`, `--name=False`, `--name no`, `--no-name`.

        Only a true/false word is taken as its value: `--use_slurm HPDv2.json` keeps the path.
        default None: the help text says what happens without the option.
        """
        self.flags.add(name)
        (group or self).add_argument(
            name,
            type=_true_or_false,
            default=default,
            metavar="True|False",
            help=help if default is None else f"{help} (default: {default})",
        )

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As argparse; an unknown option ends the script with status 2 and the nearest name."""
        if TAB in os.environ:
            complete(self)
        words = self.plain_words(list(sys.argv[1:] if args is None else args))
        known, unknown = self.parse_known_args(words, namespace)
        for option in unknown:
            name = option.split("=")[0]
            names = [n for action in self._actions for n in action.option_strings]
            near = nearest(name, names)
            hint = f", did you mean {near}?" if near else ", see --help"
            self.error(f"unknown argument {option!r}{hint}")
        return known

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """As argparse; "", as an unset shell variable gives it, is no value."""
        means = "" in (action.default, action.const)
        means = means or not self.may_be_empty.isdisjoint(action.option_strings)
        if not arg_string and not means:
            what_helps = "; leave the option out" if action.option_strings else ""
            raise argparse.ArgumentError(action, f"it is empty{what_helps}")
        return super()._get_value(action, arg_string)

    def at_most_one(self, args: argparse.Namespace, *names: str) -> None:
        """End with status 2 if several of these options are given: all but one would be lost."""
        values = [(name, getattr(args, name)) for name in names]
        given = [f"--{name}" for name, value in values if value is not None and value is not False]
        if len(given) > 1:
            self.error(f"{' and '.join(given)} do not go together: one at a time")

    def plain_words(self, words: list[str]) -> list[str]:
        """The words in one spelling: `--name` of a flag as `--name=True`, `--no-name` as
        `--name=False`, hyphens in a name as underscores where that is the option's name.
        """
        negated = {f"--no-{name.removeprefix('--')}": name for name in self.flags}
        known = {*negated, *(name for action in self._actions for name in action.option_strings)}
        followed_by = [*words[1:], ""]
        result = []
        for word, following in zip(words, followed_by, strict=False):
            word = _underscored(word, known)
            if word in negated:
                word = f"{negated[word]}=False"
            elif word in self.flags and following.lower() not in WORDS:
                word = f"{word}=True"
            result.append(word)
        return result

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line, without argparse's long usage before it."""
        self.exit(WRONG_OPTION, f"{self.prog}: {visible(message)}\n")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The option that was meant, if one is close. Hyphens are dropped before comparing."""
    bare = {each.lstrip("-"): each for each in names}
    near = difflib.get_close_matches(name.lstrip("-"), bare, 1, CLOSE)
    return bare[near[0]] if near else None


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the Tab key: print the completions of COMP_LINE, and exit.

    The shell calls a script that has the mark PYTHON_ARGCOMPLETE_OK in its first 1024 bytes.
    """
    try:
        import argcomplete  # only when the shell asks: --help takes 0.1 s without it
    except ModuleNotFoundError:
        parser.exit(FAILED)  # the script must not do its work at a Tab
    argcomplete.autocomplete(parser)


def _underscored(word: str, known: set[str]) -> str:
    """`--use-slurm=True` as `--use_slurm=True`; a word that is no option stays as it is."""
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name in known:
        return word
    prefix = "--no-" if name.startswith("--no-") else "--"
    for lead in (prefix, "--"):
        other = lead + name.removeprefix(lead).replace("-", "_")
        if other in known:
            return other + equals + value
    return word


def _true_or_false(word: str) -> bool:
    if word.lower() not in WORDS:
        raise argparse.ArgumentTypeError(f"{word!r} is neither True nor False")
    return WORDS[word.lower()]
