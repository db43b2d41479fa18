"""Screen many prompts and their variations, on all cores where there are many.

for judged in judge([("a fox in the snow", ["a fox at night"]), …], screen, num_workers=2): ...
"""

import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

from tqdm import tqdm

from common.command_line import UserError
from common.screening import Screen, Verdict

CHUNK = 5_000
INLINE = 20_000  # fewer prompts than this are not worth starting processes
LINE_EVERY_S = 30  # in a log file


Asked = tuple[str, list[str]]  # a prompt and its variations


@dataclass(frozen=True)
class Judged:
    """The verdicts on a prompt and on each of its variations."""

    prompt: Verdict
    variations: list[Verdict]


def judge(asked: Sequence[Asked], screen: Screen, num_workers: int) -> Iterator[Judged]:
    """The verdicts for each prompt, in order; in several processes for INLINE prompts and more."""
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    if len(asked) < INLINE or num_workers < 2:
        yield from _with_progress((judge_chunk(screen, chunk) for chunk in chunks), len(asked))
        return
    work = partial(_judge_elsewhere, pickle.dumps(screen))
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"))
    try:
        with _without_ctrl_c():
            results = pool.map(work, chunks)
        yield from _with_progress(results, len(asked))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory? try a smaller --num_workers); "
            "nothing was written"
        ) from None
    except BaseException:  # also Ctrl-C: do not wait for the chunks that are left
        # a second one fell into Python's own locks, and the end was waited for, for ever
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start processes that ignore Ctrl-C; this process gets it after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def judge_chunk(screen: Screen, chunk: Sequence[Asked]) -> list[Judged]:
    """The verdicts on some prompts and their variations; the variations of all in one go."""
    prompts = screen.judge_all([prompt for prompt, _ in chunk])
    variations = iter(
        screen.judge_variations(
            [text for _, texts in chunk for text in texts],
            [prompt for prompt, texts in chunk for _ in texts],
        )
    )
    return [
        Judged(verdict, [next(variations) for _ in texts])
        for verdict, (_, texts) in zip(prompts, chunk, strict=True)
    ]


def _judge_elsewhere(pickled: bytes, chunk: Sequence[Asked]) -> list[Judged]:
    return judge_chunk(_unpickled(pickled), chunk)


@lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Screen:
    """The judge in a worker process, made once."""
    screen = pickle.loads(pickled)
    assert isinstance(screen, Screen)
    return screen


def _with_progress(chunks: Iterable[list[Judged]], total: int) -> Iterator[Judged]:
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
