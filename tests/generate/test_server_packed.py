"""A data set folder that is packed beside a running server, and after it."""

import json
import time

from generate.protocol.answers import AllDone, Wait
from postprocess_dataset.packing.pack_folder import Packing
from tests.fakes.running_server import finish, until


def generate_all(client, images=2):
    """The indices that were granted until all is done."""
    seen = set()
    while not isinstance(answer := client.get_indices(10), AllDone):
        if not isinstance(answer, Wait):
            seen |= set(answer.indices)
            finish(client, answer, images)
        time.sleep(0.05)
    return seen


def name_themselves(folder):
    """The JSONs say which sample they are: the packer looks at that."""
    for path in folder.glob("*_*.json"):
        index, aug = map(int, path.stem.split("_"))
        path.write_text(json.dumps({"prompt_index": index, "augmentation_idx": aug}))


def test_a_packed_folder_counts_for_a_running_a_new_and_an_extending_server(start):
    server = start()
    client = server.client(total=12)
    assert generate_all(client) == set(range(12))
    folder = server.root / "generated_images" / "storm" / "000000"
    until((folder / "COMPLETE").exists, "the mark", 60)
    name_themselves(folder)
    packed = Packing(folder).run()
    assert packed.prompts == 12 and not packed.left
    assert not list(folder.glob("*.jpg")) and not list(folder.glob("*.json"))
    assert isinstance(client.get_indices(5), AllDone)
    server.kill()
    (folder / "COMPLETE").unlink()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    until(lambda: (d := server.dataset()) and d["done"] == 12 and d["images"] == 24, "rebuild", 60)
    until((folder / "COMPLETE").exists, "the mark, from the tars alone", 60)
    wider = server.client(total=14, images=3)
    wider.definition |= {"extend": True, "prefix_total": 12, "prefix_sha256": "0" * 64}
    assert generate_all(wider, images=3) == set(range(14))
    assert (folder / "5.prompts2").exists() and not (folder / "5.prompts").exists()
    until(lambda: server.dataset()["images"] == 42, "the count of packed and loose images", 60)
    until((folder / "COMPLETE").exists, "the mark again", 60)
    name_themselves(folder)
    assert Packing(folder).run().prompts == 14 and not list(folder.glob("*_*.jpg"))
    server.kill()
    server.start()
    assert isinstance(
        until(lambda: not isinstance(a := wider.get_indices(5), Wait) and a, "word", 60), AllDone
    )
