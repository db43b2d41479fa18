"""The scoring thread outlives its own faults: the client ends, and does not wait for ever."""

import threading
from types import SimpleNamespace

import numpy

from generate.client.in_order import InOrder
from generate.client.scoring import Scoring, Verdicts
from tests.fakes.running_server import until


def candidate():
    return SimpleNamespace(pixels=numpy.zeros((2, 2, 3), "uint8"), sample=SimpleNamespace(text="a"))


def test_a_fault_of_the_program_ends_the_client(tmp_path, caplog):
    def accepts(values):
        raise KeyError("a fault")

    judge = SimpleNamespace(
        score=lambda pixels, texts: [{"luck": 1.0} for _ in texts],
        awaits_others=lambda values: False,
        accepts=accepts,
    )
    told = []
    verdicts = Verdicts(told.append, told.append, lambda one, error: told.append((one, error)))
    scoring = Scoring(judge, InOrder(tmp_path, threading.Condition()), verdicts)
    scoring.start()
    first, second = candidate(), candidate()
    scoring.put(first)
    until(lambda: told, "the first verdict")
    scoring.put(second)
    until(lambda: len(told) == 2, "the second one")
    assert [one for one, _ in told] == [first, second]
    assert all(isinstance(error, KeyError) for _, error in told)
    assert "scoring has failed" in caplog.text and scoring.waiting == 0
