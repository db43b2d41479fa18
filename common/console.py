"""Output for people: log lines, and foreign text made safe for a terminal.

log = start_log("generate_images")
log.warning("disk full on %s", host)      # 2026-11-24 16:45:01Z WARNING disk full on gpu03
"""

import logging
import os
import re
import shutil
import sys
import time
import unicodedata
from typing import Any, TextIO

FORMAT = "%(asctime)sZ %(levelname)s %(message)s"
TIME = "%Y-%m-%d %H:%M:%S"
LONGEST_MESSAGE = 20_000  # characters


def start_log(name: str, file: TextIO | None = None) -> logging.Logger:
    """Log with time (UTC) and level to standard output, and to `file`.

    Logging never raises: a full disk or a closed output costs lines, not the run.
    """
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if file is not None:
        handlers.append(logging.StreamHandler(file))
    for handler in handlers:
        handler.setFormatter(VisibleLines(FORMAT, TIME))
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    return logging.getLogger(name)


class VisibleLines(logging.Formatter):
    """Every message on one line, and every foreign name in it harmless for a terminal."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime(datefmt or TIME, time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message, LONGEST_MESSAGE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(visible(line) for line in super().formatException(ei).split("\n"))


def visible(text: object, limit: int = 2000) -> str:
    """Foreign text on one line: control, bidi and invisible characters as \\x1b, \\u202e.

    Everything that comes from elsewhere (file names, LLM answers, error texts, other hosts) goes
    through here before it reaches a terminal or a log. At most `limit` characters.
    """
    shown = str(text)
    if not shown.isascii() or not shown.isprintable():
        shown = "".join(
            character if _harmless(character) else _escape(character) for character in shown
        )
    return shown if len(shown) <= limit else shown[:limit] + "…"


def name_of(given: str) -> str:
    """A foreign name, such as that of a source: on one line, at most 200 characters."""
    return visible(given, 200)


NO_LINK = {ord(":"): "&#58;", ord("."): "&#46;", ord("@"): "&#64;"}


def in_markdown(text: object, limit: int = 300) -> str:
    """Foreign text escaped for Markdown: one line, no markup, no address that becomes a link."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", visible(text, limit))
    return re.sub(r"://|(?i:www)\.|@", lambda found: found[0].translate(NO_LINK), escaped)


def _harmless(character: str) -> bool:
    return character.isprintable() and unicodedata.category(character) not in ("Cf", "Cc", "Cs")


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def near_path(path: str | os.PathLike[str]) -> str:
    """A path relative to the working directory if it lies below that, else as it is."""
    near = os.path.relpath(path)
    return os.fspath(path) if near.startswith("..") else near


def this_python() -> str:
    """This Python in a command for the user: `python` if PATH finds it so, else its path."""
    return "python" if shutil.which("python") == sys.executable else near_path(sys.executable)


INDENT = " " * 11  # under a label: "workers    12", then what belongs to it


def duration(s: float) -> str:
    """A number of seconds as text: "45 s", "12 min", "7 h", "3 days"."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if s >= 2 * length:
            return f"{s / length:.0f} {unit}"
    return f"{s:.0f} s"


def amount(size: float) -> str:
    """A number of bytes as text: "412 kB", "8.2 TB"."""
    power = min(5, max(0, (len(f"{size:.0f}") - 1) // 3))
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def first_line(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
