"""llm_prompting.py FILE --output FILE: variations for each prompt of a file.

status = whole_file(args)

What is finished is kept in OUTPUT.part (a JSON line per prompt) until the output is complete, so
that the same command goes on where it was stopped; with a budget, OUTPUT.accounts keeps what was
spent.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common.command_line import LEFT_OUT, UserError
from common.console import visible
from common.files import open_own, write_whole
from common.json_form import COUNT, has_form
from common.json_text import parse_json
from common.untrusted import Refused, read_untrusted
from generate.dataset.prompts_file import Item, list_sha256, read_prompts
from generate.llms.commands import log_to_stderr, totals_line
from generate.llms.failures import NoBackendLeft
from generate.llms.prompter import Prompter, Variations, prompter_of

LOG = logging.getLogger(__name__)
# Prompts under way at a time: more than the slots of any list of backends, few enough for memory.
WINDOW = 256
PROGRESS_EVERY_S = 30.0
DETAILS = ("llm_model_name", "backend", "attributes")  # of each variation, kept beside it
NAME = (None, str)
DETAIL = (None, {"llm_model_name?": NAME, "backend?": NAME, "attributes?": (None, {str: str})})
PART_BYTES = 1 << 40  # it grows with the list; one that is sparse ends at its first zero byte
Line = dict[str, Any]  # of OUTPUT.part: {"index", "texts", "details", "short"}


def whole_file(args: argparse.Namespace) -> int:
    """Write --output: the prompts of the file with --num_variations variations each.

    Exit status 3 when some got fewer, 128 + n when signal n stopped it.
    """
    log_to_stderr()
    items = read_prompts(args.prompts_file)
    output = Path(args.output)
    if not output.parent.is_dir():
        raise UserError(f"the folder of --output {output} does not exist")
    if output.is_dir():
        example = output / "prompts.json"
        raise UserError(f"--output {output} is a folder; name a file, such as {example}")
    if output.suffix.lower() in (".txt", ".jsonl", ".parquet"):
        raise UserError(f"--output {output}: a JSON list is written; name a .json file")
    about = {"prompts_sha256": list_sha256(items), "num_variations": args.num_variations}
    kept_details = take_over(items, output)
    if all(len(item.get("variations") or []) >= args.num_variations for item in items):
        print(f"{output}: each of {len(items):,} prompts has its variations; no LLM is asked")
        return 0
    part = output.with_name(output.name + ".part")
    accounts = output.with_name(output.name + ".accounts")
    prompter = prompter_of(
        args, str(accounts) if args.llm_budget_usd > 0 else ":memory:", args.seed
    )
    began = time.monotonic()
    try:
        with open(part, "a", encoding="utf-8", opener=open_own) as lines, logging_redirect_tqdm():
            hold(lines)
            done = read_part(part, about, len(items))
            if not os.path.getsize(part):
                lines.write(json.dumps(about) + "\n")
            work = Work(prompter, items, done, args.num_variations)
            work.run(lines)
    except OSError as error:
        raise UserError(
            f"cannot write {part}: {error.strerror}; the same command goes on from what it holds"
        ) from None
    finally:
        prompter.close()
    kept = f"{len(done):,} of {len(items):,} prompts are kept"
    if work.no_backend:
        raise UserError(f"{work.no_backend}; {kept} in {part}")
    if work.stopped_by:
        LOG.info("stopped; %s, the same command goes on from here", kept)
        return 128 + work.stopped_by
    write(output, items, done, kept_details)
    part.unlink()
    accounts.unlink(missing_ok=True)
    new = sum(len(line["texts"]) for line in done.values())
    print(f"{output}: {len(items):,} prompts, {new:,} new variations")
    print(totals_line(prompter.use(), time.monotonic() - began))
    incomplete = [k for k in done if done[k]["short"]]
    if not incomplete:
        return 0
    first = min(incomplete)
    print(
        f"     {len(incomplete):,} prompts got fewer than {args.num_variations}; "
        f"the first is number {first}: {visible(done[first]['short']['reason'])}"
    )
    return LEFT_OUT


class Work:
    """The prompts being asked. SIGTERM and SIGINT end it after the line that is being written."""

    def __init__(
        self, prompter: Prompter, items: list[Item], done: dict[int, Line], wanted: int
    ) -> None:
        """done: {index: line} of what is finished; run() adds to it."""
        self.prompter = prompter
        self.items = items
        self.done = done
        self.wanted = wanted
        self.waiting = iter([k for k in range(len(items)) if k not in done])
        self.under_way: dict[int, concurrent.futures.Future[Variations]] = {}
        self.stopped_by = 0
        self.no_backend: NoBackendLeft | None = None

    def run(self, lines: TextIO) -> None:
        """Ask for everything that is not done, and write a line for each that is."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        began = time.monotonic()
        logged = began
        with tqdm(
            total=len(self.items),
            initial=len(self.done),
            unit="prompt",
            disable=not sys.stderr.isatty(),
        ) as bar:
            while not self.stopped_by:
                self._ask()
                if not self.under_way:
                    break
                ready = [k for k, future in self.under_way.items() if future.done()]
                finished = sum(self._finish(k, lines) for k in ready)
                bar.update(finished)
                if ready:
                    lines.flush()
                    os.fsync(lines.fileno())
                else:
                    time.sleep(0.02)
                now = time.monotonic()
                if bar.disable and now - logged > PROGRESS_EVERY_S:
                    logged = now
                    counts = f"{len(self.done):,} of {len(self.items):,} prompts"
                    LOG.info("%s, %.0f min", counts, (now - began) / 60)

    def _ask(self) -> None:
        while len(self.under_way) < WINDOW and not self.no_backend:
            k = next(self.waiting, None)
            if k is None:
                break
            known = self.items[k].get("variations") or []
            missing = max(0, self.wanted - len(known))
            self.under_way[k] = self.prompter.submit(self.items[k]["prompt"], missing, known)

    def _finish(self, k: int, lines: TextIO) -> bool:
        """Write the line of a prompt that was answered; False when nobody could be asked."""
        try:
            answer = self.under_way.pop(k).result()
        except NoBackendLeft as error:  # the others may still be answered, and paid for
            self.no_backend = error
            return False
        texts = [item["text"] for item in answer.texts]
        details = [{key: item[key] for key in DETAILS} for item in answer.texts]
        self.done[k] = {"index": k, "texts": texts, "details": details, "short": answer.short}
        lines.write(json.dumps(self.done[k]) + "\n")
        return True

    def _stop(self, number: int, _frame: object) -> None:
        self.stopped_by = number


