"""Compiled code beside the ledger: one process compiles, the others load it, and only their own.

Real processes, the real compiler, a graph that needs no C++. With a whole tiny pipeline: a soak.
"""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from generate.client.process import leave
from tests.fakes.running_server import until
from tests.tiny_generators import build

ROOT = Path(__file__).resolve().parents[2]
MODULE = "generate.pipelines.compiled_code"
COUNT = """
from torch._dynamo.utils import counters
found = counters["inductor"]
print("compiled", found["fxgraph_cache_miss"], "found", found["fxgraph_cache_hit"], flush=True)
"""
# Something of one size is compiled first, and of another one later, as longer texts are.
CLIENT = """
import logging, sys, time
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(message)s")
import torch
from generate.pipelines.compiled_code import CompiledCode
product = torch.compile(lambda x, y: x @ y)
code = CompiledCode(Path(sys.argv[1]), ["a card"])
with code.shared():
    product(torch.ones(4, 4), torch.ones(4, 4))
    while not Path(sys.argv[2]).exists():
        time.sleep(0.1)
for size in range(5, 5 + int(sys.argv[3])):
    product(torch.ones(size, 4), torch.ones(4, 4))
code.save()
"""
PIPELINE = """
import hashlib, logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(message)s")
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings
small = {"height": 32, "width": 32, "steps": 1, "batch_size": 1}
settings = GeneratorSettings(sys.argv[2], compile=True, beside=Path(sys.argv[1]), **small)
generator = ImageGenerator(settings)
generator.load()
generator.warm_up()
image = generator.generate(["a star"], [1])[0]
generator.pipeline.keep_code()
print(generator.pipeline.facts["compiled"], hashlib.sha256(image.pixels.tobytes()).hexdigest())
"""


@pytest.fixture
def server_folder(tmp_path):
    folder = tmp_path / ".server"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def start(tmp_path, server_folder, processes):
    """start(code, *words) -> a process, on a node of its own; its output is in .said()."""

    def begin(code, *words):
        log = tmp_path / f"{len(processes)}.out"
        own = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / f"node{len(processes)}")}
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", code + COUNT, server_folder, *map(str, words)],
                stdout=out,
                stderr=out,
                env=os.environ | own | {"PYTHONPATH": str(ROOT)},
            )
        process.said = log.read_text
        processes.append(process)
        return process

    return begin


def counts(process):
    """(compiled, found) of a process that has ended well."""
    assert process.wait(1800) == 0, process.said()
    words = process.said().split()
    return int(words[-3]), int(words[-1])


def test_one_compiles_while_the_others_wait_and_they_load_it(start, server_folder, tmp_path):
    first = start(CLIENT, tmp_path / "gate", 2)
    until(lambda: list(server_folder.glob("compiled/*.lock")), first.said, 300, process=first)
    second = start(CLIENT, tmp_path / "gate", 2)
    waits = "compiles for such a card; waiting for it"
    until(lambda: waits in second.said(), second.said, 300, process=second)
    (tmp_path / "gate").touch()
    assert counts(first) == (2, 0), "one for the first size, and one for any other"
    assert counts(second)[0] <= 1 and "compiled code is loaded" in second.said()
    assert counts(start(CLIENT, tmp_path / "gate", 2)) == (0, 2), "what came later is kept, too"
    (file,) = server_folder.glob("compiled/*.artifacts")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_client_keeps_what_came_later_when_all_is_published():
    done = []
    work = SimpleNamespace(
        failed=0,
        missing_captions=0,
        missing_images=0,
        extended=False,
        error=None,
        stop_reason="released",
    )
    client = SimpleNamespace(leave=lambda: done.append("left"), line=lambda: "", work=work)
    pipeline = SimpleNamespace(keep_code=lambda: done.append("kept"))
    assert leave(client, None, None, pipeline) == 0 and done == ["left", "kept"]


@pytest.mark.soak
def test_a_second_process_compiles_nothing_of_a_pipeline(start, server_folder, tmp_path):
    build("qwen-image", tmp_path / "qwen-image")
    first = start(PIPELINE, tmp_path / "qwen-image")
    assert counts(first)[0] >= 2
    second = start(PIPELINE, tmp_path / "qwen-image")
    assert counts(second) == (0, sum(counts(first)))
    pixels = [[w for w in one.said().split() if len(w) == 64] for one in (first, second)]
    assert pixels[0] == pixels[1] and "True " + pixels[0][0] in first.said()


