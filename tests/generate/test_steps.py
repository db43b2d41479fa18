"""Progress by denoising steps: a slow batch is no hung device, and SIGTERM ends within a step."""

import signal

from generate.server.ledger.live_leases import Heartbeat, LeaseLimits, LiveLeases
from tests.fakes.running_server import until


def test_sigterm_ends_within_a_step(start_run):
    """A batch of two minutes in 600 steps: the client leaves at once, releases, and exits well."""
    run, server = start_run(total=4, images=4, FAKE_STEPS="600", FAKE_STEP_S="0.2", ttl_s=60)
    client = run.start(SLURMD_NODENAME="n1")
    until(lambda: server.dataset("birds") and server.dataset("birds")["leased"], run.log)
    until(lambda: any(row["drawing"] for row in server.status()["workers"]["rows"]), run.log)
    client.send_signal(signal.SIGTERM)
    assert client.wait(40) == 0, run.log()
    assert "the batch on the device is given up" in run.log()
    counts = server.dataset("birds")
    assert counts["leased"] == 0 and set(counts["given_back"]) == {"preempted"}
    assert run.count() == 0 and not server.status()["errors"]
    assert run.start(FAKE_STEPS="0").wait(60) == 0, run.log()
    run.check()


def test_a_batch_that_takes_hours_is_no_hung_device():
    """Its lease is renewed as long as steps come; without, it ends after stall_s."""
    live = LiveLeases(LeaseLimits(ttl_s=120, stall_s=900), 0.0)
    live.add(0.0, "1-1", "slow", bare=False)

    def beat(now, steps):
        live.heartbeat(now, Heartbeat("slow", ["1-1"], "drawing", steps=steps))
        return live.expired(now)

    assert not any(beat(now, now // 600) for now in range(0, 20_000, 60))
    over = [now for now in range(20_000, 25_000, 60) if beat(now, 33)]
    assert over and 19_800 + 900 <= over[0] <= 19_800 + 900 + 2 * 120
