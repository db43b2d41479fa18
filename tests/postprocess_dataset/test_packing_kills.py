"""Packers that are killed at random instants while clients publish into the same folders.

An independent checker, which uses none of the product's readers, finds each sample once.
"""

import hashlib
import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKER = """
import sys, time
from pathlib import Path
from postprocess_dataset.packing.pack_folder import Packing
while True:
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        if folder.is_dir():
            result = Packing(folder, tar_bytes=20_000, early_files=30, quiet_s=0).run()
            assert not result.left, result.left
    time.sleep(0.01)
"""
CLIENT = """
import sys
import numpy
from generate.dataset.captions import publish_captions
from generate.dataset.samples import Place, publish_sample
root, number, count, prompts, images = sys.argv[1], *map(int, sys.argv[2:])
pixels = numpy.zeros((8, 8, 3), "uint8")
texts = [{"text": f"t{n}", "llm_model_name": None, "backend": None} for n in range(images)]
for index in range(number, prompts, count):
    index = index % 3 * 1000 + index // 3
    record = {"prompt_index": index, "original_prompt": "p", "source": [], "texts": texts}
    publish_captions(root, record | {"short": None}, f"1-{number}")
    for aug in range(images):
        metadata = {"prompt_index": index, "augmentation_idx": aug, "augmented_prompt": f"t{aug}"}
        publish_sample(root, pixels, metadata, Place(f"1-{number}"))
"""


def check(root, prompts, images):
    """Each sample once: in a tar, if the mark lists it, else loose; its bytes those of its JSON."""
    found = []
    for folder in root.iterdir():
        mark = folder / "PACKED"
        listed = json.loads(mark.read_text())["prompts"] if mark.exists() else {}
        contents = {}
        for tar in folder.glob("part-*.tar") if listed else ():
            with tarfile.open(tar) as file:
                for member in file:
                    contents.setdefault(member.name, []).append(file.extractfile(member).read())
        for index in listed:
            assert listed[index]["images"] == f"0-{images - 1}", (index, listed[index])
            for aug in range(images):
                stem = f"{index}_{aug}"
                assert [len(contents[stem + kind]) for kind in (".jpg", ".json")] == [1, 1]
                found.append((stem, contents[f"{stem}.jpg"][0], contents[f"{stem}.json"][0]))
        for path in folder.glob("*_*.jpg"):
            if path.stem.split("_")[0] not in listed:
                its_json = path.with_suffix(".json").read_bytes()
                found.append((path.stem, path.read_bytes(), its_json))
    for stem, image, its_json in found:
        assert json.loads(its_json)["image_sha256"] == hashlib.sha256(image).hexdigest(), stem
    wanted = {
        f"{index % 3 * 1000 + index // 3}_{aug}"
        for index in range(prompts)
        for aug in range(images)
    }
    assert sorted(stem for stem, _, _ in found) == sorted(wanted)


def storm(root, prompts, images, clients):
    """How many packers were killed while the clients published."""
    draw = random.Random(7)
    words = [sys.executable, "-c", CLIENT, str(root)]
    running = [
        subprocess.Popen([*words, *map(str, (n, clients, prompts, images))], cwd=ROOT)
        for n in range(clients)
    ]
    killed = 0
    while any(client.poll() is None for client in running):
        packer = subprocess.Popen([sys.executable, "-c", PACKER, str(root)], cwd=ROOT)
        time.sleep(draw.uniform(0.2, 1.2))
        assert packer.poll() is None, "a packer has failed"
        packer.send_signal(signal.SIGKILL)
        packer.wait()
        killed += 1
    assert [client.returncode for client in running] == [0] * clients
    return killed


@pytest.mark.parametrize(
    "prompts, images", [(300, 5), pytest.param(20_000, 50, marks=pytest.mark.soak)]
)
def test_each_sample_is_there_once_under_random_kills(tmp_path, prompts, images):
    root = tmp_path / "d"
    root.mkdir()
    killed = storm(root, prompts, images, clients=2)
    assert killed > 2
    check(root, prompts, images)
    for folder in root.iterdir():
        (folder / "COMPLETE").write_text("{}")
    packer = subprocess.Popen([sys.executable, "-c", PACKER, str(root)], cwd=ROOT)
    end = time.monotonic() + 120
    while list(root.glob("*/*_*.jpg")) and time.monotonic() < end:
        time.sleep(0.2)
    assert packer.poll() is None
    packer.kill()
    packer.wait()
    assert list(root.glob("*/part-*.tar")) and not list(root.glob("*/*.jpg"))
    check(root, prompts, images)
