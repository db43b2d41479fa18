"""--status on a terminal: what the job server reports, and which logs to read.

python generate/generate_images.py HPDv2.json --status
python generate/image_server.py --status
"""

import http.client
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.console import INDENT, duration, visible
from generate.dataset.definition import newest_file
from generate.launch.acceptance import by_origin, line_of
from generate.launch.finished import lines_of
from generate.protocol.connection import Connection, ServerAway, lives_here
from generate.protocol.output_root import dataset_folder

# what a worker does, for people
WORDS = {
    "loading": "loading the model",
    "unknown": "starting",
    "warming_up": "warming up",
    "waiting_llm": "waiting for an LLM",
}

Document = dict[str, Any]  # GET /status, as generate/server/page/status.py makes it


@dataclass(frozen=True)
class Answer:
    """The server's status document, or None and why there is none."""

    document: Document | None
    why: str = ""

    def dataset(self, name: str) -> Document | None:
        """The counts of one data set; None if no server answers or it has not seen the set."""
        datasets = self.document["datasets"] if self.document else []
        return next((counts for counts in datasets if counts["name"] == name), None)


def fetch(output_root: str | os.PathLike[str]) -> Answer:
    """Ask the server of this output root for its status document."""
    try:
        connection = Connection(output_root)
    except ServerAway as error:
        return Answer(None, str(error))
    try:
        status, document = connection.get("/status")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = str(error) or type(error).__name__
        return Answer(None, f"the job server at {connection.url} broke off: {why}")
    finally:
        connection.close()
    if status != 200:
        why = str(document.get("error"))
        return Answer(None, f"the job server at {connection.url} answered {status}: {why}")
    return Answer(document)


def page_link(output_root: str | os.PathLike[str]) -> str:
    """A link to the page, good once and for ten minutes; "" if the server does not answer."""
    try:
        connection = Connection(output_root)
        _, answer = connection.get("/page_link")
        connection.close()
    except (ServerAway, OSError, http.client.HTTPException, ValueError):
        return ""
    return str(answer.get("url", ""))


def show(output_root: Path, dataset: str | None = None) -> int:
    """Print the status of this output root's server: of one data set, or of all.

    The exit status. UserError if no server answers; one data set is then counted from its files.
    """
    answer = fetch(output_root)
    if not answer.document:
        try:
            lines = lines_of(output_root, dataset) if dataset else []
        except ValueError as error:
            raise UserError(f"{answer.why}; {error}") from None
        if not lines:
            none = f"; there is no data set {dataset} in {output_root}" if dataset else ""
            raise UserError(with_a_start(answer.why + none, output_root))
        print("\n".join(lines))
        return 0
    print(render(answer.document, dataset, output_root))
    terminal = sys.stdout.isatty()
    link = page_link(output_root) if terminal else "(its link is a secret: on a terminal only)"
    print(f"page       {link}")
    return 0


def with_a_start(why: str, output_root: Path) -> str:
    """Why no server answers, and how to start one: that of a local run has ended with it."""
    if lives_here(output_root):
        return f"{why}; its process is alive, busy or stopped: ask again in a minute"
    start = "python generate/image_server.py --output_root"
    return (
        why if start in why else f"{why}; start it first: {start} {shlex.quote(str(output_root))}"
    )


def render(
    document: Document, dataset: str | None = None, output_root: str | os.PathLike[str] = "."
) -> str:
    """The status document as text for a terminal; what comes from elsewhere is made harmless."""
    server, health = document["server"], document["weather"]
    lines = [
        f"server     {server['hostname']}:{server['port']}, up {duration(server['uptime_s'])}, "
        f"epoch {server['epoch']}; {health['headline']}"
    ]
    lines += [INDENT + what for what in health["what_to_do"]]
    chosen = [counts for counts in document["datasets"] if dataset in (None, counts["name"])]
    if dataset and not chosen:
        lines.append(f"{dataset}: the server has not seen this data set yet")
    for counts in chosen:
        lines += _dataset(counts, output_root)
        newest = newest_file(dataset_folder(output_root, counts["name"]))[1]
        if newest and newest.name != "dataset.yaml" and counts["done"] < counts["total"]:
            per_prompt = counts["images_per_prompt"]
            lines.append(
                f"{INDENT}extended ({newest.name}): a prompt counts again, with its images, when "
                f"it has {per_prompt:,}; none is lost"
            )
    lines += _workers(document)
    lines += _failures(document, output_root)
    lines += _llms(document["llm"])
    lines.append(f"tunnel     {server['ssh']}")
    return "\n".join(visible(line) for line in lines)


