"""How a run is doing, on the terminal: what the job server says, the errors with the log to read, and what a run will take.

python generate/generate_images.py HPDv2.json --status
python generate/image_server.py --status
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from itertools import islice
from pathlib import Path

from generate.client import model_recipes as model_families
from generate.protocol.connection import Connection, ServerAway

# The server's status document, or None and why there is none; the address of its page, with the token.
Answer = namedtuple("Answer", "document why url")


def fetch(output_root):
    """Ask the server of this output root for its status document: an Answer."""
    try:
        connection = Connection(output_root)
    except ServerAway as error:
        return Answer(None, str(error), None)
    try:
        status, document = connection.get("/status")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(
            None,
            f"the job server at {connection.url} broke off: {error or type(error).__name__}",
            None,
        )
    finally:
        connection.close()
    if status != 200:
        return Answer(
            None,
            f"the job server at {connection.url} answered {status}: {document.get('error')}",
            None,
        )
    return Answer(document, None, f"{connection.url.rstrip('/')}/?token={connection.token}")


def show(output_root, dataset=None):
    """Print the status of the server of this output root (of one data set, or of all); return the exit status: 1 if no server answers."""
    output_root = Path(output_root).resolve()
    answer = fetch(output_root)
    if not answer.document:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {answer.why}")
    print(render(answer.document, dataset, output_root))
    print(
        f"page       {answer.url if sys.stdout.isatty() else '(its link, which holds the token, is shown on a terminal only)'}"
    )
    return 0


def render(document, dataset=None, output_root="."):
    """The status document of the server (GET /status) as text for a terminal."""
    server, weather = document["server"], document["weather"]
    lines = [
        f"server     {server['hostname']}:{server['port']}, up {duration(server['uptime_s'])}, epoch {server['epoch']}; "
        f"{weather['headline']}"
    ]
    lines += [f"           {what}" for what in weather["what_to_do"]]
    chosen = [d for d in document["datasets"] if dataset in (None, d["name"])]
    if dataset and not chosen:
        lines.append(f"{dataset}: the server has not seen this data set yet")
    for d in chosen:
        share = 100 * d["done"] / d["total"] if d["total"] else 100
        rate = f", {d['images_per_hour']:,.0f} an hour" if d["images_per_hour"] else ""
        left = f", {duration(d['eta_s'])} left" if d["eta_s"] else ""
        lines.append(
            f"{d['name']:10s} {d['done']:,} of {d['total']:,} prompts done ({share:.1f} %), "
            f"{d['images']:,} of {d['images_expected']:,} images{rate}{left}"
        )
        equals = "=" if d["sum_ok"] else "IS NOT"
        lines.append(
            f"           {d['waiting']:,} waiting + {d['leased']:,} leased + {d['done']:,} done + "
            f"{d['set_aside']:,} set aside {equals} {d['total']:,}"
        )
        if d["short"]:
            lines.append(
                f"           {d['short']:,} prompts were done short of {d['short_images']:,} images (the LLMs gave fewer texts)"
            )
        if any(d["given_back"].values()):
            lines.append(
                "           given back: "
                + ", ".join(f"{n:,} {reason}" for reason, n in d["given_back"].items() if n)
            )
    workers = document["workers"]
    states = ", ".join(f"{n} {state}" for state, n in workers["by_state"].items())
    lines.append(
        f"workers    {workers['total']}"
        + (f": {states}" if states else "")
        + (f"; {workers['slow']} slow" if workers["slow"] else "")
    )
    for q in document["quarantined"]:
        probe = f"next probe in {duration(q['probe_in_s'])}" if q["probe_in_s"] else "being probed"
        lines.append(
            f"           quarantined: {q['host']} ({q['gpu']}), {q['failures']} failures in a row, {probe}; release: {q['command']}"
        )
    if document["set_aside"]["total"]:
        lines.append(
            f"set aside  {document['set_aside']['total']:,} prompts; try them again: {document['set_aside']['command']}"
        )
    for error in document["errors"]:
        log = f"; read {Path(output_root, error['log'])}" if error["log"] else ""
        lines.append(
            f"error      {error['reason']}, {error['count']:,} times, last {error['time']} on {error['host']}: "
            f"{one_line(error['last_error'])}{log}"
        )
    llm = document["llm"]
    if llm and llm["calls"]:
        of = f" of {llm['budget_usd']:.2f}" if llm["budget_usd"] is not None else ""
        lines.append(
            f"LLMs       {llm['calls']:,} calls, {llm['failures']:,} failed; "
            f"{llm['prompt_tokens'] + llm['completion_tokens']:,} tokens; USD {llm['usd']:.2f}{of}"
        )
        ill = [
            b for b in llm["backends"] if b["state"] in ("cooling", "off")
        ]  # "unused": no client is there
        lines += [f"           {b['name']} {b['state']}: {one_line(b['because'])}" for b in ill]
    lines.append(f"tunnel     {server['ssh']}")
    return "\n".join(lines)


# ---------------------------------------------------------------- before a run

QUOTA_S = (
    20  # a quota command that waits for a file server which is away would hold up the submission
)

# Assumed where nothing was measured: bytes a pixel of a JPEG, bytes of a .json, tokens of an instruction and of a variation.
JPEG_BYTES_A_PIXEL, JSON_BYTES, TOKENS_A_CALL, TOKENS_A_VARIATION = 0.4, 1500, 340, 40


def estimate(args, definition, items, output_root, document=None):
    """What the run will take, as lines: images, files, bytes against what the disk or a quota leaves, GPU hours if images an hour were
    measured, LLM calls, tokens and their cost."""
    stored = next(
        (d for d in (document or {}).get("datasets", []) if d["name"] == definition["name"]), None
    )
    per_prompt, prompts = definition["images_per_prompt"], definition["total"]
    images = prompts * per_prompt - (stored["images"] if stored else 0)
    there = f" ({stored['images']:,} more are there)" if stored and stored["images"] else ""
    lines = [f"estimate   {images:,} images{there}: {prompts:,} prompts x {per_prompt}"]
    sizes = [
        p.stat().st_size
        for p in islice(
            Path(output_root, "generated_images", definition["name"]).glob("*/*.jpg"), 50
        )
    ]
    size = (
        sum(sizes) / len(sizes)
        if sizes
        else JPEG_BYTES_A_PIXEL * definition["height"] * definition["width"]
    )
    files, total = 2 * images + prompts, images * (size + JSON_BYTES)
    lines.append(
        f"           {files:,} files, {amount(total)} ({amount(size)} an image, {'measured' if sizes else 'assumed'})"
    )
    for name, bytes_left, files_left in disk_limits(output_root):
        short = (bytes_left is not None and bytes_left < total) or (
            files_left is not None and files_left < files
        )
        left = [] if bytes_left is None else [amount(bytes_left)]
        left += (
            [] if files_left is None else [f"{files_left:,} files"]
        )  # btrfs and some network file systems count none
        if left:
            lines.append(
                f"           {'TOO LITTLE: ' if short else ''}{name} leaves {' and '.join(left)}"
            )
    rate, where = measured_rate(definition, output_root, document, stored)
    hours = (
        f"{images / rate:,.0f} GPU hours at {rate:,.0f} images an hour ({where})"
        if rate
        else "GPU hours unknown, as no images an hour were measured yet: --preview 8 does"
    )
    lines.append(
        f"           {hours}"
        + (
            f", {duration(3600 * images / rate / args.num_workers)} with {args.num_workers} workers"
            if rate
            else ""
        )
    )
    notice = model_families.family_of(definition["model"]).notice
    return (
        lines
        + llm_estimate(args, definition, items, document)
        + ([f"           note on the model: {notice}"] if notice else [])
    )


def llm_estimate(args, definition, items, document):
    wanted = definition["images_per_prompt"] - 1
    asking = sum("variations" not in item for item in items) if definition["augment_prompts"] else 0
    if not asking or wanted < 1:
        return ["           no LLM is asked"]
    calls, llm = asking * -(-wanted // 10), (document or {}).get("llm") or {}
    if llm.get("calls"):
        asks, answers, basis = (
            calls * llm["prompt_tokens"] / llm["calls"],
            calls * llm["completion_tokens"] / llm["calls"],
            "measured",
        )
    else:
        asks, answers, basis = (
            calls * TOKENS_A_CALL,
            asking * wanted * TOKENS_A_VARIATION,
            "assumed",
        )
    return [
        f"           {calls:,} LLM calls, {asks / 1e6:,.1f} + {answers / 1e6:,.1f} million tokens (asked + answered, {basis})"
        f"{cost(args, asks, answers)}"
    ]


def cost(args, asks, answers):
    """What those tokens cost at most: at the dearest paid backend, if no free one took any of them, and never above the budget."""
    if args.llm or args.llm_budget_usd <= 0:
        return ", free of charge (paid backends are off)"
    from generate.llms import backends_file as llm_backends

    backends = llm_backends.read(
        args.llm_backends or llm_backends.default_file(),
        args.ollama_hosts,
        args.llm_budget_usd,
        log=lambda *_: None,
    )
    dearest = (
        max(
            (
                asks * b.usd_per_million[0] + answers * b.usd_per_million[1]
                for b in backends
                if b.usd_per_million
            ),
            default=0,
        )
        / 1e6
    )
    capped = (
        f", capped at --llm_budget_usd {args.llm_budget_usd:g}"
        if dearest > args.llm_budget_usd
        else ""
    )
    return f", USD {dearest:,.2f} if paid backends took them all{capped}"


def measured_rate(definition, output_root, document, stored):
    """Images an hour of one worker, and where that was seen: this run, else a preview of the same model and size; else (None, None)."""
    drawing = (document or {}).get("workers", {}).get("by_state", {}).get("drawing")
    if stored and stored["images_per_hour"] and drawing:
        return stored["images_per_hour"] / drawing, "a worker of this run, now"
    try:
        rows = [
            json.loads(line)
            for line in Path(output_root, ".server", "measured.jsonl").read_text().splitlines()
        ]
    except OSError:
        return None, None
    keys = ("model", "height", "width", "num_inference_steps")
    rows = [row for row in rows if all(row.get(key) == definition.get(key) for key in keys)]
    return (
        (rows[-1]["images_per_hour"], f"--preview on {rows[-1].get('gpu_name')}")
        if rows
        else (None, None)
    )


def disk_limits(output_root):
    """What may still be written below output_root: [(who says so, bytes left or None, files left or None)]."""
    root = next(
        p for p in [Path(output_root).resolve(), *Path(output_root).resolve().parents] if p.exists()
    )
    stat = os.statvfs(root)
    limits = [
        ("the file system", stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else None)
    ]
    for words in (
        ["quota", "-w", "-p", "-u"],
        ["lfs", "quota", "-q", "-u", str(os.getuid()), str(root)],
    ):
        if shutil.which(words[0]):
            try:
                answer = subprocess.run(
                    words, capture_output=True, text=True, timeout=QUOTA_S
                ).stdout
            except (OSError, subprocess.TimeoutExpired) as error:
                print(f"no quota is known: {words[0]}: {type(error).__name__}", file=sys.stderr)
                continue
            limits += [
                (f"the quota of {row[0]}", *row[1:])
                for row in quota_rows(answer)
                if row[0] in mount_of(root)
            ]
    return limits


def quota_rows(text):
    """The rows of `quota -w -p` and `lfs quota -q`, "file system, kB used, soft, hard, grace, files used, soft, hard, grace":
    [(file system, bytes left or None, files left or None)]. 0 = no limit; the lower of soft and hard limit counts."""
    rows = []
    for line in text.splitlines():
        name, *words = line.split() or [""]
        numbers = [int(word.rstrip("*")) if word.rstrip("*").isdigit() else 0 for word in words]
        if len(numbers) >= 7 and words[0].rstrip("*").isdigit():
            left = [
                min(limits) - used if (limits := [n for n in (soft, hard) if n]) else None
                for used, soft, hard in (numbers[0:3], numbers[4:7])
            ]
            rows.append(
                (
                    name,
                    None if left[0] is None else max(0, left[0]) * 1024,
                    None if left[1] is None else max(0, left[1]),
                )
            )
    return rows


def mount_of(folder):
    """The device and the mount point that `folder` lies on."""
    with open("/proc/mounts") as mounts:
        fields = [line.split()[:2] for line in mounts]
    return max(
        (f for f in fields if Path(f[1]) in (folder, *folder.parents)), key=lambda f: len(f[1])
    )


def amount(size):
    """Bytes for people: "412 kB", "8.2 TB"."""
    power = min(5, max(0, (len(f"{size:.0f}") - 1) // 3))
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def duration(s):
    """Seconds for people: "45 s", "12 min", "7 h", "3 days"."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if s >= 2 * length:
            return f"{s / length:.0f} {unit}"
    return f"{s:.0f} s"


def one_line(text):
    """Its first line, of at most 200 characters."""
    return (str(text or "").strip().splitlines() or [""])[0][:200]
