"""`--part I/N`: N independent pieces of one job, and `--finish`, which puts the table's pieces together.

OUTPUT.parts/part-00000-of-00064.parquet, .state        a piece and its done mark, until --finish
OUTPUT/part-00000.parquet                               the table: a directory of N files, sorted and numbered as one run would
"""

import json
import os
import shutil

from postprocess_dataset import sorted_rows, table
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft


def part(text):
    """(I, N) of I/N."""
    i, n = map(int, text.split("/"))
    if not 0 <= i < n:
        raise ValueError
    return i, n


def finish(output, n):
    """Put the parts of all tasks together in a directory of part files, sorted and numbered as one run would. Returns the exit status."""
    from postprocess_dataset import increment

    folder = f"{output}.parts"
    fresh, old, used = (
        os.path.join(os.path.dirname(output), f".{os.path.basename(output)}.{word}")
        for word in ("fresh", "old", "used")
    )
    for leftover in (fresh, old, used):
        shutil.rmtree(leftover, ignore_errors=True)
    if os.path.isdir(output) and not os.path.exists(folder):
        rejected = sum("json" in line for line in increment.load_lines(f"{output}.rejects.jsonl"))
        rows = sum(table.footer(path).num_rows for path in table.files(output))
        print(f"{output}: {rows:,} rows, put together before; {rejected:,} rejected")
        return 3 if rejected else 0
    parts = [os.path.join(folder, f"part-{i:05d}-of-{n:05d}.parquet") for i in range(n)]
    missing = [str(i) for i, path in enumerate(parts) if not os.path.exists(f"{path}.state")]
    if missing:
        raise SystemExit(
            f"{output}: {len(missing)} of {n} parts are missing: {', '.join(missing[:20])}; "
            f"run --part {missing[0]}/{n} … and --finish again"
        )
    if os.path.isfile(output):
        raise SystemExit(
            f"{output} is a file; a table of parts is a directory: remove it or give another name"
        )
    facts = [table.facts(path) for path in parts]
    if any(f["base"] != facts[0]["base"] or f["relative"] != facts[0]["relative"] for f in facts):
        raise SystemExit(
            f"{output}: the parts were made of different folders or with different options; make them anew"
        )
    total = sum(sum(f["generations"]) for f in facts)
    unique = {
        json.dumps(line) for path in parts for line in increment.load_lines(f"{path}.rejects.jsonl")
    }  # all list some folders
    lines = list(map(json.loads, sorted(unique)))
    rejected = sum("json" in line for line in lines)
    if not total:
        increment.save_lines(f"{output}.rejects.jsonl", lines)
        raise SystemExit(
            f"{output} was not published: no good sample in {n} parts; {rejected:,} rejected (see {output}.rejects.jsonl)"
        )
    size = -(-total // n)
    os.mkdir(fresh)
    progress = Progress("samples", total)
    pending, first = [], 0
    pieces = sorted_rows.merge(
        [table.read_rows([path], batch_size=sorted_rows.MERGE_BATCH) for path in parts]
    )
    for first in range(0, total, size):
        with Draft(os.path.join(fresh, f"part-{first // size:05d}.parquet")) as draft:
            writer = sorted_rows.RowWriter(
                draft, {k: facts[0][k] for k in ("base", "relative")}, first
            )
            wanted = min(size, total - first)
            while wanted:
                piece = pending.pop() if pending else next(pieces)
                taken = piece.slice(0, wanted)
                writer.write(taken)
                wanted -= taken.num_rows
                progress.add(taken.num_rows)
                if taken.num_rows < piece.num_rows:
                    pending.append(piece.slice(taken.num_rows))
            writer.close([] if first else [total])
            draft.publish()
    if os.path.exists(output):
        os.rename(output, old)
    os.rename(fresh, output)
    shutil.rmtree(old, ignore_errors=True)
    for path, content in ((f"{output}.rejects.jsonl", lines), (f"{output}.gone.jsonl", [])):
        if content:
            increment.save_lines(path, content)
        elif os.path.exists(path):
            os.unlink(path)
    states = [increment.load_state(path) for path in parts]
    mtimes = {}
    for state in states:
        for subdirectory, mtime in state["folders"].items():
            mtimes[subdirectory] = min(mtime, mtimes.get(subdirectory, mtime))
    increment.save_state(output, min(state["scanned_ns"] for state in states), mtimes)
    os.rename(folder, used)  # from here on it is done
    shutil.rmtree(used)
    progress.close()
    print(
        f"{output}: {total:,} rows of {n} parts; {rejected:,} rejected, {len(lines) - rejected:,} images without JSON"
    )
    return 3 if rejected else 0
