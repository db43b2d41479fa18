"""Throughput of the LLM router over unreliable backends, beside langchain's with_fallbacks chain.

    python benchmarks/llm_router.py
    python benchmarks/llm_router.py --quick    # the same with latencies a fifth as long

8 fake Ollama hosts of 2 s: 4 good, 2 slow (6 s), 1 failing half the time, 1 hanging. 64 calls are
in flight at any time; each backend computes 8 at a time, more wait in it. "Share" is the throughput
as a share of what the healthy six can do (concurrency / latency each). The chain with_fallbacks
always begins with its first backend and has no memory, so it is measured twice: with the good ones
first, as a user would write it, and with each call's chain shuffled. CPU is that of this process;
the fakes run in processes of their own.
"""

import argparse
import asyncio
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from langchain_ollama import ChatOllama

from generate.llms.asking import messages, read_instruction, schema
from generate.llms.backend import Backend, BackendConfig, Reply
from generate.llms.backends_file import BackendsFile
from generate.llms.prompter import Prompter, PrompterSettings
from generate.llms.router import Router

ROOT = Path(__file__).resolve().parent.parent

CONCURRENCY, IN_FLIGHT = 8, 64
PLAN = (
    [("good", 1, None)] * 4
    + [("slow", 3, None)] * 2
    + [("half", 1, "500:0.5"), ("hang", 1, "hang:1.0")]
)


def start_fakes(latency):
    fakes, urls = [], []
    for _, factor, faults in PLAN:
        command = [
            sys.executable,
            ROOT / "tests" / "fakes" / "fake_llm.py",
            "ollama",
            "--latency",
            str(latency * factor),
            "--slots",
            str(CONCURRENCY),
        ]
        fakes.append(
            subprocess.Popen(
                command + (["--faults", faults] if faults else []),
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        urls.append(fakes[-1].stdout.readline().strip())
    return fakes, urls


def through_router(urls, seconds, timeout_s):
    """(answers a second in the window, calls made, CPU seconds a call)"""
    backends = "".join(
        f"  - {{provider: ollama, model: llama3.1, hosts: ['{url}'], "
        f"concurrency: {CONCURRENCY}, timeout_s: {timeout_s}}}\n"
        for url in urls
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("tiers:\n- backends:\n" + backends)
        file.flush()
        logging.disable()
        prompter = Prompter(BackendsFile(file.name), PrompterSettings(accounts=":memory:"))
        prompter.submit("warm-up", 1).result()
        began, cpu = time.monotonic(), time.process_time()
        done = k = 0
        pending = set()
        while time.monotonic() - began < seconds:
            ready = {future for future in pending if future.done()}
            done += len(ready)
            pending -= ready
            while len(pending) < IN_FLIGHT:
                pending.add(prompter.submit(f"a corgi number {k}", 3))
                k += 1
            time.sleep(0.01)
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        calls = sum(use["calls"] for use in prompter.use()["backends"].values())
        prompter.close()
    return done / elapsed, calls, cpu / max(1, calls)


def through_fallbacks(urls, seconds, timeout_s, shuffled):
    """The same with a chain of langchain's, each model with the same time limit a read.

    What finds no slot waits, as in Ollama.
    """

    async def run():
        draw = random.Random(1)
        models = [
            ChatOllama(
                model="llama3.1", base_url=url, async_client_kwargs={"timeout": timeout_s}
            ).bind(format=schema(3))
            for url in urls
        ]
        instruction = read_instruction()
        began, cpu = time.monotonic(), time.process_time()
        counts = [0, 0]  # answered, failed

        async def caller(k):
            while time.monotonic() - began < seconds:
                order = draw.sample(models, len(models)) if shuffled else models
                try:
                    await (
                        order[0]
                        .with_fallbacks(order[1:])
                        .ainvoke(messages(instruction, f"a corgi number {k}", 3))
                    )
                    counts[0] += time.monotonic() - began < seconds
                except Exception:
                    counts[1] += 1

        callers = [asyncio.create_task(caller(k)) for k in range(IN_FLIGHT)]
        await asyncio.sleep(seconds)
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        return counts[0] / seconds, counts[0], (time.process_time() - cpu) / max(1, counts[0])

    return asyncio.run(run())


def router_alone(calls):
    """CPU seconds a call of the router itself: backends that answer at once, in the process."""

    class Request:
        prompt_bytes = 2000

        def make(self, backend):
            return None

        def judge(self, backend, reply):
            return reply.text

    class Client:
        async def ask(self, request):
            await asyncio.sleep(0)
            return Reply("x", 100, 100)

    async def run():
        configs = [BackendConfig(f"b{k}", "none", "m", concurrency=CONCURRENCY) for k in range(8)]
        router = Router([Backend(config, Client()) for config in configs])
        left = iter(range(calls))

        async def caller():
            for _ in left:
                await router.call(Request())

        cpu = time.process_time()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return (time.process_time() - cpu) / calls

    return asyncio.run(run())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    latency, seconds, timeout_s = (0.4, 15, 4) if args.quick else (2.0, 90, 20)
    healthy = sum(
        CONCURRENCY / (latency * factor) for kind, factor, _ in PLAN if kind in ("good", "slow")
    )
    rows = []
    for name, measure in (
        ("llm_router", through_router),
        ("with_fallbacks, good first", lambda *a: through_fallbacks(*a, False)),
        ("with_fallbacks, shuffled", lambda *a: through_fallbacks(*a, True)),
    ):
        fakes, urls = start_fakes(latency)
        try:
            rows.append((name, *measure(urls, seconds, timeout_s)))
        finally:
            for fake in fakes:
                fake.kill()
                fake.wait()
    print(
        f"8 backends of {latency:g} s latency and {CONCURRENCY} slots, {IN_FLIGHT} at a time, "
        f"{seconds} s, time limit {timeout_s} s, load {os.getloadavg()[0]:.1f}; "
        f"the healthy six can do {healthy:.2f} calls/s"
    )
    print(f"{'':28} {'answers/s':>10} {'share':>7} {'ratio':>7} {'CPU ms a call':>14}")
    for name, rate, _, cpu in rows:
        print(
            f"{name:28} {rate:10.2f} {rate / healthy:7.2f} "
            f"{rate / max(rows[1][1], 1e-9):7.2f} {1000 * cpu:14.1f}"
        )
    print(f"the router itself, without any client: {1000 * router_alone(20_000):.3f} ms CPU a call")


if __name__ == "__main__":
    main()