def hold(lines: TextIO) -> None:
    """Refuse a second process that writes the same file: both would ask, and pay, for all."""
    # On a file system without locks a second process is not noticed.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is writing {lines.name}; "
                "wait for its end, or name another --output"
            ) from None


def read_part(part: Path, about: dict[str, Any], prompts: int) -> dict[int, Line]:
    """{index: line} of what an earlier call finished. A half-written last line is dropped.

    Raises UserError for a part of another list or number, or one that is damaged.
    """
    try:
        data = read_untrusted(part, PART_BYTES, text=True)
    except Refused as error:
        raise UserError(f"{part} is damaged: {error.strerror}; move it away") from None
    wanted = about["num_variations"]
    whole = data[: data.rfind(b"\n") + 1]
    lines: list[Any] = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(parse_json(line))
            if lines[0] == about and number > 1 and not is_line(lines[-1], wanted, prompts):
                raise ValueError("no line of this script")
        except ValueError:
            raise UserError(
                f"{part}: line {number} is damaged; remove that line, and its prompt is asked for "
                "again (the first one: remove the file)"
            ) from None
    if lines and lines[0] != about:
        raise UserError(
            f"{part} is of another prompts file or --num_variations; "
            "remove it to start afresh, or name another --output"
        )
    if len(whole) < len(data):
        os.truncate(part, len(whole))
    return {line["index"]: line for line in lines[1:]}


def is_line(line: Any, variations: int, prompts: int) -> bool:
    """Whether it is what Work writes of one of so many prompts."""
    form = {
        "index": range(prompts),
        "texts": [str],
        "details?": [DETAIL],
        "short": (None, {"reason": str, "missing?": COUNT}),
    }
    if not has_form(line, form) or len(line["texts"]) > variations:
        return False
    return "details" not in line or len(line["details"]) == len(line["texts"])


def take_over(items: list[Item], output: Path) -> dict[int, list[Any]]:
    """Give the items the variations that lie in `output` already, all of them; their details.

    UserError if it holds other prompts: what was asked, and paid for, is not written over.
    """
    if not output.exists():
        return {}
    known = read_prompts(output)
    same = [item["prompt"] for item in known] == [item["prompt"] for item in items]
    for item, before in zip(items, known, strict=False):
        mine = item.get("variations") or []
        same = same and (before.get("variations") or [])[: len(mine)] == mine
    if not same:
        raise UserError(
            f"{output} holds other prompts, or other variations of them; name another --output, "
            "or move it away"
        )
    details = {}
    for k, (item, before, raw) in enumerate(
        zip(items, known, parse_json(output.read_bytes()), strict=True)
    ):
        if before.get("variations"):
            item["variations"] = before["variations"]
            details[k] = raw.get("variation_details") if isinstance(raw, dict) else None
    return {k: each for k, each in details.items() if each and has_form(each, [DETAIL])}


def write(
    output: Path, items: list[Item], done: dict[int, Line], kept: dict[int, list[Any]]
) -> None:
    """The prompts file with the new variations behind those that it had.

    "variation_details" holds for each who wrote it and what was drawn for it, null for older ones.
    kept: the details of those it had.
    """
    augmented = []
    for k, item in enumerate(items):
        before = item.get("variations") or []
        details = (kept.get(k, []) + [None] * len(before))[: len(before)]
        details += done[k].get("details", [None] * len(done[k]["texts"]))
        variations = [*before, *done[k]["texts"]]
        augmented.append({**item, "variations": variations, "variation_details": details})
    try:
        # an LLM may give half a surrogate pair, which has no bytes
        text = json.dumps(augmented, ensure_ascii=False, indent=1).encode("utf-8", "replace")
        write_whole(output, text)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror}; nothing is lost, call again with room"
        ) from None
