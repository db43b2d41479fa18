"""--config and run.yaml: what a file says, what beats it, and that a stored run can be repeated."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.command_line import UserError
from generate.dataset.prompts_file import read_prompts
from generate.image_models.model_recipes import read_config
from generate.image_models.weights import stored_gib
from generate.launch import run_file
from generate.launch.start import define
from generate.protocol.connection import Refused
from tests.fakes.fake_model_hub import FakeModelHub
from tests.fakes.running_server import finish, granted, until

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "generate" / "generate_images.py"


@pytest.fixture
def parse(monkeypatch):
    """parse("--config", "run.yaml") -> (args, the words that clients and tasks get)."""

    def options(*words):
        monkeypatch.setattr(sys, "argv", ["generate_images.py", *map(str, words)])
        args = runpy.run_path(str(SCRIPT))["options"]()
        return args, sys.argv[1:]

    return options


def written(folder, text):
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_a_file_gives_the_options_and_the_command_line_beats_it(tmp_path, parse):
    path = written(
        tmp_path,
        "data_path: a.json\nexpected-samples-per-index: 7\ntime: 6:00:00\ncompile: yes\n"
        "use_slurm: true\nmodel: tiny\ngres: ''\n",
    )
    args, words = parse("--config", path, "--model=other", "--no-use-slurm")
    assert (args.data_path, args.expected_samples_per_index) == ("a.json", 7)
    assert (args.time, args.compile, args.gres) == ("6:00:00", True, "")
    assert (args.model, args.use_slurm) == ("other", False)
    assert not [word for word in words if "config" in word], "a later change must change no task"
    again, _ = parse(*words)
    assert vars(again) == vars(args) | {"config": None}
    first, its_words = parse(path, "--model=other", "--no-use-slurm")
    assert (vars(first), its_words) == (vars(args), words), "the first word needs no --config"
    args, words = parse(path, "b.txt")
    assert args.data_path == "b.txt" and "a.json" not in words
    args, words = parse("b.txt", f"--config={path}")
    assert args.data_path == "b.txt" and "a.json" not in words


@pytest.mark.parametrize(
    "text, says",
    [
        ("modle: tiny", "there is no option 'modle'; did you mean model?"),
        ("is_slurm_task: true", "there is no option 'is_slurm_task'"),
        ("num_workers: [1, 2]", "num_workers must be one text, number, true or false"),
        ("- model", "holds no options"),
        ("a: [", "is not YAML"),
        ('model: "a\\0b"', "the value of model holds a NUL"),
        ('model: "\\uD800"', "the value of model holds a NUL or half a surrogate pair"),
        ("", "holds no options"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, parse, text, says):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(says)) as error:
        parse("a.json", "--config", path)
    assert str(path) in str(error.value)


def test_a_wrong_value_names_the_file(tmp_path, parse, capsys):
    with pytest.raises(SystemExit):
        parse("a.json", "--config", written(tmp_path, "num_workers: many"))
    error = capsys.readouterr().err
    assert (
        "a.yaml: argument --num_workers: many is not a whole number" in error
        and error.count("\n") == 1
    )
    with pytest.raises(UserError, match="No such file"):
        parse("a.json", "--config", tmp_path / "none.yaml")


def test_without_prompts_it_says_so(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--model", "tiny")
    assert "which prompts?" in capsys.readouterr().err


def test_the_example_names_every_option(parse):
    text = (ROOT / "generate" / "run.example.yaml").read_text()
    args, _ = parse("--config", ROOT / "generate" / "run.example.yaml")
    named = set(re.findall(r"^(?:# )?(\w+):", text, re.M))
    ignored = {"invalidate_cache", "slurm_task_index", "slurm_task_datetme"}
    assert named == vars(args).keys() - ignored - run_file.NOT_IN_FILES
    uncommented = re.sub(r"^# (\w+:)", r"\1", text, flags=re.M)
    assert yaml.safe_load(uncommented).keys() == named
    assert (args.num_chunks, args.compile) == (1000, True)


def test_what_was_used_is_stored_and_repeats_the_definition(tmp_path, parse, monkeypatch):
    prompts = tmp_path / "birds.json"
    prompts.write_text('["a bird", "another bird"]')
    monkeypatch.chdir(tmp_path)
    args, _ = parse("birds.json", "--model=tiny", "--seed=3", "--extend=False", "--time=1:00:00")
    definition = define(args, read_prompts(prompts), tmp_path)
    run_file.store(args, definition, tmp_path / "folder")
    stored = tmp_path / "folder" / run_file.NAME
    before = os.stat(stored).st_mtime_ns
    run_file.store(args, definition, tmp_path / "folder")
    assert os.stat(stored).st_mtime_ns == before, "the same options: the same file"
    scores = parse("birds.json", "--scores=clip,my.py:Mine", "--sizes=64x64,128x64")[0]
    run_file.store(scores, definition | {"sizes": "64x64,128x64"}, tmp_path / "mix")
    mix = yaml.safe_load((tmp_path / "mix" / run_file.NAME).read_text())
    assert mix["scores"] == f"clip,{tmp_path}/my.py:Mine"
    assert mix["sizes"] == "64x64,128x64" and "size" not in mix
    monkeypatch.chdir("/")
    again, _ = parse("--config", stored)
    assert again.data_path == str(prompts) and again.time == "1:00:00"
    assert define(again, read_prompts(again.data_path), tmp_path) == definition


def test_a_wrong_model_defines_no_data_set(tmp_path):
    (tmp_path / "birds.json").write_text('["a bird", "another bird"]')
    command = [sys.executable, SCRIPT, tmp_path / "birds.json", f"--model={tmp_path}"]
    done = subprocess.run(
        [*map(str, command), f"--output_root={tmp_path / 'out'}"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "holds no model_index.json" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("contents", [b"evil", b'{"_class_name": 5}'], ids=["text", "damaged"])
@pytest.mark.parametrize("model", ["evil/model", "model"])
@pytest.mark.parametrize("words", [[], ["--preview=1"]], ids=["run", "preview"])
def test_a_model_without_json_is_refused_before_it_is_loaded(tmp_path, contents, model, words):
    """On the hub (a login page in between) and in a folder; loading takes long on a busy CPU."""
    hub = FakeModelHub(lambda path, sent: contents, "0" * 40)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_bytes(contents)
    (tmp_path / "birds.json").write_text('["a bird", "another bird"]')
    command = [sys.executable, "-X", "importtime", SCRIPT, "birds.json", f"--model={model}"]
    command += ["--output_root=out", "--augment_prompts=False", *words]
    env = os.environ | hub.environment(tmp_path / "hub")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    hub.shutdown()
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 1 and len(lines) == 1, lines
    assert "model_index.json is no model's JSON" in lines[0]
    assert "diffusers.pipelines" not in done.stderr, "it is refused before anything is loaded"


def test_a_models_json_that_is_no_small_file_is_not_read(tmp_path):
    """A folder of a colleague: a pipe waits for ever, and 20 GB of zeros fill the memory."""
    config = tmp_path / "config.json"
    os.truncate(os.open(config, os.O_CREAT | os.O_WRONLY), 20 << 30)
    with pytest.raises(UserError, match=r"config\.json: it is larger than 1,048,576 bytes"):
        read_config(config)
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(UserError, match=r"config\.json: it is a named pipe"):
        read_config(config)
    (tmp_path / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"]}')
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert stored_gib(str(tmp_path), None, "float32") is None


def test_a_data_set_without_an_image_may_be_defined_anew(start):
    """A wrong model locks nothing; what has a lease or an image keeps its definition."""
    server = start()
    client = server.client(total=8)
    client.look()
    smaller = server.client(total=4)
    with pytest.raises(Refused, match="begun with 8"):
        smaller.get_indices(5)  # it did not begin by looking: it was in the middle of its work
    smaller.look()
    until(lambda: server.dataset()["total"] == 4, "the new definition")
    grant = granted(smaller, 2)
    with pytest.raises(Refused, match="begun with 4"):
        client.look()  # a lease is out
    finish(smaller, grant)
    with pytest.raises(Refused, match="begun with 4"):
        client.look()  # and there are images
    assert "defined anew" in server.log()
    assert server.dataset()["done"] == 2


def test_dry_run_without_slurm_draws_nothing(tmp_path):
    (tmp_path / "birds.json").write_text('["a bird", "another bird"]')
    command = [sys.executable, SCRIPT, tmp_path / "birds.json", "--dry-run", "--model=tiny"]
    done = subprocess.run(
        [*map(str, command), f"--output_root={tmp_path / 'out'}"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "200 images: 2 prompts x 100" in done.stdout, done.stderr
    assert not (tmp_path / "out").exists()
