"""The whole flow over real processes.

The demo on the embedded models, and the README's commands with kills.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.running_server import until

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = "tests/fakes/fake_pipeline.py:FakePipeline"
ENVIRONMENT = {
    k: v for k, v in os.environ.items() if k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
}


def python(*command, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **kwargs,
    )


def start(*command, log=None):
    with open(log or os.devnull, "ab") as out:
        return subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, env=ENVIRONMENT, stdout=out, stderr=out
        )


@pytest.mark.timeout(600)
def test_demo_small(tmp_path):
    """The demo, with fewer images; one JPEG less makes its table fail."""
    demo = python("examples/run_demo.py", "--folder", tmp_path, "--prompts", 4, "--images", 5)
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert "<-- differs" not in demo.stdout and "4 prompts became 20 images" in demo.stdout
    assert "killed client process" in (tmp_path / "demo.log").read_text()
    with Image.open(tmp_path / "contact_sheet.jpg") as sheet:
        assert sheet.width > 5 * 64
    assert "<img" in (tmp_path / "report.html").read_text()
    # the LLM cannot leave what the tiny model draws: 20 pictures of 20 are right, but for one
    assert re.search(r"show what their caption says +(20|19)\b", demo.stdout), demo.stdout

    next(tmp_path.glob("outputs/generated_images/shapes/*/*.jpg")).unlink()
    table = python("examples/run_demo.py", "--table", "--folder", tmp_path)
    assert (
        table.returncode == 1
        and "JPEGs that open" in table.stdout
        and "<-- differs" in table.stdout
    )


@pytest.fixture
def llm():
    server = subprocess.Popen(
        [sys.executable, "tests/fakes/fake_llm.py", "ollama", "--latency", "0.1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield server.stdout.readline().strip()
    server.kill()
    server.wait()


@pytest.mark.timeout(300)
def test_kill_a_client_and_the_server(tmp_path, llm):
    """Server, two clients, SIGKILL of one, SIGKILL and restart of the server.

    Every image once, and the published ways of watching work.
    """
    root, total, images = tmp_path / "outputs", 30, 6
    prompts = tmp_path / "birds.json"
    prompts.write_text(json.dumps([f"a painting of bird number {i}" for i in range(total)]))
    root.mkdir()
    data = root / "generated_images" / "birds"
    server_command = [
        "generate/image_server.py",
        "--output_root",
        root,
        "--host",
        "127.0.0.1",
        "--ttl_s",
        6,
        "--beat_s",
        1,
    ]
    client_command = [
        "generate/generate_images.py",
        prompts,
        "--pipeline",
        PIPELINE,
        "--ollama_hosts",
        llm,
        "--resolution",
        64,
        "--expected_samples_per_index",
        images,
        "--num_workers",
        1,
        "--output_root",
        root,
        "--batch_size",
        4,
        "--max_chunk_size",
        3,
    ]
    server = start(*server_command, log=root / "image_server.out")
    clients = []
    try:
        log = (root / "image_server.out").read_text
        until((root / ".server" / "server.json").exists, log, process=server)
        clients = [start(*client_command, log=root / f"client{i}.out") for i in range(2)]
        log = (root / "client0.out").read_text
        until(lambda: len(list(data.glob("*/*.json"))) > 10, log, 90, process=clients[0])
        worker = re.search(r"client \d+: process (\d+)", until(log, "client 0's log"))
        os.kill(int(worker[1]), signal.SIGKILL)
        server.kill()
        server.wait()
        time.sleep(1)
        server = start(*server_command, log=root / "image_server.out")
        assert [client.wait(200) for client in clients] == [0, 0], (
            root / "client1.out"
        ).read_text()[-3000:]
    finally:
        for process in [server, *clients]:
            process.terminate()
        for process in [server, *clients]:
            process.wait(30)

    jpegs, jsons = sorted(data.glob("*/*.jpg")), sorted(data.glob("*/*.json"))
    asked = [json.loads(path.read_text()) for path in data.glob("*/*.prompts")]
    assert len(asked) == total and [len(record["texts"]) for record in asked] == [images] * total
    assert [p.stem for p in jpegs] == [p.stem for p in jsons] and len(jpegs) == total * images
    for path in jsons:
        sample = json.loads(path.read_text())
        assert (
            Image.open(path.with_suffix(".jpg")).size
            == (sample["width"], sample["height"])
            == (64, 64)
        )
    assert not list(data.glob("*/.[0-9]*.tmp"))

    # the published ways of watching
    def sh(command):
        return subprocess.run(
            command, shell=True, capture_output=True, text=True, errors="strict"
        ).stdout

    assert sh(f'find {root}/generated_images -type f -name "*.json" | wc -l').strip() == str(
        total * images
    )
    tail = sh(f"cd {root} && /bin/ls -t | head -10 | xargs tail -n 100")
    token = json.loads((root / ".server" / "server.json").read_text())["token"]
    assert "image_server.out" in tail and token not in tail
    assert not any(token in log.read_text() for log in root.glob("*.out"))
    assert sh(f"timeout 1 tail -f -n1000 {root}/image_server.out")

    # parquet and tars of it, read back
    table = python(
        "postprocess_dataset/convert_json_to_parquet.py",
        root / "generated_images" / "birds",
        tmp_path / "birds.parquet",
    )
    assert table.returncode == 0, table.stdout + table.stderr
    tars = python(
        "postprocess_dataset/convert_parquet_to_wds.py",
        "--parquet_file",
        tmp_path / "birds.parquet",
        "--base_dir",
        data,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers=2",
    )
    assert tars.returncode == 0, tars.stdout + tars.stderr
    listed = sh(f"cd {tmp_path}/tars && for t in *.tar; do tar tf $t; done").split()
    assert (
        sorted(name for name in listed if name.endswith(".jpg"))
        and len(listed) == 3 * total * images
    )


@pytest.mark.timeout(600)
def test_a_second_run_finds_all_done(tmp_path):
    """The second run asks the server before it loads anything.

    No torch, no file of the data set touched, and it says that all is done.
    """
    (tmp_path / "shapes.json").write_text(
        '["a red circle on a blue background", "two green squares on a white background"]'
    )
    command = [
        "generate/generate_images.py",
        tmp_path / "shapes.json",
        "--model",
        "tiny",
        "--augment_prompts=False",
        "--images_per_text=2",
        "--num_workers=1",
        "--output_root",
        tmp_path / "out",
    ]
    first = python(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    data = tmp_path / "out" / "generated_images" / "shapes"
    before = {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}
    assert len([path for path in before if path.suffix == ".jpg"]) == 4

    (tmp_path / "poison" / "torch").mkdir(parents=True)
    (tmp_path / "poison" / "torch" / "__init__.py").write_text(
        'raise ImportError("torch was imported")'
    )
    second = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "poison")},
        capture_output=True,
        text=True,
    )
    assert second.returncode == 0 and "all indices are done" in second.stdout, (
        second.stdout + second.stderr
    )
    logs = "".join(path.read_text() for path in (tmp_path / "out").glob("*.out"))
    assert "torch was imported" not in second.stdout + second.stderr + logs
    assert {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]} == before
