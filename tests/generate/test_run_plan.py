"""What a local run says: its plan, what is missing, why nothing happens, how to go on."""

import argparse
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.command_line import FAILED, UserError
from common.console import this_python
from generate.dataset.definition import settle
from generate.dataset.layout import path_of
from generate.launch import finished, local_memory, plan, progress
from generate.launch.start import start as start_run
from generate.launch.status import Answer
from generate.llms.backend import BackendConfig
from generate.server.page.newest import from_folders
from tests.fakes.running_client import ENVIRONMENT, PIPELINE, ROOT
from tests.fakes.running_server import finish, granted, order, until, write_sample
from tests.fakes.storm_client import definition

SCRIPT = ROOT / "generate" / "generate_images.py"


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_which_llms_can_be_asked(listening, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    monkeypatch.delenv("NO_KEY", raising=False)

    def state(budget=0.0, **fields):
        return plan.state_of(BackendConfig("a", "openai", "m", **fields), budget)

    assert state(base_url=f"http://127.0.0.1:{listening}/v1") == "can be asked"
    assert state(base_url="http://127.0.0.1:1/v1") == "does not answer"
    assert state(key_env="NO_KEY") == "no key (NO_KEY)"
    assert state(key_env="A_KEY") == "can be asked"
    paid = {"key_env": "A_KEY", "usd_per_million": (1.0, 1.0)}
    assert state(**paid) == "off, as --llm_budget_usd is 0"
    assert state(budget=1.0, **paid) == "can be asked"


def test_the_command_again_replaces_the_option(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["g.py", "my prompts.txt", "--model", "big", "--llm=x"])
    assert (
        plan.again("--model tiny") == f"{this_python()} g.py 'my prompts.txt' --llm=x --model tiny"
    )
    said = plan.again("--llm embedded")
    assert said == f"{this_python()} g.py 'my prompts.txt' --model big --llm embedded"


def test_the_plan_says_what_is_asked_of_each_image():
    definition = {"width": 64, "height": 32, "num_inference_steps": 4, "guidance_scale": 1.0}
    assert plan.asked_of(definition) == "64x32 pixels, 4 steps, guidance 1"
    nothing = {"num_inference_steps": None, "guidance_scale": None, "sizes": "64x64:1"}
    assert plan.asked_of(definition | nothing) == "64x64:1 pixels"


def test_without_an_llm_the_commands_that_help_are_named(tmp_path, monkeypatch):
    backends = tmp_path / "b.yaml"
    backends.write_text(
        "tiers: [{backends: [{provider: ollama, model: m}, {provider: groq, model: g}]}]"
    )
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    args = argparse.Namespace(
        llm=None, llm_backends=backends, llm_budget_usd=0.0, ollama_hosts="127.0.0.1:1"
    )
    text = "\n".join(plan.llm_lines(args))
    assert "does not answer: ollama/m@127.0.0.1:1" in text and "no key (GROQ_API_KEY)" in text
    for line in (
        "ollama serve",
        "export GROQ_API_KEY",
        "--llm embedded",
        "--augment_prompts=False",
    ):
        assert line in text
    backends.write_text("tiers: [{backends: [{provider: embedded}]}]")
    assert "\n".join(plan.llm_lines(args)).startswith("LLMs       can be asked: embedded/")


def test_many_embedded_llms_are_refused_before_the_memory_is_full(tmp_path, monkeypatch):
    """Clients that start an LLM each, on one machine."""
    (tmp_path / "birds.json").write_text('["a bird", "a cat"]')
    (tmp_path / "b.yaml").write_text("tiers: [{backends: [{provider: embedded}]}]")
    (tmp_path / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable: 2097152 kB\n")
    monkeypatch.setattr(local_memory, "MEMORY", tmp_path / "meminfo")
    options = runpy.run_path(str(SCRIPT))["options"]
    for llm in ("--llm=embedded", f"--llm_backends={tmp_path / 'b.yaml'}"):
        words = [f"{tmp_path / 'birds.json'}", "--model=tiny", "--num_workers=3", llm]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, f"--output_root={tmp_path / 'out'}"])
        with pytest.raises(UserError, match=r"takes 3 GiB .* and 2\.0 are free") as said:
            start_run(options())
        assert "Give --num_workers 2, or one LLM server" in str(said.value)
    assert not list(tmp_path.glob("out/local_*")), "no client has started"


