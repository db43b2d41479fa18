"""What a user gets wrong on the command line of the server and the client.

One line that says what, where and what to do; no traceback; exit status not 0; nothing left behind.
"""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from combine_prompts.prompt_files import read_items
from common.command_line import UserError
from generate.dataset.prompts_file import read_prompts
from tests.fakes.forked_script import forked

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    k: v for k, v in os.environ.items() if k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
}


def fails_with(says, *command, **environment):
    """environment: what is read as the hub's client is imported; a Python of its own reads it."""
    if environment:
        ended = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    else:
        ended = forked(*command, environment=ENVIRONMENT)
    lines = [
        line
        for line in ended.stderr.splitlines()
        if line.strip() and not line.endswith("; trying again")
    ]
    assert ended.returncode not in (0, -9, -15), ended.stdout
    assert "Traceback" not in ended.stderr and len(lines) == 1, ended.stderr
    for words in says if isinstance(says, tuple) else (says,):
        assert words in lines[0], lines[0]


@pytest.mark.parametrize(
    "content, says",
    [
        (None, ("prompts.json", "no such file")),
        ("", "prompts.json"),
        ("[]", ("prompts.json", "no prompt")),
        ("{oops", ("prompts.json", "not JSON")),
        ('{"prompt": "a"}', ("prompts.json", "list")),
        ('["a bird", 7]', ("prompts.json", "item 1")),
        ('["a bird", {"text": "x"}]', ("prompts.json", "item 1")),
        ('["a bird", "  "]', ("prompts.json", "item 1")),
    ],
)
def test_prompts_file(tmp_path, content, says):
    if content is not None:
        (tmp_path / "prompts.json").write_text(content)
    fails_with(
        says,
        "generate/generate_images.py",
        tmp_path / "prompts.json",
        "--model",
        "tiny",
        "--output_root",
        tmp_path / "out",
    )
    assert not list(tmp_path.glob("out/generated_images/*"))


def test_a_pipe_or_folder_as_prompts_file(tmp_path):
    os.mkfifo(tmp_path / "p.parquet")
    (tmp_path / "p.json").mkdir()
    for name in ("p.parquet", "p.json"):
        with pytest.raises(UserError, match=f"{name} is a folder, a device or a pipe"):
            read_prompts(tmp_path / name)


