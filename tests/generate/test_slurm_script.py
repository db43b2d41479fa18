"""The sbatch script and the arithmetic of arrays, without a cluster."""

import argparse
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import slurm
from common.command_line import Options, UserError
from generate.launch import array, preflight, sbatch, submit
from generate.launch.options import add_look_options, add_slurm_options
from generate.launch.start import order_seed


def options(*words):
    parser = Options("generate_images")
    parser.add_argument("data_path")
    parser.add_argument("--expected_samples_per_index", type=int)
    parser.add_argument("--max_chunk_size", type=int)
    parser.add_argument("--output_root")
    parser.flag("--compile", "compile")
    add_slurm_options(parser)
    add_look_options(parser)
    return parser.parse_args(list(words))


def script_of(*words, root="/data/out", dataset="HPDv2", max_size=1001):
    args = options(*words)
    parts = sbatch.split(args.num_chunks or args.num_workers, args.num_workers, max_size)
    return sbatch.array(args, dataset, root, parts[0], list(words))


PUBLISHED = (
    "HPDv2.json --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 "
    "--max_chunk_size=9 --use_slurm --compile=True"
)


def test_the_published_command_gives_the_published_job(monkeypatch):
    monkeypatch.setenv("HF_HOME", "/data/hf home")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy:3128")
    script = script_of(*PUBLISHED.split())
    lines = script.splitlines()
    for line in [
        "--job-name=generate_parallel_HPDv2",
        "--array=0-999%128",
        "--partition=all",
        "--cpus-per-task=8",
        "--mem=24g",
        "--gres=gpu:1",
        "--time=6:00:00",
        "--output=/data/out/%A_%a.out",
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@120",
        "--export=ALL",
    ]:
        assert f"#SBATCH {line}" in lines
    [command] = [line for line in lines if line.startswith("exec ")]
    assert command.startswith(f"exec {sys.executable} -u ")
    assert command.endswith(
        PUBLISHED.replace("--use_slurm ", "") + " --output_root=/data/out --is_slurm_task"
    )
    assert (
        "export HF_HOME='/data/hf home'" in lines
        and "export https_proxy=http://proxy:3128" in lines
    )
    assert "secret" not in script and "CUDA_VISIBLE_DEVICES" not in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_further_options_reach_the_script_and_only_the_script():
    words = [
        "my prompts.json",
        "--use_slurm",
        "True",
        "--partition",
        "gpu",
        "--account=a1",
        "--qos",
        "low",
        "--constraint=a100|h100",
        "--exclude=n[1-3]",
        "--time",
        "2-12",
        "--gres=",
        "--mem=8g",
        "--cpus_per_task",
        "4",
        "--sbatch_args=--reservation=r1 --comment=x",
        "--setup",
        "module load cuda; ulimit -n 4096",
        "--start_server",
        "--tail_log=False",
        "--dry_run",
        "--output_root",
        "/o o",
    ]
    script = script_of(*words, root="/o o")
    for line in [
        "--partition=gpu",
        "--account=a1",
        "--qos=low",
        "--constraint='a100|h100'",
        "--exclude='n[1-3]'",
        "--time=2-12",
        "--mem=8g",
        "--cpus-per-task=4",
        "--reservation=r1 --comment=x",
        "--output='/o o/%A_%a.out'",
    ]:
        assert f"#SBATCH {line}\n" in script
    assert "--gres" not in script
    assert "\nmodule load cuda; ulimit -n 4096\n" in script
    assert (
        "generate_images.py 'my prompts.json' --start_server --output_root '/o o' "
        "--is_slurm_task\n}\n" in script
    )


@pytest.mark.parametrize(
    "limit, lead", [("6:00:00", 120), ("1", 15), ("4:00", 60), ("1-0", 120), ("UNLIMITED", 120)]
)
def test_a_short_limit_shortens_the_warning(limit, lead):
    assert f"--signal=B:USR1@{lead}\n" in script_of("p.json", f"--time={limit}")


