"""Which prompts combine.py drops, decided one by one, with all cores where there are many: the validation set, then the filters.

for reason, match, similarity, flags, folded in judge(prompts, excluded, args): ...
"""

import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from combine_prompts import filters
from combine_prompts.decontamination import Excluded
from combine_prompts.processor import fold

CHUNK = 5_000
INLINE = 20_000  # fewer prompts than this are not worth starting processes


def judge(prompts, excluded, args):
    """Yield, per prompt and in order, (reason or None, match, similarity, flags, folded text); with all cores where it is worth it."""
    chunks = [prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK)]
    if len(prompts) < INLINE or args.num_workers < 2:
        prepare(excluded, args)
        yield from progress(map(judge_chunk, chunks), len(prompts))
        return
    with ProcessPoolExecutor(
        args.num_workers, multiprocessing.get_context("spawn"), prepare, (excluded, args)
    ) as pool:
        try:
            yield from progress(pool.map(judge_chunk, chunks), len(prompts))
        except BrokenProcessPool:
            raise SystemExit(
                "combine: a worker process was killed (out of memory? try a smaller --num_workers); nothing was written"
            )


def progress(results, total):
    """The results of the chunks one by one; a bar on a terminal, a line every 30 s in a log."""
    from tqdm import tqdm

    said = time.monotonic()
    done = 0
    with tqdm(total=total, unit=" prompts", desc="filters", disable=None, mininterval=1) as bar:
        for chunk in results:
            yield from chunk
            done += len(chunk)
            bar.update(len(chunk))
            if bar.disable and time.monotonic() - said > 30:
                said = time.monotonic()
                print(f"combine: {done:,} of {total:,} prompts filtered", flush=True)


def prepare(excluded, args):
    global EXCLUDED, ARGS
    EXCLUDED, ARGS = Excluded(excluded, fold), args
    if multiprocessing.parent_process():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def judge_chunk(prompts):
    profane = (
        filters.profanity_scores(prompts) > filters.PROFANITY_SCORE
        if ARGS.profanity != "keep"
        else [False] * len(prompts)
    )
    return [judge_one(prompt, bool(bad)) for prompt, bad in zip(prompts, profane)]


def judge_one(prompt, profane):
    folded = fold(prompt)
    found = EXCLUDED.find(folded)
    flags = []
    if found:
        return f"validation set: {found[0]}", found[1], found[2], flags, folded
    if filters.sexualises_minors(prompt):
        reason = "sexual content and an age word"
    elif ARGS.sexual == "drop" and filters.explicit(prompt):
        reason = "sexual content"
    elif profane and ARGS.profanity == "drop":
        reason = "profanity"
    else:
        reason = filters.length(prompt, ARGS)
        if reason is None and ARGS.language == "en" and not filters.language_is_english(prompt):
            reason = "not English"
    if profane and ARGS.profanity == "flag":
        flags.append("profanity")
    if ARGS.sexual == "flag" and filters.explicit(prompt):
        flags.append("sexual")
    return reason, None, None, flags, folded