def test_a_preview_does_not_wait_for_an_llm_that_is_not_there(tmp_path):
    (tmp_path / "birds.json").write_text('["a bird", "a cat"]')
    (tmp_path / "b.yaml").write_text("tiers: [{backends: [{provider: ollama, model: m}]}]")
    command = [sys.executable, SCRIPT, tmp_path / "birds.json", "--pipeline", PIPELINE]
    command += ["--llm_backends", tmp_path / "b.yaml", "--ollama_hosts=127.0.0.1:1"]
    command += ["--preview=2", "--output_root", tmp_path / "out"]
    shown = subprocess.run([*map(str, command)], env=ENVIRONMENT, capture_output=True, text=True)
    assert shown.returncode == FAILED and "no LLM can be asked" in shown.stderr, shown.stderr
    assert "--augment_prompts=False" in shown.stderr


DOCUMENT = {
    "weather": {"state": "fair", "headline": "Running.", "what_to_do": []},
    "workers": {"by_state": {"drawing": 1, "waiting_llm": 2}},
    "llm": {"backends": [{"name": "a", "because": "refused"}]},
    "datasets": [],
}


def test_why_nothing_happens():
    assert progress.states(Answer(DOCUMENT)) == "2 waiting for an LLM"
    assert progress.troubles(Answer(DOCUMENT)) == []
    halted = {"state": "storm", "reason": "llm", "headline": "No LLM.", "what_to_do": ["Start it"]}
    lines = progress.troubles(Answer(DOCUMENT | {"weather": halted}))
    assert lines == ["No LLM.", "  Start it", "  a: refused"]
    silent = progress.troubles(Answer(None, "no server at node7"))
    assert silent == ["no server at node7; the clients wait for it"]


def looked(done, *clients, expected=40):
    """What the server says of `birds`; clients: (name, data set, images so far)."""
    rows = [{"client_id": c, "dataset": d, "images": n} for c, d, n in clients]
    counts = {"name": "birds", "images": done, "images_expected": expected}
    return Answer(DOCUMENT | {"datasets": [counts], "workers": {"by_state": {}, "rows": rows}})


def test_images_of_prompts_that_are_not_finished_are_counted():
    """A prompt of 200 images showed none until the last; an extension showed none at all."""
    drawn = progress.Drawn("birds", there=10)

    def images(*what, **more):
        return drawn.counted(looked(*what, **more))["images"]

    assert images(0, ("ours", "birds", 0), ("before", "birds", 7)) == 10
    assert images(0, ("ours", "birds", 3), ("before", "birds", 8), ("else", "cats", 9)) == 14
    assert images(2, ("new", "birds", 2)) == 16, "a client that has left keeps its images"
    assert images(30, ("new", "birds", 2)) == 30, "the ledger knows of more"
    assert images(30, ("new", "birds", 90)) == 40
    assert drawn.counted(Answer(None, "away")) is None


def test_an_extension_says_what_stays(tmp_path):
    views = [f"a bird, view {k}" for k in range(5)]
    prompts = tmp_path / "birds.json"
    prompts.write_text(json.dumps([{"prompt": "a bird", "variations": views}]))
    command = [sys.executable, SCRIPT, prompts, "--pipeline", PIPELINE, "--resolution=64"]
    command += ["--output_root", tmp_path / "out"]
    for words, says in (["4"], "birds: 1 of 1 prompts done, 4 images"), (["6", "--extend"], "6 im"):
        words = [*command, "--expected_samples_per_index", *words]
        ended = subprocess.run([*map(str, words)], env=ENVIRONMENT, capture_output=True, text=True)
        assert ended.returncode == 0 and says in ended.stdout, ended.stdout + ended.stderr
        stay = "the 4 images stay; a prompt is done again when it has 6"
        assert (stay in ended.stdout) == ("--extend" in words)


