"""The three ways of llm_prompting.py on the command line: one prompt by hand, a table of all backends, variations for a whole file.

from generate.llms.commands import whole_file       # called by llm_prompting.py's main()
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from generate.llms.options import prompter_of
from generate.llms.prompter import AllOff

WINDOW = 256  # prompts under way at a time: more than the slots of any list of backends, few enough for memory


def to_stderr(line):
    print(line, file=sys.stderr, flush=True)


def one_prompt(args):
    """Print variations of --prompt, with backend, seconds, tokens and cost. Exit status 3 when there are fewer than asked for."""
    prompter = prompter_of(args, ":memory:", args.seed, to_stderr)
    try:
        prompter.start()
        began = time.monotonic()
        answer = prompter.submit(args.prompt, args.n).result()
        seconds = time.monotonic() - began
    except AllOff as error:
        raise SystemExit(f"llm_prompting.py: {error}") from None
    except KeyboardInterrupt:
        return 130
    finally:
        prompter.close()
    for place, item in enumerate(answer.texts, 1):
        print(f"{place:3}. {item['text']}  [{item['backend']}]")
    print(totals_line(prompter.use(), seconds))
    if answer.short:
        print(f"     {answer.short['missing']} fewer than asked for: {answer.short['reason']}")
    return 3 if answer.short else 0


def totals_line(use, seconds):
    sums = {
        key: sum(b[key] for b in use["backends"].values())
        for key in ("calls", "prompt_tokens", "completion_tokens")
    }
    return (
        f"     {sums['calls']:,} calls, {seconds:.1f} s, {sums['prompt_tokens']:,} + {sums['completion_tokens']:,} tokens "
        f"(asked + answered), {use['usd']:.4f} USD"
    )


# ---------------------------------------------------------------- --check


def check(args):
    """Ask every backend for one text and print a table. Exit status 0 when at least one would be used, else 1."""
    prompter = prompter_of(args, ":memory:", args.seed, lambda line: None)
    rows = []

    async def look():
        backends = prompter.backends
        if prompter.embedded:
            from examples import embedded_llm

            prompter.server = embedded_llm.Server(lambda line: None)
            backends = [prompter.server.backend()]
        return await asyncio.gather(*(look_at(prompter, backend) for backend in backends))

    try:
        rows = asyncio.run(look())
    finally:
        if prompter.server:
            prompter.server.stop()
    header = ("backend", "tier", "key", "reachable", "model", "first token", "what to do")
    widths = [max(len(str(row[k])) for row in [header, *rows]) for k in range(len(header) - 1)]
    for row in [header, *rows]:
        print(
            "  ".join(
                [str(cell).ljust(width) for cell, width in zip(row, widths)] + [str(row[-1])]
            ).rstrip()
        )
    usable = sum(row[-1] == "" for row in rows)
    print(f"{usable} of {len(rows)} backends can be used")
    return 0 if usable else 1


async def look_at(prompter, backend):
    """(name, tier, key, reachable, model there, first-token latency, what to do)"""
    from generate.llms import variations
    from generate.llms.failures import classify

    key_env = backend.details["key_env"]
    key = "not needed" if not key_env else "present" if os.environ.get(key_env) else "missing"
    row = [backend.name, backend.tier + 1, key, "-", "-", "-", ""]
    if key == "missing":
        return *row[:-1], f"set {key_env}"
    if backend.off_kind == "budget":
        return *row[:-1], "costs money: name --llm_budget_usd to try and use it"
    try:
        async with asyncio.timeout(min(backend.timeout_s, 60)):
            seconds = await backend.ask.first_token(
                [("user", f"Write one caption for an image of {variations.EXAMPLE[0]}.")]
            )
    except Exception as error:
        failure = classify(error)
        reached = failure.kind not in ("refused", "timeout")
        hints = {
            "refused": "start it (ollama serve), or check host and port"
            if backend.details["provider"] == "ollama"
            else "check base_url and the network",
            "timeout": "no answer in time: it hangs, still loads the model, or is overloaded",
            "rate limit": "wait, or lower requests_per_minute",
        }
        todo = (
            backend.remedies.get(failure.kind)
            or hints.get(failure.kind)
            or f"{failure.kind}: {failure.text}"
        )
        return (
            *row[:3],
            "yes" if reached else "no",
            "no" if failure.kind == "model" else "-",
            "-",
            todo,
        )
    return *row[:3], "yes", "yes", f"{seconds:.2f} s", ""


# ---------------------------------------------------------------- a whole file


def whole_file(args):
    """Write --output: the prompts of the file with --num_variations variations each. Exit status 3 when some got fewer.

    What is finished is kept in OUTPUT.part (a JSON line per prompt) until the output is complete, so that the same command goes on where
    it was stopped; with a budget, OUTPUT.accounts keeps what was spent.
    """
    from tqdm import tqdm

    from generate.dataset import prompts_file

    items, output = prompts_file.read_prompts(args.prompts_file), Path(args.output)
    items = [item if isinstance(item, dict) else {"prompt": item} for item in items]
    if not output.parent.is_dir():
        raise SystemExit(f"llm_prompting.py: the folder of --output {output} does not exist")
    if output.is_dir():
        raise SystemExit(
            f"llm_prompting.py: --output {output} is a folder; name a file, such as {output / 'prompts.json'}"
        )
    about = {
        "prompts_sha256": prompts_file.list_sha256(items),
        "num_variations": args.num_variations,
    }
    part, accounts = (
        output.with_name(output.name + ".part"),
        output.with_name(output.name + ".accounts"),
    )
    done = read_part(part, about)
    stopped, off = [], None
    for word in (signal.SIGTERM, signal.SIGINT):
        signal.signal(word, lambda number, frame: stopped.append(number))
    bar = tqdm(total=len(items), initial=len(done), unit="prompt", disable=not sys.stderr.isatty())
    prompter = prompter_of(
        args,
        str(accounts) if args.llm_budget_usd > 0 else ":memory:",
        args.seed,
        lambda line: bar.write(line, file=sys.stderr),
    )
    began, told = time.monotonic(), time.monotonic()
    waiting, under_way = iter([k for k in range(len(items)) if k not in done]), {}
    try:
        with open(part, "a", encoding="utf-8") as lines:
            hold(lines)
            if not done and lines.tell() == 0:
                lines.write(json.dumps(about) + "\n")
            while not stopped:
                while (
                    not off and len(under_way) < WINDOW and (k := next(waiting, None)) is not None
                ):
                    known = list(items[k].get("variations") or [])
                    wanted = args.num_variations - len(known)
                    under_way[k] = (
                        prompter.submit(items[k]["prompt"], wanted, known) if wanted > 0 else None
                    )
                if not under_way:
                    break
                ready = [k for k, future in under_way.items() if future is None or future.done()]
                for k in ready:
                    future = under_way.pop(k)
                    try:
                        answer = future.result() if future else None
                    except AllOff as error:  # the others may still be answered, and paid for
                        off = error
                        continue
                    done[k] = {
                        "index": k,
                        "texts": [t["text"] for t in answer.texts] if answer else [],
                        "short": answer.short if answer else None,
                    }
                    lines.write(json.dumps(done[k]) + "\n")
                    bar.update()
                if ready:
                    lines.flush()
                    os.fsync(lines.fileno())
                else:
                    time.sleep(0.02)
                if bar.disable and time.monotonic() - told > 30:
                    told = time.monotonic()
                    to_stderr(
                        f"{len(done):,} of {len(items):,} prompts, {(told - began) / 60:.0f} min"
                    )
    except OSError as error:
        raise SystemExit(
            f"llm_prompting.py: cannot write {part}: {error.strerror}; the same command goes on from what it holds"
        ) from None
    finally:
        prompter.close()
        bar.close()
    if off:
        raise SystemExit(
            f"llm_prompting.py: {off}; {len(done):,} of {len(items):,} prompts are kept in {part}"
        )
    if stopped:
        to_stderr(
            f"llm_prompting.py: stopped; {len(done):,} of {len(items):,} prompts are kept, the same command goes on from here"
        )
        return 128 + stopped[0]
    write(
        output,
        [
            {**item, "variations": [*(item.get("variations") or []), *done[k]["texts"]]}
            for k, item in enumerate(items)
        ],
    )
    part.unlink()
    accounts.unlink(missing_ok=True)
    short = [k for k in done if done[k]["short"]]
    print(
        f"{output}: {len(items):,} prompts, {sum(len(d['texts']) for d in done.values()):,} new variations"
    )
    print(totals_line(prompter.use(), time.monotonic() - began))
    if short:
        first = min(short)
        print(
            f"     {len(short):,} prompts got fewer than {args.num_variations}; "
            f"the first is number {first}: {done[first]['short']['reason']}"
        )
    return 3 if short else 0


def hold(lines):
    """Refuse a second process that writes the same file: both would ask, and pay, for everything."""
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            f"llm_prompting.py: another process is writing {lines.name}; wait for its end, or name another --output"
        ) from None
    except OSError:
        pass  # a file system without locks: then it is the user's word that counts


def read_part(part, about):
    """{index: line} of what an earlier call finished. A half-written last line is dropped; a part of another list or number is refused."""
    try:
        data = part.read_bytes()
    except FileNotFoundError:
        return {}
    whole = data[: data.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]
    if lines and lines[0] != about:
        raise SystemExit(
            f"llm_prompting.py: {part} is of another prompts file or --num_variations; remove it to start afresh, or name another --output"
        )
    if len(whole) < len(data):
        with open(part, "r+b") as file:
            file.truncate(len(whole))
    return {line["index"]: line for line in lines[1:]}


def write(output, items):
    draft = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(items, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, output)
    except OSError as error:
        raise SystemExit(
            f"llm_prompting.py: cannot write {output}: {error.strerror}; nothing is lost, call again with room"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
