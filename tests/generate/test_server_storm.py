"""T3: the real server and many real clients that publish real files, with SIGKILLs of both.

At random, and half of the clients at once.
"""

import random
import time

import pytest

from tests.fakes.running_server import Clients, RunningServer, check_files, until


def storm(root, clients, total, images, seconds, server_kills):
    """Until every index is done; asserts I1 (all along and after each restart), I11, I13."""
    server = RunningServer(root, ttl_s=4, beat_s=0.5)
    crowd = Clients(
        root, clients, "--total", total, "--images", images, "--chunk_size", 5, FAKE_BATCH_S="0.02"
    )
    try:
        kills_at = sorted(random.uniform(0.1, 0.8) * total for _ in range(server_kills))
        half_at, killed, halved = 0.5 * total, 0, False
        crowd.fill()
        end = time.monotonic() + seconds
        while True:
            assert time.monotonic() < end, (
                f"{server.dataset()} {crowd.logs()} {server.log()[-2000:]}"
            )
            storm = server.dataset()
            done = storm["done"] if storm else 0
            assert not storm or (storm["sum_ok"] and storm["set_aside"] == 0), storm
            if done == total:
                break
            if killed < server_kills and done > kills_at[killed]:
                server.kill()
                killed += 1
                server.start()
                assert server.dataset()["done"] >= done  # I5
            if not halved and done > half_at:
                halved = bool(crowd.kill(clients // 2)) or True
            if random.random() < 0.4:
                crowd.kill(1)
            crowd.reap()
            crowd.fill()
            time.sleep(0.2)
        assert killed == server_kills and halved and crowd.killed > clients // 2
        until(
            lambda: (crowd.reap(), not crowd.processes)[1], "every client to end by itself", 60
        )  # I13
        assert not crowd.failed, crowd.logs()
        drafts = check_files(root / "generated_images" / "storm", total, images)  # I11
        assert not drafts, drafts  # the next holder removes them
        assert "Traceback" not in server.log()
        assert server.stop() == 0
    finally:
        crowd.end()
        server.stop()


@pytest.mark.timeout(400)
def test_storm(tmp_path):
    storm(tmp_path / "out", clients=20, total=600, images=2, seconds=300, server_kills=3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_storm_of_a_hundred(tmp_path, seed):
    random.seed(seed)
    storm(tmp_path / "out", clients=100, total=3000, images=2, seconds=3000, server_kills=3)