def test_combine_says_which_files_it_reads(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1\0")
    with pytest.raises(ValueError, match=r"a parquet file; \.json, \.jsonl and \.txt are read"):
        read_items(tmp_path / "p.parquet")


def test_who_speaks_is_the_script_that_was_called(tmp_path):
    (tmp_path / "prompts.json").write_text("[]")
    for script, *words in (
        ["generate_images", "--model", "tiny"],
        ["llm_prompting", "--output", tmp_path / "out.json"],
    ):
        fails_with(
            f"{script}: {tmp_path}/prompts.json",
            f"generate/{script}.py",
            tmp_path / "prompts.json",
            *words,
        )
        fails_with(
            f"{script}: none.json: no such file", f"generate/{script}.py", "none.json", *words
        )


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts.json").write_text('["a bird"]')
    return tmp_path / "prompts.json"


def test_a_model_that_cannot_be_had(tmp_path, prompts):
    fails_with(
        "nobody/no-such-model",
        "generate/generate_images.py",
        prompts,
        "--model",
        "nobody/no-such-model",
        "--augment_prompts=False",
        "--output_root",
        tmp_path / "out",
        HF_HUB_OFFLINE="1",
    )


def test_without_a_network_the_hub_is_not_waited_for(tmp_path, prompts):
    """Its own client tries six times, and prints each: 70 s and 18 lines before ours."""
    with socket.socket() as nobody:  # bound, but not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for words in (["--model=nobody/no-such-model"], ["--model=tiny", "--lora=nobody/x"]):
            fails_with(
                ("nobody/", "is not in the local cache", "is there a network?"),
                *("generate/generate_images.py", prompts, *words, "--augment_prompts=False"),
                *("--output_root", tmp_path / "out"),
                HF_ENDPOINT=address,
                HF_HUB_OFFLINE="0",
                HF_HOME=str(tmp_path / "hf"),
            )
    assert not (tmp_path / "out").exists()


@pytest.fixture
def gated_hub():
    """FakeHub: answers as the hub does for a model whose terms were not accepted; its address."""

    class FakeHub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to this model is restricted.")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{hub.server_port}"
    hub.shutdown()


@pytest.mark.parametrize("words", [["--preview=1"], ["--use_slurm"]])
def test_a_gated_model(tmp_path, prompts, gated_hub, words):
    """Found before anything is drawn, and before anything is submitted."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/sbatch.calls\n')
    sbatch.chmod(0o755)
    fails_with(
        (
            "stable-diffusion-3-medium-diffusers is gated",
            "accept its terms at https://huggingface.co/",
            "hf auth login",
        ),
        "generate/generate_images.py",
        prompts,
        "--augment_prompts=False",
        "--output_root",
        tmp_path / "out",
        *words,
        HF_ENDPOINT=gated_hub,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path / "hf"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert (
        words == ["--preview=1"]
        or (tmp_path / "sbatch.calls").read_text() == "--parsable --test-only\n"
    )
    assert not list(tmp_path.glob("out/generated_images/*"))


def test_an_output_root_that_cannot_be_written(tmp_path, prompts):
    (tmp_path / "file").write_text("")
    for script in (
        ["generate/image_server.py"],
        ["generate/generate_images.py", prompts, "--model", "tiny"],
    ):
        fails_with(str(tmp_path / "file"), *script, "--output_root", tmp_path / "file" / "out")


def test_a_task_without_a_server(tmp_path, prompts):
    fails_with(
        "image_server.py",
        "generate/generate_images.py",
        prompts,
        "--model",
        "tiny",
        "--is_slurm_task",
        "--augment_prompts=False",
        "--server_timeout",
        1 / 3600,
        "--output_root",
        tmp_path / "out",
    )


def test_the_demo(tmp_path):
    (tmp_path / "file").touch()
    fails_with(
        ("no finished run lies in", str(tmp_path), "leave out --table"),
        "examples/run_demo.py",
        "--table",
        "--folder",
        tmp_path,
    )
    ended = subprocess.run(
        [sys.executable, "examples/run_demo.py", "--folder", tmp_path / "file"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"run_demo: {tmp_path / 'file'}: File exists\n"


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\tb",
        "e\x1b[31mX",
        "a\u202eb",
        "a\u200b",
        " ",
        "a ",
        ".hidden",
        "a" * 240,
        "ü" * 110,
        b"a\xff",
    ],
)
def test_a_name_that_no_data_set_can_have(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), os.fsencode(name) + b".txt")
    Path(os.fsdecode(path)).write_text("a bird\n")
    command = [sys.executable, "generate/generate_images.py", path, "--model=tiny"]
    command += ["--augment_prompts=False", "--output_root", tmp_path / "out"]
    ended = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert ended.returncode == 1 and ended.stdout == b""
    assert ended.stderr.count(b"\n") == 1 and ended.stderr.decode().strip().isprintable()
    assert b"no data set can be called" in ended.stderr and b"rename the file" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", *(["theirs"] if os.geteuid() == 0 else [])])
def test_a_log_that_is_no_file_of_this_user(tmp_path, prompts, kind):
    """A link of somebody's would have the lines added to any file of the user's."""
    root = tmp_path / "out"
    log = root / "image_server.out"
    root.mkdir()
    (tmp_path / "kept").write_text("as it was")
    says = (f"{log}: it is a link, a pipe or a device", "move it away")
    if kind == "theirs":
        log.touch()
        os.chown(log, 65534, 65534)
        says = (f"{log}: it belongs to another user", "remove it")
    elif kind == "link":
        log.symlink_to("../kept")
    else:
        os.mkfifo(log)
    fails_with(says, "generate/image_server.py", "--output_root", root, "--port=0")
    words = [prompts, "--model=tiny", "--augment_prompts=False", "--output_root", root]
    fails_with(says, "generate/generate_images.py", *words)
    assert (tmp_path / "kept").read_text() == "as it was"
    assert not (root / ".server" / "server.json").exists()


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        fails_with(
            (port, "in use"),
            "generate/image_server.py",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--output_root",
            tmp_path,
        )
    assert not (tmp_path / ".server" / "server.json").exists()


def test_without_a_port_the_next_free_one_is_taken(tmp_path):
    for attempt in range(20):  # another test's server may have the port, and leave at any moment
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", 5000))
                other.listen()
            port = port_of_a_server(tmp_path / str(attempt))
            if port != 5000 or other.getsockname()[1] == 5000:
                break
    assert 5000 < port < 5100


def port_of_a_server(root):
    """Starts the job server of an output root without --port, and ends it."""
    server = subprocess.Popen(
        [
            sys.executable,
            "generate/image_server.py",
            "--host",
            "127.0.0.1",
            "--output_root",
            root,
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        known, end = root / ".server" / "server.json", time.monotonic() + 60
        while not known.exists():
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        return int(json.loads(known.read_text())["url"].strip("/").rpartition(":")[2])
    finally:
        server.terminate()
        server.wait()
