"""The commit of a model, its adapters and the libraries are those a data set was begun with."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.command_line import UserError
from generate.dataset.definition import Differs, compare
from generate.image_models.model_commit import commit_of
from generate.image_models.model_recipes import TINY
from generate.pipelines.pipeline import Pipeline
from generate.pipelines.provenance import check, libraries
from tests.fakes.fake_model_hub import FakeModelHub

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "0" * 39 + "a", "0" * 39 + "b"
# What start() does with the options, up to the server; prints the definition and what is loaded.
CLIENT = """
import json, sys
from pathlib import Path
from generate import generate_images
from generate.client.generation import generator_settings
from generate.dataset.definition import settle
from generate.dataset.prompts_file import read_prompts
from generate.launch.start import define
root = Path(sys.argv.pop())
args = generate_images.options()
definition = define(args, read_prompts(args.data_path), root)
folder = root / "generated_images" / definition["name"]
folder.parent.mkdir(parents=True, exist_ok=True)
settle(folder, definition)
print(json.dumps(definition | {"loads": generator_settings(args, definition, root).revision}))
"""


@pytest.fixture
def hub():
    """FakeModelHub: any model and adapter, at .commit; .files: what they hold; .asked: requests."""

    def content(path, sent):
        hub.asked += 1
        return hub.files.get(path.split(f"/{hub.commit}/")[-1].split("/main/")[-1], b"{}")

    hub = FakeModelHub(content, OLD)
    hub.asked, hub.files = 0, {}
    yield hub
    hub.shutdown()


@pytest.fixture
def begun(tmp_path, hub):
    """begun(name, *options) -> the definition that a command comes to, and the revision it loads"""

    def begin(name, *options, **environment):
        (tmp_path / f"{name}.json").write_text('["a bird"]')
        words = [f"{name}.json", "--model", "fake/Z-Image-Turbo", *options, tmp_path / "out"]
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(ROOT)}
            | hub.environment(tmp_path / "hub")
            | environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return begin


def test_a_run_of_weeks_loads_one_commit(begun, hub):
    """Looked up once; a data set that is begun later gets the newest; a user's word goes first."""
    first = begun("first", "--lora", "fake/adapter:0.5")
    assert first["model_commit"] == first["loads"] == OLD and first["revision"] is None
    assert first["lora"] == f"fake/adapter@{OLD}:0.5"
    asked = hub.asked
    hub.commit = NEW
    again = begun("first", "--lora", "fake/adapter:0.5")
    assert again == first and hub.asked == asked, "a task asks the hub for nothing"
    assert begun("second")["model_commit"] == NEW
    assert begun("third", "--revision", OLD)["loads"] == OLD
    away = begun("fourth", HF_ENDPOINT="http://127.0.0.1:9")
    assert away["model_commit"] == NEW, "as the cache has it"


def test_a_model_of_unknown_name_is_drawn_like_its_class(begun, hub):
    """The class stands in its model_index.json, its size in its configurations."""
    hub.files = {
        "model_index.json": b'{"_class_name": "SanaPipeline"}',
        "transformer/config.json": b'{"sample_size": 16}',
        "vae/config.json": b'{"block_out_channels": [1, 2, 3, 4, 5, 6]}',
    }
    found = begun("paintings", "--model", "someone/painter")
    assert (found["num_inference_steps"], found["guidance_scale"]) == (20, 4.5)
    assert (found["height"], found["width"], found["negative_prompt"]) == (512, 512, "")


def test_the_scheduler_is_that_of_the_model_and_stays(begun, hub):
    """Of the pinned commit; a data set that does not name one (older) names none later either."""
    index = b'{"_class_name": "ZImagePipeline", "scheduler": ["diffusers", "%s"]}'
    hub.files = {"model_index.json": index % b"FlowMatchEulerDiscreteScheduler"}
    first = begun("first")
    assert first["scheduler"] == "FlowMatchEulerDiscreteScheduler" and first["version"]
    hub.commit, hub.files = NEW, {"model_index.json": index % b"FlowMatchHeunDiscreteScheduler"}
    assert begun("first") == first
    assert begun("second")["scheduler"] == "FlowMatchHeunDiscreteScheduler"
    assert begun("tiny", "--model", "tiny")["scheduler"] == "FlowMatchEulerDiscreteScheduler"
    older = {name: first[name] for name in first if name not in ("scheduler", "version")}
    compare(older, first, "dataset.yaml")
    with pytest.raises(Differs, match="--allow_mixed goes on"):
        compare(first, first | {"scheduler": "DDIMScheduler"}, "dataset.yaml")


def test_a_folder_is_known_by_its_files(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    found = commit_of(str(model), None)
    assert found == commit_of("tiny", None) and found.startswith("files-")
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("1000", "1001"))
    changed = commit_of(str(model), None)
    (model / "README.md").write_text("of no meaning")
    assert commit_of(str(model), None) == changed
    (model / "more.bin").write_bytes(b"more")
    assert len({found, changed, commit_of(str(model), None)}) == 3


def test_other_libraries_are_refused_or_mixed_knowingly():
    """By server and worker; the message names the option."""
    begun = {"total": 1, "images_per_prompt": 1, "libraries": "diffusers 0.41, torch 2.9"}
    with pytest.raises(Differs, match="--allow_mixed goes on with what is here"):
        compare(begun, begun | {"libraries": libraries()}, "dataset.yaml")
    facts = {"model_commit": None, "left_out": []}
    worker = Pipeline(None, int, 1, "float32", "", facts=facts)
    check({"libraries": libraries()}, worker, allow_mixed=False)
    with pytest.raises(UserError, match="would generate with libraries"):
        check(begun, worker, allow_mixed=False)
    check(begun, worker, allow_mixed=True)
    moved = dataclasses.replace(worker, facts=facts | {"model_commit": NEW})
    with pytest.raises(UserError, match="model_commit"):
        check({"model_commit": OLD}, moved, allow_mixed=False)