def status(root, *words):
    return subprocess.run(
        [sys.executable, SCRIPT, *words, "--status", "--output_root", root],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def test_a_finished_run_can_be_looked_at_without_a_server(tmp_path):
    folder = tmp_path / "generated_images" / "storm"
    folder.mkdir(parents=True)
    settle(folder, definition("storm", 3, 2))
    for index in (0, 2):
        write_sample(folder, index, 2)
    text = "\n".join(finished.lines_of(tmp_path, "storm"))
    assert "2 of 3 prompts done (66.7 %), 4 images" in text and "go on:" in text
    again = definition("storm", 3, 5) | {"num_inference_steps": 1}
    args = argparse.Namespace(use_slurm=False, llm="embedded", num_workers=1)
    (folder / "000000" / "1_0.jpg").symlink_to("nowhere")
    with open(folder / "000000" / "1_1.jpg", "wb") as sparse:
        sparse.truncate(40 << 30)
    before = plan.estimate(args, again, [{"prompt": "a"}] * 3, tmp_path, Answer(None))[1]
    assert "measured" in before and "GB an image" not in before
    (folder / "000000" / "1_0.jpg").unlink()
    (folder / "000000" / "1_1.jpg").unlink()
    lines = plan.estimate(args, again, [{"prompt": "a"}] * 3, tmp_path, Answer(None))
    assert lines[0] == "estimate   11 images (4 more are there): 3 prompts x 5"
    shown = status(tmp_path, "storm.json")
    assert shown.returncode == 0 and "2 of 3 prompts done" in shown.stdout, shown.stderr
    other = status(tmp_path, "other.json")
    assert other.returncode == FAILED and "there is no data set other in" in other.stderr
    (folder / "dataset.yaml").write_text("[")
    damaged = status(tmp_path, "storm.json")
    assert damaged.returncode == FAILED and "dataset.yaml is damaged" in damaged.stderr


def test_a_server_that_has_just_started_shows_the_newest_images(start, tmp_path):
    """Those of the life before: 736 of 736 images stood above 'No image yet'."""
    server = start()
    client = server.client(total=3)
    for index in range(3):
        finish(client, granted(client, 1))
        path_of(server.root / "generated_images" / "storm", index, 1, ".jpg").write_text("{}")
    for name in ("loop", "000000/3_0.jpg"):  # of a colleague
        (server.root / "generated_images" / "storm" / name).symlink_to(Path(name).name)
    server.stop()
    server.start()
    shown = until(lambda: server.status()["newest"], "images of the life before")
    assert {entry["index"] for entry in shown} == {0, 1, 2}
    assert from_folders(tmp_path, ["none", "storm"]) == []


def test_retrying_an_unknown_data_set_names_those_that_are_known(start):
    """From a command line its prompts file is easily given for its name."""
    server = start()
    server.client(total=3).look()
    ended = order(server, "--retry_failed", "storm.json")
    assert ended.returncode == FAILED and "known are: storm" in ended.stderr, ended
    assert "Traceback" not in server.log()


def test_an_order_to_a_server_that_has_ended_says_how_to_start_one(start):
    """As after a local run; the command works as it is said."""
    server = start()
    server.client(total=3).look()
    server.stop()
    for words in (["--retry_failed", "storm"], ["--status"], ["--status", "--json"]):
        ended = order(server, *words)
        command = f"start it first: python generate/image_server.py --output_root {server.root}\n"
        assert ended.returncode == FAILED and ended.stderr.endswith(command), ended
    server.start()
    assert order(server, "--retry_failed", "storm").stdout.startswith("0 failed prompts")


def test_a_sub_folder_that_cannot_be_read_is_named_and_the_others_are_counted(tmp_path):
    """The server puts its prompts off; a run's first look must not end the run."""
    folder = tmp_path / "generated_images" / "birds"
    folder.mkdir(parents=True)
    definition = {"name": "birds", "total": 2000, "images_per_prompt": 1}
    (folder / "dataset.yaml").write_text(json.dumps(definition))
    (folder / "000000").write_text("a file")
    (folder / "000001").mkdir()
    for ending in ("jpg", "json"):
        (folder / f"000001/1005_0.{ending}").write_text("x")
    assert finished.images_there(tmp_path, "birds") == 1
    lines = finished.lines_of(tmp_path, "birds")
    assert f"not counted: {folder / '000000'}: Not a directory" in "\n".join(lines)


def test_a_run_without_an_llm_says_why_and_how_to_go_on(tmp_path):
    """Nothing listens where the LLM should be; then Ctrl-C."""
    (tmp_path / "birds.json").write_text(json.dumps(["a bird", "a cat"]))
    (tmp_path / "b.yaml").write_text("tiers: [{backends: [{provider: ollama, model: m}]}]")
    command = [sys.executable, "-u", SCRIPT, tmp_path / "birds.json", "--pipeline", PIPELINE]
    command += ["--llm_backends", tmp_path / "b.yaml", "--ollama_hosts=127.0.0.1:1"]
    command += ["--resolution=64", "--output_root", tmp_path / "out"]
    log = tmp_path / "log"
    with open(log, "wb") as out:
        run = subprocess.Popen([*map(str, command)], env=ENVIRONMENT, stdout=out, stderr=out)
    until(lambda: "client 0: process" in log.read_text(), log.read_text, 150, process=run)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(120) == 130
    text = log.read_text()
    assert "plan       FakePipeline, 64x64 pixels" in text and "200 images: 2 prompts x 100" in text
    assert "no LLM can be asked now: clients wait for one" in text
    assert text.index("stopping: what is finished is published") < text.index("nothing is lost")
    assert re.search(
        r"Type it again to go on:\n\S*python\S* \S+generate_images.py \S+birds.json", text
    )
