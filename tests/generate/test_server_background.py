"""What goes on beside the requests, step by step."""

import threading

import pytest

from generate.server import background
from generate.server.background import Requeue, repeat


class FakeSlurm:
    """time_left_s() and requeue_self(); answers: what the next calls return, or raise."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def time_left_s(self):
        return 60

    def requeue_self(self, reason):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_requeue_is_asked_for_once(monkeypatch):
    slurm = FakeSlurm()
    monkeypatch.setattr(background, "slurm", slurm)
    monkeypatch.setattr(background, "REQUEUE_AGAIN_S", 0)
    requeue = Requeue()
    for _ in range(5):
        requeue.step()
    assert slurm.asked == 1
    requeue.now()  # SLURM's signal
    requeue.step()
    requeue.step()
    assert slurm.asked == 2


def test_a_requeue_that_is_refused_is_asked_for_again(monkeypatch):
    slurm = FakeSlurm(False, OSError("no space left for the log"), False, True)
    monkeypatch.setattr(background, "slurm", slurm)
    monkeypatch.setattr(background, "REQUEUE_AGAIN_S", 0)
    requeue = Requeue()
    requeue.step()
    with pytest.raises(OSError):
        requeue.step()
    for _ in range(5):
        requeue.step()
    assert slurm.asked == 4


def test_a_thread_outlives_its_step(caplog):
    """Each failure is logged once, however often it comes."""
    seen = threading.Event()
    calls = []

    def step():
        calls.append(1)
        if len(calls) == 3:
            seen.set()
        raise OSError("the disk is away")

    threading.Thread(target=repeat, args=("a step", step, 0.01), daemon=True).start()
    assert seen.wait(10)
    assert sum("a step" in record.message for record in caplog.records) == 1
