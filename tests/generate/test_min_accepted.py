"""--min_accepted: a run of which too few images are accepted ends, by the counts of all clients."""

import pytest

from generate.server.ledger import acceptance
from tests.fakes.running_client import Run
from tests.generate.test_accept import ACCEPT, LUCK

FEW = ["--scores", LUCK, "--accept", "luck > 30", "--max_tries", 1000]  # one in 15 or so
PROMPTS = 50


def test_a_run_ends_with_one_line_and_goes_on_when_told_to(start_run):
    run, server = start_run(total=PROMPTS, images=4, options=[*FEW, "--min_accepted", 0.5])
    assert run.start().wait(120) == 1
    last = run.log().splitlines()[-1]
    assert "images were accepted by 'luck > 30', less than --min_accepted 0.5: the run" in last
    dataset = server.dataset("birds")
    assert 0 < dataset["done"] < PROMPTS and dataset["leased"] == dataset["set_aside"] == 0
    judged = dataset["acceptance"]["accepted"] + dataset["acceptance"]["rejected"]
    assert judged >= acceptance.ENOUGH
    before = len(run.log())
    assert run.start().wait(60) == 1
    assert "--min_accepted 0.5: the run ends" in run.log().splitlines()[-1]
    assert "device busy" not in run.log()[before:], "it has loaded no model"
    assert run.start("--min_accepted", 0).wait(120) == 0, run.log()
    run.check()
    assert run.start().wait(60) == 0, "all is done: nothing is to be ended"


class Counted:
    """Fake of the ledger's queries: counts alone."""

    def __init__(self, accepted, rejected, waiting=5):
        self.tallies = {"accepted": accepted, "rejected": rejected}
        self.waiting = waiting

    def tally(self, dataset, name):
        return self.tallies[name]

    def counts(self, dataset):
        return {"waiting": self.waiting}


DEFINITION = {"accept": "luck > 0"}


@pytest.mark.parametrize(
    "counted, floor, ends",
    [
        (Counted(19, 1981), 0.01, True),
        (Counted(20, 1980), 0.01, False),
        (Counted(0, 1999), 0.01, False),
        (Counted(0, 2000), 0.0, False),
        (Counted(0, 2000, waiting=0), 0.01, False),
        (Counted(899, 1101), 0.45, True),
    ],
)
def test_when_a_run_ends(counted, floor, ends):
    said = acceptance.too_few(counted, "birds", DEFINITION, floor)
    assert (said is not None) is ends
    if said:
        assert "luck > 0" in said and "--min_accepted 0 goes on" in said and "\n" not in said


def test_only_a_run_with_accept_ends():
    assert acceptance.too_few(Counted(0, 9999), "birds", {"accept": None}, 0.01) is None


def test_no_share_is_one_line(tmp_path):
    refused = Run(tmp_path, options=ACCEPT).run("--min_accepted", 7, task=False)
    assert refused.returncode == 2 and "7 is not a number from 0 to 1" in refused.stderr
