"""A sub-folder of 1,000 prompts that is moved away, or back, while the server runs."""

import time

from generate.server.folder_check import LOOK_EVERY_S
from tests.fakes.running_server import finish, granted, until

TOTAL = 2010


def test_a_sub_folder_that_was_moved_away_does_not_count(start):
    """While others still work, long before "all done": its images are not there."""
    server = start()
    client = server.client(total=TOTAL)
    seen = set()
    while not any(1000 <= index < 2000 for index in seen):
        answer = granted(client, 500)
        seen |= set(answer.indices)
        finish(client, answer)
    assert server.dataset()["done"] == len(seen) < TOTAL
    away = sum(1000 <= index < 2000 for index in seen)
    folder = server.root / "generated_images" / "storm" / "000001"
    time.sleep(2 * LOOK_EVERY_S + 1)  # older than a look: who comes and goes between two is unseen
    folder.rename(server.root / "away")
    until(lambda: server.dataset()["done"] == len(seen) - away, "the loss to be seen", 20)
    assert server.dataset()["images"] == 2 * (len(seen) - away)
    assert "its 000001 was moved" in server.log()
    (server.root / "away").rename(folder)
    until(lambda: server.dataset()["done"] == len(seen), "its return to be seen", 20)
    assert server.dataset()["sum_ok"] and "Traceback" not in server.log()
