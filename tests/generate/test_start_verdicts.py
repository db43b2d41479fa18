"""A command that no worker can do stops its run with one line; a fault of one worker does not.

Real clients and a real server; the pipeline is the FakePipeline.
"""

import errno
import subprocess

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from requests import Response

from common.command_line import UserError
from common.web import BadPeer
from generate.pipelines.faults import (
    COMMAND,
    DEVICE,
    MEMORY,
    PASSING,
    UNCLEAR,
    CannotStart,
    fault_of,
)
from generate.server.submissions import Fault, Submissions
from tests.fakes import running_client
from tests.fakes.running_server import until


def task(node, submission="one", number=1):
    """The environment of an array's task on a node."""
    return {
        "GENERATE_IMAGES_SUBMISSION": submission,
        "SLURMD_NODENAME": node,
        "SLURM_JOB_ID": f"4{number}",
        "SLURM_ARRAY_JOB_ID": "4",
        "SLURM_ARRAY_TASK_ID": str(number),
    }


def caused(outer, inner):
    """An error as libraries raise it: from another one."""
    try:
        raise outer from inner
    except Exception as error:
        return error


def answered(status, kind=HfHubHTTPError):
    response = Response()
    response.status_code = status
    return kind(f"{status} of the hub", response=response)


@pytest.mark.parametrize(
    "error, fault",
    [
        (answered(403, GatedRepoError), COMMAND),
        (caused(OSError("cannot load the model"), answered(403, GatedRepoError)), COMMAND),
        (caused(OSError("cannot load the model"), answered(429)), PASSING),
        (answered(503), PASSING),
        (caused(OSError("cannot load"), BadPeer("hub.example", "sends nothing")), PASSING),
        (OSError(errno.ESTALE, "Stale file handle"), PASSING),
        (LocalEntryNotFoundError("the hub cannot be reached"), UNCLEAR),
        (ValueError("`height` has to be divisible by 16"), COMMAND),
        (TypeError("__call__() got an unexpected keyword argument 'guidance_scale'"), COMMAND),
        (caused(RuntimeError("failed"), NotImplementedError("no such kernel")), COMMAND),
        (ImportError("No module named 'torchao'"), UNCLEAR),
        (AssertionError(), UNCLEAR),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), MEMORY),
        (RuntimeError("unable to find an engine to execute this computation"), MEMORY),
        (MemoryError(), MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DEVICE),
        (UserError("--pipeline x.py:Y: expected FILE.py:CLASS"), COMMAND),
        (CannotStart("torch sees none", UNCLEAR), UNCLEAR),
    ],
)
def test_whose_fault_an_error_is(error, fault):
    assert fault_of(error) == fault


def test_a_wrong_command_ends_the_run_with_one_line(start_run):
    """The first task finds it, the next one does not even load; a corrected command goes on."""
    run, server = start_run(total=4, images=2, FAKE_LOADS="loads")
    assert run.start(FAKE_ERROR=".", **task("n1")).wait(60) == 1, run.log()
    assert run.start(FAKE_ERROR=".", **task("n2", number=2)).wait(60) == 1, run.log()
    assert (run.folder / "loads").read_text().split() == ["n1"], "only one task loaded the model"
    said = [line for line in run.log().splitlines() if "the run is stopped" in line]
    assert len(said) == 2 and all("a token that is not known" in line for line in said), run.log()
    assert "found on n1" in said[1] and "Traceback" not in run.log()

    def shown():  # the server renews what it says every two seconds
        return run.run("--status", task=False).stdout

    stopped = "Stopped: no worker can do what the command for birds asks"
    until(lambda: stopped in shown(), shown)
    assert "4_1.out" in shown(), "the log that has it"
    assert server.status()["weather"]["state"] == "storm"
    assert run.start(**task("n1", "two", 3)).wait(60) == 0, run.log()
    run.check()
    until(lambda: "Stopped" not in shown(), shown)


