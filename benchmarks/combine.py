"""How long does combine.py take for a million prompts, and does its cost grow linearly?

    python benchmarks/combine.py [--quick]

Synthesises prompts from a grammar plus noise (names, style tails shared by many, 10 % duplicates: half the same text in other case and
punctuation, half near duplicates), writes them as four sources and a validation set of 1,500, and runs combine_prompts/combine.py with all
filters as a user does. The reference is a plain loop with datasketch (MinHash, MinHashLSH, the same shingles, threshold and bands, one
core),
which does near duplicates alone, in the same run on the smallest size.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = """fox knight castle robot sailor dragon teapot lighthouse owl market wizard train turtle violin garden bridge whale clock
    orchard temple harbor violinist astronaut""".split()
KINDS = """old tiny giant red golden broken glass wooden sleeping flying mossy frozen paper velvet rusty haunted striped singing marble
    copper""".split()
DOINGS = """reading a map|standing in the rain|made of seashells|under two moons|on a rooftop at dusk|holding a lantern|in a field
 of poppies|beside a frozen lake|chasing paper planes""".replace("\n", "").split("|")
STYLES = """oil painting|watercolor|highly detailed|artstation|concept art|sharp focus|8k|cinematic lighting|trending on artstation
|studio photo|35 mm|ink drawing|pixel art|soft light""".replace("\n", "").split("|")
TAIL = ", intricate, elegant, highly detailed, digital painting, artstation, concept art, smooth, sharp focus, illustration"


def main():
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
        f"{'prompts':>10} {'kept':>9} {'seconds':>9} {'CPU s':>7} {'prompts/s':>10} {'peak MB (all processes)':>24} {'growth':>20}",
        flush=True,
    )
    before = None
    for size in sizes:
        kept, seconds, cpu, peak = combine(size)
        growth = f"CPU x {cpu / before[1]:.1f} for x {size / before[0]:.1f}" if before else ""
        print(
            f"{size:>10,} {kept:>9,} {seconds:>9.1f} {cpu:>7.1f} {size / seconds:>10,.0f} {peak:>24,.0f} {growth:>20}",
            flush=True,
        )
        if before is None:
            smallest = size
        before = size, cpu
    ours, theirs, dropped, theirs_dropped = near_duplicates_only(smallest)
    print(
        f"\nnear duplicates alone, {smallest:,} prompts: near_duplicates.py {ours:.1f} s ({dropped:,} dropped), "
        f"plain datasketch loop {theirs:.1f} s ({theirs_dropped:,} candidates): x {theirs / ours:.1f}"
    )


def prompts(size, rng):
    """Yield `size` prompts; 10 % repeat an earlier one."""
    made = []
    for _ in range(size):
        if made and rng.random() < 0.1:
            old = rng.choice(made)
            yield f"{old.upper()} !" if rng.random() < 0.5 else f"{old}, {rng.choice(STYLES)}"
            continue
        name = "".join(rng.choice("bcdfgklmnprstv") + rng.choice("aeiou") for _ in range(3))
        text = f"a {rng.choice(KINDS)} {rng.choice(KINDS)} {rng.choice(SUBJECTS)} {rng.choice(DOINGS)} "
        text += f"near {name} with a {rng.choice(KINDS)} {rng.choice(SUBJECTS)}"
        text += (
            TAIL if rng.random() < 0.2 else ", " + ", ".join(rng.sample(STYLES, rng.randint(1, 5)))
        )
        if len(made) < 20_000:
            made.append(text)
        yield text


def combine(size):
    """Returns (prompts kept, seconds, CPU seconds, peak memory in MB of the process and its children together)."""
    with tempfile.TemporaryDirectory() as folder:
        folder, rng = Path(folder), random.Random(size)
        made = list(prompts(size, rng))
        names = [folder / f"{name}.json" for name in ("image_reward", "sac", "pickscore", "HPDv2")]
        for i, path in enumerate(names):
            path.write_text(json.dumps(made[i::4]))
        (folder / "gecko.json").write_text(
            json.dumps(
                [
                    f"{rng.choice(KINDS)} {rng.choice(SUBJECTS)} and {rng.choice(SUBJECTS)} {rng.choice(DOINGS)}"
                    for _ in range(1_450)
                ]
                + [prompt for prompt in made[:200] if TAIL[-20:] not in prompt.casefold()][:50]
            )
        )
        del made
        start, cpu = time.perf_counter(), cpu_seconds()
        process = subprocess.Popen(
            [
                sys.executable,
                ROOT / "combine_prompts" / "combine.py",
                *names,
                "--exclude",
                folder / "gecko.json",
                "--output",
                folder / "combined.json",
            ],
            stdout=subprocess.DEVNULL,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.2)
        if process.returncode:
            sys.exit(f"combine.py ended with exit status {process.returncode}")
        seconds = time.perf_counter() - start
        return (
            json.loads((folder / "combined.report.json").read_text())["kept"],
            seconds,
            cpu_seconds() - cpu,
            peak,
        )


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_mb(pid):
    """Proportional memory of a process and its children (Linux)."""
    total = 0
    try:
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return 0
    for each in pids:
        try:
            total += int(
                re.search(r"^Pss: +(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.M)[1]
            )
        except (OSError, TypeError):
            pass
    return total / 1024


def near_duplicates_only(size):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from datasketch import MinHash, MinHashLSH

    from combine_prompts import near_duplicates
    from combine_prompts.processor import fold

    made = list(dict.fromkeys(prompts(size, random.Random(size))))
    foldeds = [fold(prompt) for prompt in made]
    start = time.perf_counter()
    dropped = near_duplicates.find(made, foldeds)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    b, r = near_duplicates.BANDS, near_duplicates.ROWS
    lsh, hits = MinHashLSH(num_perm=b * r, params=(b, r)), 0
    for i, folded in enumerate(foldeds):
        sketch = MinHash(num_perm=b * r)
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
