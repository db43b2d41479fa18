"""How busy the client keeps a device, what the whole client costs, and what a signal costs.

    python benchmarks/generate.py [--quick] [--part 1] [--ratio 5]

1. The real client, server and files, an LLM server that takes 2 s an answer (as a process of its
   own), and a device stand-in that holds a fixed time a batch of ten images of 512 x 512 pixels,
   part of it in Python as a real pipeline's loop does. A prompt is one LLM call and one batch.
   Beside it, in the same run, the one-after-the-other loop: ask, generate, save.

   By Little's law a device that takes a prompt in 1/5 of an answer's time needs 5 calls in flight.
   "Sufficient concurrency" is 16 calls at a time and leases of 20 prompts (two at most, so 40
   prompts). "Once running" leaves out what is the same however long a run is: its first three
   answers, in which the calls in flight grow from 2 to 16, and its end, where the job server's
   leases shrink to one prompt each, so that two of them hold fewer than 5. The last line of the
   table is a short data set with its start and its end.
2. The tiny model on this CPU: the whole client beside a bare `pipe(batch)` loop that saves nothing.
3. Seconds from SIGTERM to exit, and images that were generated but not published at SIGKILL.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy

from benchmarks.device_stand_in import BATCH, ENVIRONMENT, SIZE, Run, StandIn

ROOT = Path(__file__).resolve().parent.parent
LATENCY_S = 2.0
CHUNK = 20  # prompts a lease
RAMP_S = 3 * LATENCY_S  # the calls in flight grow 2, 4, 8, 16
# LLM time / device time of a prompt: batches. 0.1 = 20 s a batch
BATCHES = {0.1: 5, 0.5: 12, 1: 24, 2: 44, 5: 100}
QUICK_BATCHES = {0.5: 6, 1: 12, 5: 60}
WHOLE = (5, 80)  # a data set from its start to its end: ratio, prompts
LLM = str(ROOT / "tests" / "fakes" / "fake_llm.py")


def python_share():
    """Share of its time that a pipeline's loop spends in Python and in dispatching, not computing.

    That is what a call costs however few images it has, by its CPU time for 1 and for 16. From the
    tiny SD3, whose kernels are short: an upper bound for any bigger model.
    """
    from generate.pipelines.image_generator import ImageGenerator
    from generate.pipelines.pipeline import GeneratorSettings

    took = {}
    for size in (1, 16):
        generator = ImageGenerator(GeneratorSettings("tiny", batch_size=size))
        generator.load()
        generator.warm_up()
        tries = []
        for _ in range(5):
            began = (
                time.thread_time()
            )  # CPU time: on a busy machine the wall clock measures the others
            generator.generate(["a red circle on a white background"] * size, list(range(size)))
            tries.append(time.thread_time() - began)
        took[size] = min(tries)
    return (16 * took[1] - took[16]) / 15 / took[16]


def overlap(ratio, batches, python, llm, whole=False):
    """(share of the time in which the device was busy, images a second) of the shipped loop.

    whole: of a whole data set; else once running.
    """
    run = Run([f"a painting of bird number {i}" for i in range(batches if whole else 1000)], BATCH)
    (run.folder / "llm.yaml").write_text(
        json.dumps(
            {
                "tiers": [
                    {
                        "name": "here",
                        "backends": [
                            {
                                "provider": "ollama",
                                "model": "fake",
                                "hosts": [llm],
                                "concurrency": 16,
                            }
                        ],
                    }
                ]
            }
        )
    )
    client = run.stand_in(
        LATENCY_S / ratio, python, "--llm_backends", run.folder / "llm.yaml", "--chunk_size", CHUNK
    )
    while not whole and len(run.calls()) < batches:
        assert client.poll() is None, (run.folder / "client.out").read_text()
        time.sleep(0.05)
    if not whole:
        client.send_signal(signal.SIGTERM)
    assert client.wait() == 0, (run.folder / "client.out").read_text()
    run.close()
    calls = run.calls()
    assert run.published() == len(calls) * BATCH, "every image drawn was published"
    before = [] if whole else [end for begin, end in calls if begin < calls[0][0] + RAMP_S]
    running = calls[len(before) : batches]
    # a wait before the first batch that counts, counts
    span = running[-1][1] - (before[-1] if before else calls[0][0])
    return sum(end - begin for begin, end in running) / span, len(running) * BATCH / span


def one_after_the_other(ratio, prompts, python, llm):
    """Images a second of the loop that asks, draws, saves, one prompt after the other.

    With the same LLM, stand-in and JPEG quality.
    """
    from PIL import Image

    temporary, device = tempfile.TemporaryDirectory(prefix="bench-"), StandIn()
    folder = Path(temporary.name)
    os.environ |= {
        "STAND_IN_S": str(LATENCY_S / ratio),
        "STAND_IN_PYTHON": str(python),
        "STAND_IN_LOG": str(folder / "calls"),
    }
    began = time.monotonic()
    for index in range(prompts):
        texts = {"type": "array", "items": {"type": "string"}, "minItems": 9, "maxItems": 9}
        schema = {"type": "object", "properties": {"variations": texts}}
        asked = [{"role": "user", "content": f"9 variations of: a painting of bird number {index}"}]
        body = {"model": "x", "stream": False, "format": schema, "messages": asked}
        urllib.request.urlopen(
            urllib.request.Request(f"http://{llm}/api/chat", json.dumps(body).encode())
        ).read()
        for aug, image in enumerate(device([""] * BATCH, None).images):
            Image.fromarray((image * 255).round().astype(numpy.uint8).transpose(1, 2, 0)).save(
                folder / f"{index}_{aug}.jpg", quality=95
            )
            (folder / f"{index}_{aug}.json").write_text(json.dumps({"prompt_index": index}))
    return prompts * BATCH / (time.monotonic() - began)


BARE_LOOP = """
import sys, time; sys.path.insert(0, {generate!r})
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings
generator = ImageGenerator(GeneratorSettings("tiny"))
generator.load()
generator.warm_up()
pipeline = generator.pipeline
texts = ["a red circle above a blue square on a green background"] * 16
began = time.perf_counter()
for batch in range({batches}):
    seeds = [pipeline.make_generator(i) for i in range(16)]
    pipeline.pipe(prompt=texts, generator=seeds, output_type="pt", **generator.arguments)
