"""A task that asks to be requeued: until SLURM takes it, and never as if all were well."""

import os

import pytest

from common import slurm
from common.command_line import UserError

TASK = {
    "SLURM_JOB_ID": "49",
    "SLURM_ARRAY_JOB_ID": "42",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_RESTART_COUNT": "0",
}
AWAY = "Unable to contact slurm controller (connect failure)"


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """scontrol(answers): each call of it fails with the next answer, then succeeds; its calls."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "REQUEUE_PAUSE_S", 0.01)
    calls = tmp_path / "calls"

    def answer(*answers):
        (tmp_path / "answers").write_text("".join(f"{text}\n" for text in answers))
        (tmp_path / "scontrol").write_text(
            f'#!/bin/sh\ncd {tmp_path}; echo "$*" >> calls; n=$(wc -l < calls)\n'
            'text=$(sed -n "${n}p" answers); [ -z "$text" ] || { echo "$text" >&2; exit 1; }\n'
        )
        (tmp_path / "scontrol").chmod(0o755)
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return answer


def test_it_asks_until_slurm_takes_it(scontrol, capsys):
    calls = scontrol(AWAY, AWAY, "Socket timed out on send/recv operation", AWAY)
    assert slurm.requeue_self("time limit")
    assert calls() == ["requeue 42_7"] * 5
    said = capsys.readouterr().out
    assert said.count("Unable to contact") == 2, "the same answer is said once"


@pytest.mark.parametrize(
    "answer",
    [
        "Requested operation is presently disabled for job 49",
        "Invalid job id specified for job 49",
        "Job has already finished",
    ],
)
def test_a_refusal_for_good_is_an_error(scontrol, answer):
    calls = scontrol(AWAY, answer)
    with pytest.raises(UserError, match=rf"time limit, and SLURM does not requeue 42_7: {answer}"):
        slurm.requeue_self("time limit")
    assert len(calls()) == 2


def test_outside_of_slurm_nobody_is_asked(scontrol, monkeypatch):
    calls = scontrol()
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    assert not slurm.requeue_self("time limit") and not calls()
