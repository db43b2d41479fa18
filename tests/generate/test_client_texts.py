"""Prompts that give no image, LLMs that give no caption, the options a run is begun with."""

import json
import types

import pytest
import yaml
from PIL import Image

from common.model_terms import SD3_NOTICE
from generate import generate_images
from generate.client.process import chunk_size
from generate.client.recipes import seed_of
from generate.launch import start
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.running_server import until


def test_a_text_at_which_the_pipeline_raises_an_error(start_run):
    """The others of its batch are generated; it fails with its reason, and the device is fine."""
    run, server = start_run(
        total=4, images=4, FAKE_ERROR="number 2, view 1", server=["--max_marks", 2]
    )
    assert run.start().wait(60) == 3, run.log()
    run.check(given_up={"2_2"})
    failed = json.loads((run.data / "000000" / "2_2.failed").read_text())
    assert failed["reason"] == "prompt" and failed["error"].startswith("ValueError: the text has")
    assert server.dataset("birds")["set_aside"] == 1 and "failed (gpu)" not in run.log()


def test_all_llms_off_ends_the_client_with_their_remedies(start_run, tmp_path):
    """Nothing may return: one line, and the prompts are released at once with the reason llm.

    With the right key the next client finishes.
    """
    with FakeOpenAI(key="sk-right-0123456789") as llm:
        backend = {
            "provider": "openai",
            "model": "m",
            "base_url": f"{llm.url}/v1",
            "key_env": "A_KEY",
        }
        (tmp_path / "backends.yaml").write_text(
            yaml.safe_dump({"tiers": [{"backends": [backend]}]})
        )
        options = ["--llm_backends", tmp_path / "backends.yaml"]
        run, server = start_run(total=3, images=3, variations=False, ttl_s=60, options=options)
        assert run.start(A_KEY="sk-wrong-0123456789").wait(60) == 1, run.log()
        last = run.log().strip().splitlines()[-1]
        assert (
            last.startswith("generate_images: no LLM can be asked: ")
            and "set A_KEY to a valid key" in last
        ), run.log()
        assert "Traceback" not in run.log()
        counts = server.dataset("birds")
        assert (
            counts["leased"] == 0
            and list(counts["given_back"]) == ["llm"]
            and run.count() == 0
            and "sk-wrong" not in run.log()
        )
        assert run.start(A_KEY="sk-right-0123456789").wait(60) == 0, run.log()
    run.check()
    sample = json.loads((run.data / "000000" / "0_1.json").read_text())
    assert (
        sample["llm_model_name"] == "m"
        and json.loads((run.data / "000000" / "0_0.json").read_text())["llm_model_name"] is None
    )


def test_max_idle_ends_a_client_whose_llms_are_away(start_run):
    with FakeOllama(faults={"hang": 1.0}) as llm:
        run, server = start_run(
            total=3, images=3, variations=False, ttl_s=60, options=["--ollama_hosts", llm.host]
        )
        patient, idle = run.start(), run.start("--max_idle", 2)
        assert idle.wait(60) == 0 and "idle for 2 s (--max_idle)" in run.log(), run.log()
        until(lambda: server.dataset("birds")["given_back"].get("llm"), run.log)
        assert patient.poll() is None, "without the option it waits"


def test_what_the_run_was_begun_with_stands_in_its_files(start_run):
    words = [
        "--augment_prompts=False",
        "--shuffle",
        "--shuffle_seed",
        3,
        "--seed",
        9,
        "--jpeg_quality",
        60,
    ]
    run, _server = start_run(
        total=5, images=1, options=[*words, "--invalidate_cache", "--slurm_task_index", 4]
    )
    run.images = 7  # of no meaning without augmentation
    assert run.start().wait(60) == 0, run.log()
    run.check(images=1)
    definition = yaml.safe_load((run.data / "dataset.yaml").read_text())
    assert (definition["order_seed"], definition["run_seed"], definition["images_per_prompt"]) == (
        3,
        9,
        1,
    )
    Image.new("RGB", (32, 32)).save(run.folder / "60.jpg", quality=60)
    for index in range(5):
        assert json.loads((run.data / "000000" / f"{index}_0.json").read_text())["seed"] == seed_of(
            9, index, 0
        )
        assert (
            Image.open(run.data / "000000" / f"{index}_0.jpg").quantization
            == Image.open(run.folder / "60.jpg").quantization
        )


@pytest.mark.parametrize(
    "given, total, size", [(None, 100, 25), (None, 3, 1), (None, 10**6, 512), (7, 10**6, 7)]
)
def test_prompts_a_lease(given, total, size):
    assert (
        chunk_size(
            types.SimpleNamespace(chunk_size=given, num_workers=4, max_chunk_size=512), total
        )
        == size
    )


def test_a_licence_that_restricts_training_is_said_once(capsys):
    for model in (generate_images.MODEL, "black-forest-labs/FLUX.1-schnell", "tiny"):
        start.show_notice(model)
    said = capsys.readouterr().out
    assert said == f"note on {generate_images.MODEL}: {SD3_NOTICE}\n"