def test_what_one_node_lacks_stops_nobody(start_run):
    """n1 has no such library; n2 has: n1 waits and tries again, and n2 does all."""
    run, _server = start_run(total=4, images=2, FAKE_LOAD_ERROR="ImportError", FAKE_BAD_HOSTS="bad")
    (run.folder / "bad").write_text("n1")
    bad = run.start(**task("n1"))
    until(lambda: "this worker cannot start" in run.log(), run.log)
    assert "starting again in 5 s" in run.log()
    assert run.start(**task("n2", number=2)).wait(60) == 0, run.log()
    run.check()
    assert bad.wait(60) == 0, "all is done\n" + run.log()


@pytest.mark.parametrize("kind", ["ImportError", "SystemExit"])  # sys.exit() of a library
def test_what_two_nodes_lack_stops_the_run(start_run, kind):
    run, _server = start_run(total=4, images=2, FAKE_LOAD_ERROR=kind, FAKE_LOADS="loads")
    first = run.start(**task("n1"))
    until(lambda: "this worker cannot start" in run.log(), run.log)
    assert run.start(**task("n2", number=2)).wait(60) == 1, run.log()
    assert first.wait(60) == 1, "it hears of it as it tries again\n" + run.log()
    assert (run.folder / "loads").read_text().split() == ["n1", "n2"]


def test_too_little_memory_for_one_image_ends_a_local_run(start_run):
    """No other machine could tell otherwise: at once."""
    run, _server = start_run(total=4, images=2, FAKE_MAX_BATCH="0")
    ended = subprocess.run(
        run.command(task=False),
        capture_output=True,
        text=True,
        cwd=run.folder,
        timeout=120,
        env=running_client.ENVIRONMENT | run.environment,
    )
    assert ended.returncode == 1, ended.stderr
    assert "not even one image of 32x32 fits" in ended.stderr and "--offload model" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_disk_that_answers_later_is_waited_for(start_run):
    run, _server = start_run(total=4, images=2, FAKE_LOAD_ERROR="OSError", FAKE_BAD_HOSTS="bad")
    (run.folder / "bad").write_text("n1")
    client = run.start(**task("n1"))
    until(lambda: "trying again until it works" in run.log(), run.log)
    (run.folder / "bad").write_text("")
    assert client.wait(90) == 0, run.log()
    run.check()
    assert run.log().count("trying again until it works") == 1


# ---------------------------------------------------------------- the rules, on the clock of a test

NODE = [{"host": f"n{i}", "submission": "s", "array_job": "4"} for i in range(4)]


def test_one_node_alone_is_believed_the_third_time_unless_another_may_contradict():
    alone, with_another = Submissions(), Submissions()
    with_another.heard(0, "birds", NODE[1])
    said = [alone.cannot_start(t, "birds", NODE[0], Fault("unclear", "x")) for t in range(3)]
    assert said[:2] == [None, None] and "found on n0" in said[2]
    said = [with_another.cannot_start(t, "birds", NODE[0], Fault("unclear", "x")) for t in range(9)]
    assert said == [None] * 9
    assert with_another.cannot_start(9, "birds", NODE[1], Fault("unclear", "x"))


def test_a_broken_card_is_believed_from_the_third_host():
    submissions = Submissions()
    for node in (NODE[0], NODE[0], NODE[0], NODE[1]):
        assert submissions.cannot_start(0, "birds", node, Fault("device", "x")) is None
    assert submissions.cannot_start(0, "birds", NODE[2], Fault("device", "x"))


def test_a_worker_that_works_is_the_proof_that_the_command_can_be_done():
    submissions = Submissions()
    assert submissions.cannot_start(0, "birds", NODE[0], Fault("command", "x"))
    assert submissions.refusal("birds", NODE[1]) and submissions.stopped()
    submissions.works("birds", NODE[2])
    assert submissions.refusal("birds", NODE[1]) is None and not submissions.stopped()
    assert submissions.cannot_start(1, "birds", NODE[0], Fault("command", "x")) is None
    other = NODE[0] | {"submission": "t"}
    assert submissions.cannot_start(1, "birds", other, Fault("command", "x")), (
        "another command is another question"
    )
    assert submissions.refusal("birds", NODE[0]) is None
