"""The real client, server and files, with a pipeline that imports no torch.

Killed, stopped, signalled, moved: nothing lost, nothing twice.
"""

import os
import random
import re
import signal
import subprocess
import time
from functools import partial

import pytest

from tests.fakes import running_client
from tests.fakes.fake_llm import FakeOllama
from tests.fakes.own_ports import own_port
from tests.fakes.running_server import until


def grown_or_ended(run, before, client):
    return run.count() > before or client.poll() is not None


@pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_sigkill_at_random_instants(start_run, kills):
    """Clients are killed one after the other while they publish; the last one finishes.

    No caption that was published is asked for again.
    """
    rng = random.Random(1)
    with FakeOllama(latency=0.1) as llm:
        run, _server = start_run(
            total=2 * kills,
            images=5,
            variations=False,
            options=["--ollama_hosts", llm.host],
            FAKE_BATCH_S="0.1",
        )
        for _ in range(kills):
            before, client = run.count(), run.start()
            until(partial(grown_or_ended, run, before, client), f"an image\n{run.log()}")
            time.sleep(rng.uniform(0, 0.4))
            client.kill()
            client.wait()
            asked, texts = len(llm.asked), {p: p.read_bytes() for p in run.data.glob("*/*.prompts")}
        assert run.start().wait(60 + 10 * kills) == 0, run.log()
        run.check()
        assert all(path.read_bytes() == data for path, data in texts.items()), "texts stand"
        published = {int(path.stem) for path in texts}
        asked_again = {
            int(number)
            for _, text in llm.asked[asked:]
            for number in re.findall(r"bird number (\d+)", text)
        }
        assert published and not published & asked_again


def test_sigterm_at_random_instants(start_run):
    """It finishes its batch, publishes, releases the rest at once and exits 0.

    The next one need not wait for a lease to expire.
    """
    run, server = start_run(total=10, images=5, ttl_s=60, FAKE_BATCH_S="0.1")
    rng = random.Random(2)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        before, client = run.count(), run.start()
        until(partial(grown_or_ended, run, before, client), f"an image\n{run.log()}")
        time.sleep(rng.uniform(0, 0.3))
        client.send_signal(number)
        assert client.wait(20) == 0, run.log()
        counts = server.dataset("birds")
        assert counts["leased"] == 0 and counts["sum_ok"]
    assert run.start().wait(60) == 0
    run.check()
    given_back = server.dataset("birds")["given_back"]
    assert given_back.get("preempted") and not given_back.get("expired"), given_back


def test_a_second_signal_leaves_at_once(start_run):
    run, _server = start_run(total=4, images=4, FAKE_BATCH_S="0.2")
    client = run.start(FAKE_BATCH_S="60")
    time.sleep(1)  # now it draws its warm-up batch, or is still being started
    client.send_signal(signal.SIGTERM)
    assert client.wait(10) in (128 + signal.SIGTERM, -signal.SIGTERM), (
        "nothing is held before the first lease: the first signal is enough"
    )
    client = run.start()
    until(lambda: run.count() > 0, "an image")
    client.send_signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        client.send_signal(number)
    client.send_signal(signal.SIGCONT)
    assert client.wait(10) in (128 + signal.SIGTERM, 128 + signal.SIGUSR1)


def test_stopped_past_its_lease_and_woken(start_run):
    """Another client takes over its indices and finishes.

    The first one wakes up, and not a byte changes.
    """
    run, server = start_run(total=6, images=5, FAKE_BATCH_S="0.2")
    first = run.start()
    until(lambda: run.count() >= 2, "the first images")
    first.send_signal(signal.SIGSTOP)
    second = run.start()
    assert second.wait(60) == 0, run.log()
    run.check()
    before = run.snapshot()
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0, run.log()
    assert run.snapshot() == before
    run.check()
    assert "no longer ours" in run.log() and server.dataset("birds")["given_back"]["expired"] > 0


def test_the_server_is_killed_and_comes_back_elsewhere(start_run):
    run, server = start_run(total=10, images=5, FAKE_BATCH_S="0.1", ttl_s=10)
    client = run.start()
    until(lambda: run.count() >= 4, "the first images")
    port = server.json["url"]
    server.kill()
    time.sleep(1)
    assert client.poll() is None, "a client whose server is away goes on with what it holds"
    server.start("--port", own_port())
    assert server.json["url"] != port
    assert client.wait(60) == 0, run.log()
    run.check()
    assert server.dataset("birds")["done"] == 10


def test_a_server_that_stays_away(start_run):
    """What is held is finished and published.

    Then the client ends with one line that says what to do.
    """
    run, server = start_run(
        total=10, images=3, FAKE_BATCH_S="0.1", options=["--server_timeout", 2 / 3600]
    )
    client = run.start()
    until(lambda: run.count() >= 3, "the first images")
    server.kill()
    assert client.wait(60) == 1
    assert (
        run.log().strip().splitlines()[-1].startswith("generate_images: ")
        and "Traceback" not in run.log()
    )
    held = run.count()
    server.start()
    assert held >= 6 and run.start().wait(60) == 0, run.log()
    run.check()


def test_max_leases_is_the_published_behaviour(start_run):
    run, server = start_run(total=8, images=2)
    assert run.start("--max_leases", 1).wait(30) == 0
    assert (run.count(), server.dataset("birds")["done"], server.dataset("birds")["leased"]) == (
        4,
        2,
        0,
    )


def test_batches_are_full_across_prompts(start_run, tmp_path):
    """Three images a prompt, batches of four: no batch but the last is padded."""
    run, _server = start_run(
        total=16, images=3, options=["--chunk_size", 8], FAKE_LOG=str(tmp_path / "drawn")
    )
    assert run.start().wait(30) == 0
    run.check()
    drawn = len((tmp_path / "drawn").read_text().splitlines()) - 4  # the warm-up batch
    assert 48 <= drawn <= 48 + 5 * 4, f"{drawn} images drawn for 48"


def test_local_mode_starts_a_killed_client_again(start_run):
    run, _server = start_run(total=6, images=4, FAKE_BATCH_S="0.1")
    with open(run.root / "client.out", "wb") as out:
        local = subprocess.Popen(
            run.command("--num_workers", 2, task=False),
            stdout=out,
            stderr=out,
            env=running_client.ENVIRONMENT | run.environment,
        )
    run.clients.append(local)
    until(lambda: run.count() >= 2, f"images\n{run.log()}")
    victim = int(re.search(r"client 0: process (\d+)", run.log())[1])
    os.kill(victim, signal.SIGKILL)
    assert local.wait(100) == 0, run.log()
    assert (
        f"client 0 (process {victim}) was killed by signal 9" in run.log()
        and run.log().count("client 0: process") == 2
    )
    run.check()


def test_local_mode_twice(tmp_path):
    """It starts a server for the run.

    The second time nothing is left: it starts no client, loads no model and touches no file.
    """
    run = running_client.Run(tmp_path, total=5, images=4)
    first = run.run("--num_workers", 2, task=False)
    assert first.returncode == 0 and "5 of 5 prompts done, 20 images" in first.stdout, (
        first.stdout + first.stderr
    )
    run.check()
    before = run.snapshot()
    again = run.run("--num_workers", 2, task=False)
    assert (
        again.returncode == 0
        and "all indices are done" in again.stdout
        and "client 0" not in again.stdout
    ), again.stdout + again.stderr
    assert run.snapshot() == before
    assert (
        subprocess.run(["pgrep", "-f", f"image_server.py --output_root {run.root}"]).returncode == 1
    ), "its server has ended with it"