@pytest.mark.parametrize(
    "text, value",
    [
        ("90", 5400),
        ("59:30", 3570),
        ("5:59:30", 21570),
        ("1-02:03:04", 93784),
        ("1-2", 93600),
        ("1-2:30", 95400),
        ("0:15", 15),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_slurm_times(text, value):
    assert slurm.seconds(text) == value


@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 1500))
def test_a_split_array_has_every_task_and_shares_the_throttle(tasks, throttle, max_size):
    parts = [part.removeprefix("0-").split("%") for part in sbatch.split(tasks, throttle, max_size)]
    assert sum(int(last) + 1 for last, _ in parts) == tasks
    assert all(int(last) + 1 <= max_size for last, _ in parts)
    assert sum(int(share) for _, share in parts) == max(throttle, len(parts))
    assert len(parts) == -(-tasks // max_size)


def test_a_task_knows_itself_by_array_and_task():
    environ = {
        "SLURM_JOB_ID": "42",
        "SLURM_ARRAY_JOB_ID": "42",
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_RESTART_COUNT": "2",
        "SLURMD_NODENAME": "gpu03",
    }
    assert slurm.identity(environ) == {
        "host": "gpu03",
        "array_job": "42",
        "task": "7",
        "restart": 2,
        "slurm_job_id": "42",
    }
    assert slurm.task_name(environ) == "42_7"  # not "42", which is the whole array
    assert slurm.task_name({"SLURM_JOB_ID": "43"}) == "43"
    assert slurm.identity({}) == {
        "host": os.uname().nodename,
        "array_job": None,
        "task": None,
        "restart": None,
        "slurm_job_id": None,
    }


def test_without_slurm_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"sbatch was not found.*leave out --use_slurm"):
        submit.submit(
            argparse.Namespace(num_workers=1, num_chunks=None, dry_run=False),
            {"name": "p"},
            tmp_path,
            [],
            [],
        )
    assert slurm.queue() is None and slurm.time_left_s() is None


@pytest.mark.parametrize(
    "says, advice",
    [
        (
            "sbatch: error: Batch job submission failed: "
            "Unable to contact slurm controller (connect failure)",
            "SLURM does not answer: .*sinfo",
        ),
        (
            "sbatch: fatal: Could not establish a configuration source",
            "SLURM does not answer: .*Is this a machine of the cluster",
        ),
        (
            "sbatch: error: invalid partition specified: nope",
            "SLURM refuses the job: invalid partition specified: nope. See --partition",
        ),
    ],
)
def test_what_sbatch_says_comes_with_what_to_do(monkeypatch, tmp_path, says, advice):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match=f"^{advice}") as said:
        slurm.sbatch(["--test-only"], stdin="")
    assert "\n" not in str(said.value)


def test_cancel_does_not_take_silence_for_an_empty_queue(monkeypatch, tmp_path, capsys):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (
        array.cancel(tmp_path, "p") == 0 and "no array of p" in capsys.readouterr().out
    )  # none was ever submitted
    (tmp_path / ".server").mkdir()
    (tmp_path / ".server" / "arrays.jsonl").write_text('{"dataset": "p", "array": "7"}\n')
    with pytest.raises(
        UserError, match=r"SLURM does not answer: .*Unable to contact slurm controller.*sinfo"
    ):
        array.cancel(tmp_path, "p")


@pytest.mark.parametrize(
    "line", ['{"dataset": "p", "arr', "5", "null", "[]", "{}", '{"dataset": "p", "array": 7}']
)
def test_a_torn_record_of_the_arrays_is_one_line(tmp_path, line):
    (tmp_path / ".server").mkdir()
    (tmp_path / ".server" / "arrays.jsonl").write_text('{"dataset": "p", "array": "7"}\n' + line)
    with pytest.raises(UserError, match=r"arrays.jsonl: line 2 is torn"):
        array.cancel(tmp_path, "p")


