"""An array whose command no worker can do: it ends by itself, and holds no GPU."""

import pytest

pytestmark = pytest.mark.timeout(400)


def test_an_array_with_a_wrong_command_ends_by_itself(run):
    """Twelve tasks, of which few load the model; each ends with the same line, none is requeued.

    The corrected command does all.
    """
    run.start_server()
    loads = run.folder / "loads"
    array = run.submit("--num_workers=4 --num_chunks=12", FAKE_ERROR=".", FAKE_LOADS=str(loads))
    run.wait_ended(180)
    logs = [text for name, text in run.logs().items() if name.startswith(f"{array}_")]
    assert len(logs) == 12
    assert all("the run is stopped, as no worker can do" in text for text in logs), logs
    assert not any("asking SLURM to requeue" in text for text in logs)
    assert len(loads.read_text().split()) <= 4, "only those that began before the first had said so"
    headline = run.document()["weather"]["headline"]
    assert headline.startswith("Stopped: no worker can do what the command for scenes asks")
    run.submit()
    run.wait_done()
    run.wait_ended()
    run.may_say = ["Error"]
    run.check()
