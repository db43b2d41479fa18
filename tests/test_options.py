"""The command lines: one way to take options in all folders, --help that imports nothing heavy."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common.command_line import Options
from common.version import version
from tests.fakes.forked_script import forked

ROOT = Path(__file__).resolve().parent.parent
ENTRY_POINTS = (
    "combine_prompts/process_*.py",
    "combine_prompts/combine.py",
    "generate/image_server.py",
    "generate/generate_images.py",
    "generate/llm_prompting.py",
    "postprocess_dataset/convert_*.py",
    "postprocess_dataset/make_report.py",
    "postprocess_dataset/push_to_hub.py",
    "postprocess_dataset/release.py",
    "postprocess_dataset/score_images.py",
    "postprocess_dataset/make_dataset_card.py",
    "postprocess_dataset/make_release_forms.py",
    "postprocess_dataset/verify_dataset.py",
)
SCRIPTS = sorted(path for pattern in ENTRY_POINTS for path in ROOT.glob(pattern))
HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "langchain",
    "langchain_core",
    "pandas",
    "pyarrow",
    "datasets",
    "numpy",
    "PIL",
    "flask",
    "huggingface_hub",
    "ollama",
    "openai",
    "sklearn",
    "ftfy",
}


def parser():
    parser = Options("doc", prog="prog")
    parser.add_argument("data_path")
    parser.add_argument("--num_workers", type=int, default=1)
    parser.flag("--use_slurm", "submit")
    return parser


@pytest.mark.parametrize(
    "args, used",
    [
        (["--use_slurm", "a.json"], True),
        (["a.json", "--use_slurm"], True),
        (["a.json", "--use_slurm=True"], True),
        (["a.json", "--use_slurm", "False"], False),
        (["--use_slurm", "false", "a.json"], False),
        (["a.json"], False),
        (["a.json", "--use-slurm"], True),
        (["a.json", "--use-slurm=yes"], True),
        (["a.json", "--use_slurm", "--no-use-slurm"], False),
        (["a.json", "--num-workers=2", "--use-slurm"], True),
    ],
)
def test_a_flag_takes_only_a_true_or_false_word(args, used):
    parsed = parser().parse_args(args)
    assert (parsed.data_path, parsed.use_slurm) == ("a.json", used)


@pytest.mark.parametrize(
    "args, says",
    [
        (["a.json", "--use_slrm"], "did you mean --use_slurm?"),
        (["a.json", "--bogus"], "--bogus', see --help"),
        (["a.json", "--num_worker=3"], "did you mean --num_workers?"),
        (["a.json", "--use_slurm=maybe"], "neither True nor False"),
        (["a.json", "--num_workers=x"], "invalid int value"),
    ],
)
def test_a_wrong_option_is_one_line(args, says, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(args)
    error = capsys.readouterr().err
    assert end.value.code == 2 and says in error and error.count("\n") == 1


def test_usage_is_one_short_line_and_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert capsys.readouterr().out.startswith("usage: prog data_path [options]\n\n")
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"prog {version()}\n"
    given = vars(parser().parse_args(["a.json"]))
    assert given.keys() == {"data_path", "num_workers", "use_slurm"}, "nothing that was not asked"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_imports_nothing_heavy(script, tmp_path):
    """Runs `script --help` in an interpreter that tells at its end which modules it has loaded."""
    code = (
        "import atexit, json, runpy, sys; script, out = sys.argv[1:]\n"
        "sys.argv = [script, '--help']; sys.path[0] = script.rpartition('/')[0]\n"
        "names = lambda: sorted({name.partition('.')[0] for name in sys.modules})\n"
        "atexit.register(lambda: open(out, 'w').write(json.dumps(names())))\n"
        "runpy.run_path(script, run_name='__main__')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(script), str(tmp_path / "modules.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0 and script.name in shown.stdout, shown.stderr
    assert not HEAVY & set(json.loads((tmp_path / "modules.json").read_text()))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_unknown_option_is_named(script):
    shown = subprocess.run(
        [sys.executable, str(script), "--no_such_option_at_all"], capture_output=True, text=True
    )
    assert (
        shown.returncode == 2 and shown.stderr.count("\n") == 1 and "Traceback" not in shown.stderr
    )


PACK = "postprocess_dataset/pack_finished_folders.py"
GENERATE = "generate/generate_images.py p.json --output_root out"
SERVER = "generate/image_server.py --output_root out"
VERIFY = "postprocess_dataset/verify_dataset.py data"


@pytest.mark.parametrize(
    "line, says",
    [
        (f"{SERVER} --drain --resume", "--drain and --resume do not go together"),
        (f"{SERVER} --status --drain", "--status and --drain do not go together"),
        (f"{SERVER} --status --llm_budget_usd=0", "--status and --llm_budget_usd"),
        (f"{SERVER} --retry_failed --take_over", "--take_over and --retry_failed"),
        (f"{SERVER} --json", "--json goes with --status"),
        (f"{GENERATE} --status --redo=3", "--status and --redo do not go together"),
        (f"{GENERATE} --cancel --dry_run", "--cancel and --dry_run do not go together"),
        (f"{VERIFY} --manifest --tars t", "--manifest and --tars do not go together"),
        (f"{GENERATE} --redo=", "argument --redo: it is empty"),
        (f"{GENERATE} --config=", "argument --config: it is empty"),
        (f"{PACK} ''", "argument DIR: it is empty"),
        (f"{GENERATE} --model=", "argument --model: it is empty"),
        ("generate/image_server.py --output_root=", "argument --output_root: it is empty"),
        (f"{VERIFY} --parquet_file=", "argument --parquet_file: it is empty"),
        ("combine_prompts/combine.py p.json --output=", "argument --output: it is empty"),
    ],
)
def test_no_order_is_lost_and_no_value_is_empty(line, says, tmp_path):
    """As when a shell variable is not set. Nothing is begun."""
    script, *words = shlex.split(line)
    (tmp_path / "p.json").write_text('["a fox"]')
    shown = subprocess.run(
        [sys.executable, ROOT / script, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 2 and says in shown.stderr, shown
    assert shown.stderr.count("\n") == 1 and os.listdir(tmp_path) == ["p.json"]


def test_a_budget_of_nothing_is_an_order(tmp_path):
    """0 equals False: the order was lost, and a server was started instead."""
    command = [sys.executable, ROOT / "generate/image_server.py", "--output_root", tmp_path]
    ended = subprocess.run([*command, "--llm_budget_usd=0"], capture_output=True, text=True)
    assert ended.returncode == 1 and "no job server was started" in ended.stderr, ended
    assert os.listdir(tmp_path) == []


def test_an_empty_value_that_means_something_is_taken():
    options = Options("x")
    options.may_be_empty.add("--gres")
    options.add_argument("--gres", default="gpu:1")
    options.add_argument("--setup", default="")
    given = options.parse_args(["--gres=", "--setup", ""])
    assert (given.gres, given.setup) == ("", "")


def tab(line, folder):
    """What the shell offers after the words of a line."""
    script = ROOT / line.split()[0]
    answer = folder / "answer"
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " "}
    ended = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return answer.read_text().split()


def test_the_tab_key_completes_options_and_their_values(tmp_path):
    assert tab("generate/generate_images.py --expected", tmp_path) == [
        "--expected_samples_per_index"
    ]
    assert tab("generate/generate_images.py a.json --speed f", tmp_path) == ["fast", "faster"]
    assert "--parquet_file" in tab("postprocess_dataset/convert_parquet_to_wds.py --", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["answer"], "nothing else is done"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_marked_for_the_tab_key(path):
    """argcomplete's own rule: within the first 1024 bytes."""
    assert "PYTHON_ARGCOMPLETE_OK" in path.read_text()[:1024]


def test_without_argcomplete_a_tab_does_no_work(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-S", ROOT / "combine_prompts" / "process_sac.py"],
        env=os.environ | {"_ARGCOMPLETE": "1"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert ended.returncode == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"])
@pytest.mark.parametrize("value", ["", "soon", "1\n2"])
@pytest.mark.parametrize("script", ["generate/generate_images", "postprocess_dataset/push_to_hub"])
def test_a_setting_that_the_hubs_library_ends_with(script, name, value):
    """It was a traceback of huggingface_hub, whichever module loaded it."""
    ended = forked(f"{script}.py", "a", "b/c", environment=os.environ | {name: value})
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert f"{name} in the environment is no whole number" in ended.stderr