print({batches} * 16 / (time.perf_counter() - began))
"""


def tiny(batches, times):
    """Images a second of the bare loop and of the whole client, the mean of so many runs each.

    Taken in turns.
    """
    prompts = [
        f"a {size} {colour} circle on a white background"
        for size in ("small", "large")
        for colour in ("red", "blue")
    ]
    bare, whole = [], []
    for _ in range(times):
        code = BARE_LOOP.format(generate=str(ROOT), batches=batches)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            check=True,
        )
        bare.append(float(done.stdout))
        run = Run(
            prompts * (batches // 4),
            16,
            ["a red circle above a blue square on a green background"] * 15,
        )
        client = run.client("--model", "tiny")
        assert client.wait() == 0, (run.folder / "client.out").read_text()
        run.close()
        line = next(
            line
            for line in (run.folder / "client.out").read_text().splitlines()[::-1]
            if "device busy" in line
        )
        whole.append(float(line.split(" images, ")[1].split("/s")[0]))
        assert run.published() == batches // 4 * 4 * 16
    return numpy.mean(bare), numpy.mean(whole)


def signals(python, times):
    """(seconds from SIGTERM to exit, images generated and not published at SIGKILL).

    The batch on the device is included.
    """
    rng, exits, lost = random.Random(1), [], []
    run = Run([f"bird {i}" for i in range(2000)], BATCH, [f"view {k}" for k in range(BATCH - 1)])
    for number in [signal.SIGTERM, signal.SIGKILL] * times:
        run.log.unlink(missing_ok=True)
        before, client = run.published(), run.stand_in(1.0, python)
        while len(run.calls()) < 3:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        client.send_signal(number)
        began = time.monotonic()
        client.wait()
        if number == signal.SIGTERM:
            exits.append(time.monotonic() - began)
        else:
            lost.append((len(run.calls()) + 1) * BATCH - (run.published() - before))
    run.close()
    return exits, lost


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer ratios and batches")
    parser.add_argument("--part", type=int, choices=[1, 2, 3], help="only this part")
    parser.add_argument(
        "--ratio",
        type=float,
        choices=list(BATCHES),
        help="of part 1, only this LLM time / device time",
    )
    args = parser.parse_args()
    share = python_share()
    print(
        f"Python's share of a pipeline's loop, from the tiny SD3 (an upper bound): {share:.2f}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    if args.part in (1, None):
        part_1(
            {args.ratio: BATCHES[args.ratio]}
            if args.ratio
            else QUICK_BATCHES
            if args.quick
            else BATCHES,
            share,
        )
    if args.part in (2, None):
        bare, whole = tiny(*((8, 1) if args.quick else (24, 2)))
        print(
            f"\n2. tiny model, one thread: bare pipe(batch) loop {bare:.1f} images/s, "
            f"whole client {whole:.1f}: {whole / bare:.2f} (aim 0.8)",
            flush=True,
        )
    if args.part in (3, None):
        exits, lost = signals(share, 1 if args.quick else 4)
        print(
            f"\n3. SIGTERM to exit: {', '.join(f'{s:.1f}' for s in exits)} s (a batch takes 1 s)\n"
            f"   generated and not published at SIGKILL: {lost} images "
            f"(bound: a batch {BATCH} + the queue {2 * BATCH})"
        )


def part_1(batches, share):
    fake = subprocess.Popen(
        [sys.executable, LLM, "ollama", "--latency", str(LATENCY_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    llm = fake.stdout.readline().strip().removeprefix("http://")
    try:
        print(
            f"\n1. LLM {LATENCY_S} s an answer, {BATCH} images of {SIZE}x{SIZE} a batch, published "
            "for real (aims: 0.97; 1.9 times at 1)"
        )
        print(
            f"{'LLM / device time':>22} {'s a batch':>10} {'device busy':>12} {'images/s':>9}  "
            "one after the other"
        )
        for ratio, count in batches.items():
            busy, rate = overlap(ratio, count, share, llm)
            plain = one_after_the_other(ratio, max(2, count // 8), share, llm)
            row = f"{ratio:22} {LATENCY_S / ratio:10.2f} {busy:12.3f} {rate:9.2f}"
            print(f"{row}  {plain:.2f} images/s: {rate / plain:.2f} times as many", flush=True)
        if WHOLE[0] in batches:
            busy, rate = overlap(*WHOLE, share, llm, whole=True)
            row = f"{WHOLE[0]:22} {LATENCY_S / WHOLE[0]:10.2f} {busy:12.3f} {rate:9.2f}"
            print(f"{row}  all of a data set of {WHOLE[1]} prompts", flush=True)
    finally:
        fake.kill()


if __name__ == "__main__":
    main()
