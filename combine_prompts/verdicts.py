"""Which prompts combine.py drops, decided one by one, with all cores where there are many.

for verdict in judge(prompts, excluded, Rules(), num_workers=2): ...
"""

import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

from tqdm import tqdm

from combine_prompts import filters
from combine_prompts.decontamination import Excluded
from common.command_line import UserError
from common.texts import fold

CHUNK = 5_000
INLINE = 20_000  # fewer prompts than this are not worth starting processes
LINE_EVERY_S = 30  # in a log file


@dataclass(frozen=True)
class Rules:
    """What is dropped; profanity and sexual: "drop", "flag" or "keep"."""

    language: str = "en"
    min_words: int = 3
    max_words: int = 200
    min_chars: int = 8
    max_chars: int = 1000
    profanity: str = "drop"
    sexual: str = "drop"


@dataclass(frozen=True)
class Verdict:
    """Why a prompt is dropped ("": it stays), what it is like, its flags, its folded text."""

    folded: str
    reason: str = ""
    match: str | None = None
    similarity: float = 0.0
    flags: list[str] = field(default_factory=list)


class Judge:
    """The validation set first, then the filters."""

    def __init__(self, excluded: Sequence[str], rules: Rules) -> None:
        self.excluded = Excluded(excluded, fold)
        self.rules = rules

    def judge_all(self, prompts: Sequence[str]) -> list[Verdict]:
        """One verdict a prompt."""
        if self.rules.profanity == "keep":
            profane = [False] * len(prompts)
        else:
            scores = filters.profanity_scores(prompts)
            profane = [score > filters.PROFANITY_SCORE for score in scores]
        return [self._judge(prompt, bad) for prompt, bad in zip(prompts, profane, strict=True)]

    def _judge(self, prompt: str, profane: bool) -> Verdict:
        folded = fold(prompt)
        if found := self.excluded.find(folded):
            how, match, similarity = found
            return Verdict(folded, f"validation set: {how}", match, similarity)
        flags = []
        if profane and self.rules.profanity == "flag":
            flags.append("profanity")
        if self.rules.sexual == "flag" and filters.explicit(prompt):
            flags.append("sexual")
        return Verdict(folded, self._reason(prompt, profane), flags=flags)

    def _reason(self, prompt: str, profane: bool) -> str:
        rules = self.rules
        if filters.sexualises_minors(prompt):
            return "sexual content and an age word"
        if rules.sexual == "drop" and filters.explicit(prompt):
            return "sexual content"
        if profane and rules.profanity == "drop":
            return "profanity"
        words = len(prompt.split())
        if words < rules.min_words or len(prompt) < rules.min_chars:
            return "too short"
        if words > rules.max_words or len(prompt) > rules.max_chars:
            return "too long"
        if rules.language == "en" and not filters.language_is_english(prompt):
            return "not English"
        return ""


def judge(
    prompts: Sequence[str], excluded: Sequence[str], rules: Rules, num_workers: int
) -> Iterator[Verdict]:
    """A verdict per prompt, in order; with several processes where it is worth it."""
    judge = Judge(excluded, rules)
    chunks = [prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK)]
    if len(prompts) < INLINE or num_workers < 2:
        yield from _with_progress(map(judge.judge_all, chunks), len(prompts))
        return
    work = partial(_judge_elsewhere, pickle.dumps(judge))
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"))
    try:
        with _without_ctrl_c():
            results = pool.map(work, chunks)
        yield from _with_progress(results, len(prompts))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory? try a smaller --num_workers); "
            "nothing was written"
        ) from None
    except BaseException:  # Ctrl-C among them: nobody waits for the chunks that are left
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started here never see Ctrl-C; this one sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _judge_elsewhere(pickled: bytes, prompts: Sequence[str]) -> list[Verdict]:
    return _unpickled(pickled).judge_all(prompts)


@lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Judge:
    """The judge in a worker process, made once."""
    judge = pickle.loads(pickled)
    assert isinstance(judge, Judge)
    return judge


def _with_progress(chunks: Iterable[list[Verdict]], total: int) -> Iterator[Verdict]:
    """The verdicts one by one; a bar on a terminal, a line every 30 s in a log."""
    shown = time.monotonic()
    done = 0
    with tqdm(total=total, unit=" prompts", desc="filters", disable=None, mininterval=1) as bar:
        for chunk in chunks:
            yield from chunk
            done += len(chunk)
            bar.update(len(chunk))
            if bar.disable and time.monotonic() - shown > LINE_EVERY_S:
                shown = time.monotonic()
                print(f"{done:,} of {total:,} prompts filtered", flush=True)