def code_of(folder, card):
    """Of a client in this process. The module imports torch, which other workers are spared."""
    from generate.pipelines.compiled_code import CompiledCode

    return CompiledCode(folder, [card])


def shared(folder, card):
    return code_of(folder, card).shared()


@pytest.fixture
def kept(server_folder, monkeypatch):
    """A file that was kept; .loaded: what was given to torch."""
    monkeypatch.setattr("torch.compiler.save_cache_artifacts", lambda: (b"code", None))
    monkeypatch.setattr(f"{MODULE}.compiled", lambda: len(loaded))
    loaded = []
    monkeypatch.setattr("torch.compiler.load_cache_artifacts", lambda c: loaded.append(c) or True)
    code = code_of(server_folder, "a card")
    with code.shared():
        pass
    code.loaded = loaded
    return code


def test_a_file_is_loaded_as_it_was_kept(kept, server_folder):
    with shared(server_folder, "a card"):
        assert kept.loaded == [b"code"]
    with shared(server_folder, "another card"):
        assert kept.loaded == [b"code"]
    with shared(server_folder / "nowhere", "a card"):
        assert kept.loaded == [b"code"]
    assert not (server_folder / "nowhere").exists()


def of_another_user(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


def linked(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


UNFIT = {
    "is of another user": of_another_user,
    "the folder is of another user": lambda path: of_another_user(path.parent),
    "it can be written by others": lambda path: path.chmod(0o620),
    "the folder can be written by others": lambda path: path.parent.chmod(0o777),
    "it is a link": linked,
    "it is no regular file": a_pipe,
    "it is torn": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "of another key": lambda path: path.write_bytes(path.read_bytes().replace(b"card", b"CARD")),
}


@pytest.mark.parametrize("said", UNFIT)
def test_what_others_can_have_written_is_never_loaded(kept, server_folder, said, caplog):
    """One line and a compile; the next process finds the file that this one has made instead."""
    UNFIT[said](kept.path)
    with shared(server_folder, "a card"):
        pass
    assert kept.loaded == [] and caplog.text.count(said) == 1, caplog.text
    if "folder" in said:
        assert not os.path.lexists(kept.path.with_suffix(".refused"))
        return
    assert os.path.lexists(kept.path.with_suffix(".refused"))
    with shared(server_folder, "a card"):
        assert kept.loaded == [b"code"]


def test_the_folder_is_bounded_and_too_large_a_file_is_not_read(
    kept, server_folder, monkeypatch, caplog
):
    monkeypatch.setattr(f"{MODULE}.MOST_IN_ALL", 2 * kept.path.stat().st_size + 50)
    os.utime(kept.path, (time.time() - 99, time.time() - 99))
    for name in ("b card", "c card"):
        with shared(server_folder, name):
            pass
    assert len(list(kept.path.parent.glob("*.artifacts"))) == 2 and not kept.path.exists()
    monkeypatch.setattr(f"{MODULE}.MOST_BYTES", 20)
    with shared(server_folder, "c card"):
        assert kept.loaded == [] and "is not loaded, it is torn" in caplog.text


def test_a_disk_that_is_full_costs_a_line(server_folder, monkeypatch, caplog):
    (server_folder / "compiled").write_text("")
    with shared(server_folder, "a card"):
        pass
    assert "compiled code is not shared" in caplog.text


def test_torchs_own_folder_is_private(tmp_path, monkeypatch):
    """A folder that somebody has made in /tmp before is left to him."""
    import torch
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    from generate.pipelines import compiled_code

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for planted in (False, True):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
        compiled_code.use_private_folder()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere", "the user's word stands"
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as torch does
        compiled_code.use_private_folder()
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert folder.parent == tmp_path and stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder.name == f"generate_images_compiled_{os.geteuid()}") != planted
        folder.chmod(0o777)
    assert not torch._inductor.config.cpp_cache_precompile_headers