def _dataset(counts: Document, output_root: str | os.PathLike[str]) -> list[str]:
    share = 100 * counts["done"] / counts["total"] if counts["total"] else 100
    rate = f", {counts['images_per_hour']:,.0f} an hour" if counts["images_per_hour"] else ""
    left = f", {duration(counts['eta_s'])} left" if counts["eta_s"] else ""
    equals = "=" if counts["sum_ok"] else "IS NOT"
    lines = [
        f"{counts['name']:10s} {counts['done']:,} of {counts['total']:,} prompts done "
        f"({share:.1f} %), {counts['images']:,} of {counts['images_expected']:,} images"
        f"{rate}{left}",
        f"{INDENT}{counts['waiting']:,} waiting + {counts['leased']:,} leased + "
        f"{counts['done']:,} done + {counts['set_aside']:,} failed {equals} {counts['total']:,}",
    ]
    if counts["short"]:
        lines.append(f"{INDENT}{incomplete(counts)}")
    if cut := not_read(counts):
        lines.append(f"{INDENT}{cut}")
    if acceptance := counts.get("acceptance"):
        lines.append(f"{INDENT}{line_of(acceptance)} (model {counts['model']})")
    what = "accepted" if acceptance else "images"
    for kind, title in (("llm", "LLM"), ("source", "source")):
        if said := by_origin(counts, kind):
            lines.append(f"{INDENT}{what} by {title}: {said}")
    if (packed := counts.get("packed")) and packed["folders"]:
        lines.append(
            f"{INDENT}{packed['folders']:,} of {packed['of']:,} folders are packed, with "
            f"{packed['images']:,} images"
        )
    if report := counts.get("report"):
        lines.append(f"{INDENT}report: {Path(output_root, report['file'])}")
    released = [f"{n:,} {reason}" for reason, n in counts["given_back"].items() if n]
    if released:
        lines.append(f"{INDENT}released: {', '.join(released)}")
    return lines


def incomplete(counts: Document) -> str:
    """One sentence on prompts that are done with fewer images than asked for."""
    return (
        f"{counts['short']:,} prompts are incomplete: {counts['short_images']:,} images fewer than "
        "asked for (fewer captions from the LLMs or the file, or some were refused)"
    )


def not_read(counts: Document) -> str:
    """How many texts no text encoder reads to the end; "": none, or an older server."""
    cut = counts.get("truncated")
    return f"{cut:,} texts are longer than the model reads (truncated)" if cut else ""


def _workers(document: Document) -> list[str]:
    workers = document["workers"]
    states = ", ".join(f"{n} {WORDS.get(state, state)}" for state, n in workers["by_state"].items())
    slow = f"; {workers['slow']} slow" if workers["slow"] else ""
    lines = [f"workers    {workers['total']}{': ' if states else ''}{states}{slow}"]
    for worker in document["quarantined"]:
        pause_s = worker["probe_in_s"]
        probe = f"next probe in {duration(pause_s)}" if pause_s else "being probed"
        lines.append(
            f"{INDENT}quarantined: {worker['host']} ({worker['gpu']}), {worker['failures']} "
            f"failures in a row, {probe}; release: {worker['command']}"
        )
    return lines


def _failures(document: Document, output_root: str | os.PathLike[str]) -> list[str]:
    lines = []
    failed = document["set_aside"]
    if failed["total"]:
        lines.append(f"failed     {failed['total']:,} prompts; try them again: {failed['command']}")
    for error in document["errors"]:
        log = f"; read {Path(output_root, error['log'])}" if error["log"] else ""
        lines.append(
            f"error      {error['reason']}, {error['count']:,} times, last {error['time']} on "
            f"{error['host']}: {_one_line(error['last_error'])}{log}"
        )
    return lines


def _llms(llm: Document | None) -> list[str]:
    if not llm or not llm["calls"]:
        return []
    of = f" of {llm['budget_usd']:.2f}" if llm["budget_usd"] is not None else ""
    tokens = llm["prompt_tokens"] + llm["completion_tokens"]
    lines = [
        f"LLMs       {llm['calls']:,} calls, {llm['failures']:,} failed; {tokens:,} tokens; "
        f"USD {llm['usd']:.2f}{of}"
    ]
    # A backend that is "unused" only has no client at the moment.
    ill = [backend for backend in llm["backends"] if backend["state"] in ("cooling", "off")]
    for backend in ill:
        lines.append(
            f"{INDENT}{backend['name']} {backend['state']}: {_one_line(backend['because'])}"
        )
    return lines


def _one_line(text: str | None) -> str:
    """Its first line, of at most 200 characters."""
    return ((text or "").strip().splitlines() or [""])[0][:200]