def test_a_changed_prompts_file_is_found_before_submission(tmp_path):
    folder = tmp_path / "generated_images" / "p"
    folder.mkdir(parents=True)
    definition = {
        "name": "p",
        "prompts_sha256": "aaaa",
        "total": 3,
        "images_per_prompt": 2,
        "model": "tiny",
    }
    preflight.check_definition(tmp_path, definition)
    (folder / "dataset.yaml").write_text(
        "".join(f"{key}: {value}\n" for key, value in definition.items())
    )
    preflight.check_definition(tmp_path, definition | {"model": "big"})  # nothing is drawn yet
    (folder / "000000").mkdir()
    (folder / "000000" / "0_0.jpg").touch()
    preflight.check_definition(tmp_path, definition)
    with pytest.raises(UserError, match=r"the prompts file has changed: .*dataset.yaml.*--extend"):
        preflight.check_definition(tmp_path, definition | {"prompts_sha256": "bbbb"})
    with pytest.raises(
        UserError, match=r"^model is 'big', but this data set was begun with 'tiny'"
    ):
        preflight.check_definition(tmp_path, definition | {"model": "big"})
    preflight.check_definition(
        tmp_path, definition | {"total": 4, "prompts_sha256": "bbbb", "extend": True}
    )
    (folder / "dataset.yaml").write_text("[")
    with pytest.raises(
        UserError, match=r"dataset.yaml is damaged: .*; restore it from a backup, or move"
    ):
        preflight.check_definition(tmp_path, definition)


HOSTILE = ["a\n#SBATCH --exclusive", "a\rb", "\x1b[2J", "a\0b", "caf\udce9"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "option",
    ["partition", "account", "qos", "constraint", "exclude", "time", "gres", "mem", "sbatch_args"],
)
def test_nothing_a_user_names_adds_a_line(option, value):
    with pytest.raises(UserError, match=rf"^--{option}: .* an sbatch script cannot take it"):
        script_of("p.json", f"--{option}={value}")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_file_name_adds_no_line(tmp_path, monkeypatch, value):
    for words, name, root in (
        ([f"{value}.json"], "p", "/o"),
        (["p.json"], value, "/o"),
        (["p.json"], "p", f"/{value}"),
        (["p.json", "--output_root", value], "p", "/o"),
    ):
        with pytest.raises(UserError, match="an sbatch script cannot take it") as said:
            script_of(*words, dataset=name, root=root)
        assert "\n" not in str(said.value)
    monkeypatch.setenv("HF_HOME", value.replace("\0", "\n"))
    with pytest.raises(UserError, match=r"^HF_HOME: "):
        script_of("p.json")


@pytest.mark.parametrize("setup", ["module load 'cuda", "if true", "( echo", "}"])
def test_a_setup_that_is_no_shell_is_refused(setup):
    """In the script it would end every task before it has begun."""
    with pytest.raises(UserError, match=r"--setup .* is no valid shell: ") as said:
        preflight.check_setup(setup)
    assert "\n" not in str(said.value)
    preflight.check_setup("module load cuda\nulimit -n 4096; export A='b c'")


@pytest.mark.parametrize("form", ["", "=True", "=False", " no", " True"])
@pytest.mark.parametrize("name", ["use_slurm", "dry_run", "tail_log", "status", "cancel"])
def test_no_form_of_a_flag_of_the_submission_reaches_a_task(name, form):
    words = ["p.json", *f"--{name}{form}".split(), "--no-shuffle", f"--no-{name}", "--seed", "3"]
    assert sbatch.task_words(words) == ["p.json", "--no-shuffle", "--seed", "3"]
    assert sbatch.task_words(["--shuffle", "p.json"]) == ["--shuffle", "p.json"]


def test_a_data_set_keeps_the_order_it_was_begun_with(tmp_path):
    def seed(shuffle=None, shuffle_seed=None):
        return order_seed(argparse.Namespace(shuffle=shuffle, shuffle_seed=shuffle_seed), tmp_path)

    assert seed() == 42 and seed(shuffle=True) == 42 and seed(shuffle_seed=3) == 3
    assert seed(shuffle=False) is None
    begun = "name: p\ntotal: 3\nimages_per_prompt: 2\n"
    (tmp_path / "dataset.yaml").write_text(f"{begun}order_seed: null\n")
    assert seed() is None, "it was begun before shuffling was the default"
    assert seed(shuffle=True) == 42, "asked for: the comparison refuses it by name"
    (tmp_path / "dataset.yaml").write_text(f"{begun}order_seed: 7\n")
    assert seed() == 7 and seed(shuffle=False) is None
