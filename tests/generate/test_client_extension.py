"""A data set that changes under its clients: extended in mid-run, or with captions deleted."""

import json
import shutil

from generate.dataset.captions import read_captions
from tests.fakes.fake_llm import FakeOllama
from tests.fakes.running_server import until


def test_extended_while_a_client_of_the_older_definition_runs(start_run):
    """It finishes what it holds, and goes on with the new one; so does one that starts later."""
    run, server = start_run(total=8, images=2, ttl_s=60, FAKE_BATCH_S="0.4")
    older = run.start()
    late = run.command()
    until(lambda: run.count() >= 2, f"images\n{run.log()}")
    run.images = 4
    assert run.start("--extend").wait(90) == 0, run.log()
    assert older.wait(90) == 0, run.log()
    assert "the data set was extended: what is held is finished first" in run.log()
    assert "the data set was extended; starting again" in run.log()
    assert run.begin(late).wait(60) == 0, run.log()
    run.check()
    counts = server.dataset("birds")
    assert counts["done"] == 8 and counts["set_aside"] == 0 and counts["sum_ok"]
    assert "Traceback" not in run.log()


def test_appended_prompts_reach_a_client_of_the_older_definition(start_run):
    run, server = start_run(total=6, images=2, ttl_s=60, FAKE_BATCH_S="0.4")
    older = run.start()
    until(lambda: run.count() >= 2, f"images\n{run.log()}")
    run.write_prompts(10)
    assert run.start("--extend").wait(90) == 0, run.log()
    assert older.wait(90) == 0, run.log()
    run.check()
    assert server.dataset("birds")["done"] == 10


def test_another_prompts_file_than_the_one_it_was_extended_with(start_run):
    """A task cannot follow: one line says with which file."""
    run, _server = start_run(total=4, images=2)
    assert run.start().wait(60) == 0, run.log()
    older = (run.folder / "birds.json").read_text()
    run.write_prompts(6)
    assert run.start("--extend").wait(60) == 0, run.log()
    (run.folder / "birds.json").write_text(older)
    refused = run.run()
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "was extended to 6 prompts" in refused.stderr


def texts_of(run, index):
    return [text["text"] for text in read_captions(run.data, index)["texts"]]


def test_lost_captions_come_from_the_images_before_any_llm_is_asked(start_run):
    """A .prompts deleted, one torn, one of another prompt: only the missing is asked for."""
    with FakeOllama() as llm:
        run, server = start_run(
            total=4, images=4, variations=False, options=["--ollama_hosts", llm.host]
        )
        assert run.start().wait(60) == 0, run.log()
        before = run.snapshot()
        asked = len(llm.asked)
        folder = run.data / "000000"
        captions = {
            n: [text["text"] for text in read_captions(run.data, n)["texts"]] for n in range(4)
        }
        (folder / "0.prompts").unlink()
        (folder / "1.prompts").write_bytes(b"")
        shutil.copy(folder / "3.prompts", folder / "2.prompts")
        for suffix in (".jpg", ".json"):
            (folder / f"2_3{suffix}").unlink()
        server.stop()
        server.start()
        assert run.start().wait(60) == 0, run.log()
        run.check()
        assert len(llm.asked) == asked + 1, "one caption of prompt 2 had no image"
    for n, old in captions.items():
        new = texts_of(run, n)
        assert new[: 3 if n == 2 else 4] == old[: 3 if n == 2 else 4]
    after = run.snapshot()
    kept = [name for name in before if name.suffix == ".jpg" and name.name != "2_3.jpg"]
    assert all(after[name] == before[name] for name in kept)
    assert (folder / "1.prompts.broken").exists() and (folder / "2.prompts.broken").exists()
    assert json.loads((folder / "0_1.json").read_text())["augmented_prompt"] == captions[0][1]


def test_a_sub_folder_deleted_in_mid_run(start_run):
    """Captions are published again by who still knows them; every image comes back."""
    with FakeOllama() as llm:
        run, server = start_run(
            total=6,
            images=4,
            variations=False,
            options=["--ollama_hosts", llm.host],
            FAKE_BATCH_S="0.2",
        )
        client = run.start()
        until(lambda: run.count() >= 5, f"images\n{run.log()}")
        shutil.rmtree(run.data / "000000", ignore_errors=True)
        assert client.wait(120) == 0, run.log()
        server.stop()
        server.start()
        assert run.start().wait(90) == 0, run.log()
        run.check()
    assert server.dataset("birds")["set_aside"] == 0 and "Traceback" not in run.log()
