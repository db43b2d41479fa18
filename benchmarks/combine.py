"""How long does combine.py take for a million prompts, and does its cost grow linearly?

    python benchmarks/combine.py [--quick]

Synthesises prompts from a grammar plus noise (names, style tails shared by many, 10 % duplicates:
half the same text in other case and punctuation, half near duplicates), writes them as four sources
and a validation set of 1,500, and runs combine_prompts/combine.py with all filters as a user does.
The reference is a plain loop with datasketch (MinHash, MinHashLSH, the same shingles, threshold and
bands, one core), which does near duplicates alone, in the same run on the smallest size.
"""

import argparse
import contextlib
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasketch import MinHash, MinHashLSH

from combine_prompts import near_duplicates
from common.files import CHECKOUT
from common.texts import fold, phrase_set, word_set

SUBJECTS = sorted(
    word_set(
        """fox knight castle robot sailor dragon teapot lighthouse owl market wizard train turtle
        violin garden bridge whale clock orchard temple harbor violinist astronaut"""
    )
)
KINDS = sorted(
    word_set(
        """old tiny giant red golden broken glass wooden sleeping flying mossy frozen paper velvet
        rusty haunted striped singing marble copper"""
    )
)
DOINGS = sorted(
    phrase_set(
        """reading a map, standing in the rain, made of seashells, under two moons, on a rooftop at
        dusk, holding a lantern, in a field of poppies, beside a frozen lake, chasing paper
        planes"""
    )
)
STYLES = sorted(
    phrase_set(
        """oil painting, watercolor, highly detailed, artstation, concept art, sharp focus, 8k,
        cinematic lighting, trending on artstation, studio photo, 35 mm, ink drawing, pixel art,
        soft light"""
    )
)
TAIL = (
    ", intricate, elegant, highly detailed, digital painting, artstation, concept art, smooth, "
    "sharp focus, illustration"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2,000 and 20,000 prompts")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[100_000, 300_000, 1_000_000],
        help="default: %(default)s",
    )
    args = parser.parse_args()
    sizes = [2_000, 20_000] if args.quick else args.sizes
    print(
        f"{'prompts':>10} {'kept':>9} {'seconds':>9} {'CPU s':>7} {'prompts/s':>10} "
        f"{'peak MB (all processes)':>24} {'growth':>20}",
        flush=True,
    )
    before = None
    for size in sizes:
        kept, seconds, cpu, peak = combine(size)
        growth = f"CPU x {cpu / before[1]:.1f} for x {size / before[0]:.1f}" if before else ""
        print(
            f"{size:>10,} {kept:>9,} {seconds:>9.1f} {cpu:>7.1f} {size / seconds:>10,.0f} "
            f"{peak:>24,.0f} {growth:>20}",
            flush=True,
        )
        before = (size, cpu)
    ours, theirs, dropped, theirs_dropped = near_duplicates_only(sizes[0])
    print(
        f"\nnear duplicates alone, {sizes[0]:,} prompts: near_duplicates.py {ours:.1f} s "
        f"({dropped:,} dropped), plain datasketch loop {theirs:.1f} s "
        f"({theirs_dropped:,} candidates): x {theirs / ours:.1f}"
    )


def prompts(size: int, rng: random.Random) -> Iterator[str]:
    """Yield `size` prompts; 10 % repeat an earlier one."""
    made = []
    for _ in range(size):
        if made and rng.random() < 0.1:
            old = rng.choice(made)
            yield f"{old.upper()} !" if rng.random() < 0.5 else f"{old}, {rng.choice(STYLES)}"
            continue
        name = "".join(rng.choice("bcdfgklmnprstv") + rng.choice("aeiou") for _ in range(3))
        text = f"a {rng.choice(KINDS)} {rng.choice(KINDS)} {rng.choice(SUBJECTS)} "
        text += (
            f"{rng.choice(DOINGS)} near {name} with a {rng.choice(KINDS)} {rng.choice(SUBJECTS)}"
        )
        text += (
            TAIL if rng.random() < 0.2 else ", " + ", ".join(rng.sample(STYLES, rng.randint(1, 5)))
        )
        if len(made) < 20_000:
            made.append(text)
        yield text


def combine(size: int) -> tuple[int, float, float, float]:
    """(prompts kept, seconds, CPU seconds, peak memory in MB of the process and its children)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [*write_sources(folder, size), "--output", folder / "combined.json"]
        start = time.perf_counter()
        cpu = cpu_seconds()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.2)
        if process.returncode:
            sys.exit(f"combine.py ended with exit status {process.returncode}")
        seconds = time.perf_counter() - start
        kept = json.loads((folder / "combined.report.json").read_text())["kept"]
        return kept, seconds, cpu_seconds() - cpu, peak


def write_sources(folder: Path, size: int) -> list[str | Path]:
    """Write four sources and a validation set; returns the command line up to the output."""
    rng = random.Random(size)
    made = list(prompts(size, rng))
    paths = [folder / f"{name}.json" for name in ("image_reward", "sac", "pickscore", "HPDv2")]
    for i, path in enumerate(paths):
        path.write_text(json.dumps(made[i::4]))
    validation = [
        f"{rng.choice(KINDS)} {rng.choice(SUBJECTS)} and {rng.choice(SUBJECTS)} "
        f"{rng.choice(DOINGS)}"
        for _ in range(1_450)
    ]
    leaks = [prompt for prompt in made[:200] if TAIL[-20:] not in prompt.casefold()]
    (folder / "gecko.json").write_text(json.dumps(validation + leaks[:50]))
    script = CHECKOUT / "combine_prompts" / "combine.py"
    return [script, *paths, "--exclude", folder / "gecko.json"]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_mb(pid: int) -> float:
    """Proportional memory of a process and its children (Linux)."""
    total = 0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    for each in [pid, *map(int, children)]:
        with contextlib.suppress(OSError):  # it has just ended
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            if found := re.search(r"^Pss: +(\d+)", rollup, re.M):
                total += int(found[1])
    return total / 1024


def near_duplicates_only(size: int) -> tuple[float, float, int, int]:
    """Seconds of near_duplicates.py and of datasketch; prompts dropped, candidates."""
    made = list(dict.fromkeys(prompts(size, random.Random(size))))
    foldeds = [fold(prompt) for prompt in made]
    start = time.perf_counter()
    dropped = near_duplicates.find(made, foldeds)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    bands = near_duplicates.BANDS
    rows = near_duplicates.ROWS
    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    hits = 0
    for i, folded in enumerate(foldeds):
        sketch = MinHash(num_perm=bands * rows)
        sketch.update_batch(
            [shingle.encode() for shingle in near_duplicates.shingles(folded.split())]
        )
        if lsh.query(sketch):
            hits += 1
        else:
            lsh.insert(i, sketch)
    return ours, time.perf_counter() - start, len(dropped), hits


if __name__ == "__main__":
    main()
