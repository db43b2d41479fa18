"""What a client does with an index that it holds, recorded at each call on disk.

forking.py runs it: Forking("sample_holder")("killed_at", folder, step).
"""

import os
import signal

import numpy

from generate.dataset import samples
from generate.dataset.captions import publish_captions
from generate.dataset.collected import publish_collected, remove_collected
from generate.dataset.layout import FOLDER
from generate.dataset.scan import IndexFiles, scan_folder
from tests.fakes import fake_pipeline

INDEX = 12345
TEXTS = [
    {"text": text, "llm_model_name": None, "backend": None}
    for text in ("a bird", "a bird at night")
]
RECORD = {
    "prompt_index": INDEX,
    "original_prompt": "a bird",
    "source": ["x"],
    "texts": TEXTS,
    "short": None,
}
CALLS = ("open", "fsync", "link", "unlink", "mkdir")


def pixels(text, seed=1):
    return (
        (fake_pipeline.draw(text, seed, 64, 64) * 255)
        .round()
        .astype(numpy.uint8)
        .transpose(1, 2, 0)
    )


def put(folder, aug, lease, seed=1, text=None):
    text = text or TEXTS[aug]["text"]
    metadata = {
        "prompt_index": INDEX,
        "augmentation_idx": aug,
        "augmented_prompt": text,
        "seed": seed,
    }
    return samples.publish_sample(
        folder, pixels(text, seed), metadata, samples.Place(lease, "h", "g", "7")
    )


def holder(folder, lease, seed):
    """What a client does with an index it holds: tidy up, texts, then what is missing."""
    files = scan_folder(folder, INDEX // FOLDER, only={INDEX}).get(INDEX, IndexFiles())
    samples.remove_temporary(folder, INDEX, lease, files.temporary)
    if files.collected:
        remove_collected(folder, INDEX)
    stands = publish_captions(folder, RECORD, lease)
    for aug in range(len(stands["texts"])):
        if aug in files.images and samples.roll_forward(folder, INDEX, aug, lease):
            continue
        put(folder, aug, lease, seed)
    publish_collected(folder, INDEX, len(stands["texts"]), lease)


def calls_of_os(watch):
    """Replace the calls that touch the disk: `watch(name)` is called before and after each."""
    for name in CALLS:
        setattr(os, name, watched(getattr(os, name), name, watch))


def watched(real, name, watch):
    def call(*args, **kwargs):
        watch(f"before {name}")
        result = real(*args, **kwargs)
        watch(f"after {name}")
        return result

    return call


def kill_at(step):
    """This process gets SIGKILL before or after one of its calls; its number is the step."""
    seen = 0

    def count(_):
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    calls_of_os(count)


def killed_at(folder, step):
    """A holder that is killed at a step."""
    kill_at(step)
    holder(folder, "1-1", seed=1)


def told(folder, log):
    """Publishes one sample, and writes the name of each call before it is made to the log."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    calls_of_os(
        lambda what: os.write(handle, f"{what}\n".encode()) if what.startswith("before") else None
    )
    put(folder, 0, "1-1")
