"""What slurm.py asks of a real SLURM, with a payload that only says what it sees."""

import time
from pathlib import Path

import pytest

from common import slurm
from common.command_line import Options, UserError
from generate.launch import array as arrays
from generate.launch import sbatch as slurm_script
from generate.launch import submit as launch
from generate.launch.options import add_look_options, add_slurm_options

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = """
import os, signal, sys, time
sys.path.insert(0, {generate!r})
from common import slurm
if sys.argv[0].endswith("image_server.py"):
    print("serving", flush=True); time.sleep(600)
signal.signal(signal.SIGUSR1, lambda *_: print("USR1", flush=True))
left = slurm.time_left_s()
cuda = os.environ.get("CUDA_VISIBLE_DEVICES")
said = os.environ.get("FROM_SETUP")
who = [slurm.task_name(), slurm.identity()["restart"]]
print("run", *who, "left", left, "CUDA", cuda, "setup", said, *sys.argv[1:], flush=True)
if "--requeue_me" in sys.argv and not slurm.identity()["restart"]:
    slurm.requeue_self("the test wants it")
while not os.path.exists(sys.argv[0] + ".go"):
    time.sleep(0.1)
"""


@pytest.fixture
def site(cluster, tmp_path, monkeypatch):
    """A payload in the place of generate_images.py and image_server.py, on the cluster."""
    for name in ("generate_images.py", "image_server.py"):
        (tmp_path / name).write_text(PAYLOAD.format(generate=str(ROOT)))
    monkeypatch.setattr(slurm_script, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate_images.py", "p.json"])
    monkeypatch.chdir(tmp_path)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(
        "CUDA_VISIBLE_DEVICES", "7"
    )  # of the submitting shell: means nothing on a node
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")  # of an interactive job: would contradict --mem
    return tmp_path


def options(*words):
    parser = Options("generate_images")
    parser.add_argument("data_path")
    parser.add_argument("--pipeline", default="fake")
    parser.add_argument("--quantize")
    parser.add_argument("--expected_samples_per_index", type=int, default=1)
    add_slurm_options(parser)
    add_look_options(parser)
    return parser.parse_args(["p.json", *words])


def submit(root, *words, payload_words=(), name="p"):
    definition = {
        "name": name,
        "total": 10,
        "images_per_prompt": 1,
        "height": 64,
        "width": 64,
        "augment_prompts": False,
        "model": "tiny",
    }
    return launch.submit(
        options("--use_slurm", *words),
        definition,
        root,
        ["a cat"] * 10,
        ["p.json", *words, *payload_words],
    )


def test_submission_waits_for_the_server_and_is_split(site, cluster, capsys, monkeypatch):
    root, asked, sbatch = site / "o%ut", [], slurm.sbatch
    monkeypatch.setattr(
        slurm, "sbatch", lambda words, stdin=None: (asked.append(words), sbatch(words, stdin))[1]
    )
    fetched = []
    monkeypatch.setattr(launch, "fetch_model", lambda *_: fetched.append(len(asked)))
    assert submit(root, "--num_workers=5", "--num_chunks=1000", "--start_server") == 0
    assert fetched == [2], "the model is there before the array begins"
    first, second = arrays.live(root, "p")
    said = capsys.readouterr().out
    assert (
        0
        < said.index("estimate   10 images: 10 prompts x 1")
        < said.index(f"array {first} submitted: tasks 0-499%2")
    )
    assert f"--dependency=afterany:{first}:{second}" in said  # how conversion waits for both halves
    (server,) = cluster.run("squeue", "-h", "--me", "--name=image_server", "-o", "%A").split()
    assert len(asked) == 4 and all(
        f"--dependency=after:{server}" in words for words in asked[2:]
    )  # after --test-only and the server
    (kept,) = (root / ".server").glob("generate_parallel_p-*.sbatch")
    assert kept == asked[2][-1] and "--is_slurm_task" in kept.read_text()
    assert (root / ".server").stat().st_mode & 0o777 == 0o700
    cluster.wait(
        lambda: (
            len([j for j in cluster.jobs(array=first).values() if j["state"] == "RUNNING"]) == 2
        ),
        what="first array's share of 5",
    )
    tasks = cluster.jobs(array=first), cluster.jobs(array=second)
    assert [len(t) for t in tasks] == [500, 500]
    # four GPUs: the shares are 2 and 3, and the second array takes what the first leaves
    cluster.wait(
        lambda: (
            len([j for j in cluster.jobs(array=second).values() if j["state"] == "RUNNING"]) == 2
        ),
        what="second array",
    )
    text = cluster.wait(lambda: (root / f"{first}_0.out").read_text(), what="the log")
    assert (
        f"run {first}_0 0 left" in text
        and "CUDA 0" in text
        and "--is_slurm_task" in text
        and "--start_server" in text  # so that a task starts the server again
    )
    assert 21000 < float(text.split("left ")[1].split()[0]) <= 21600
    assert "serving" in cluster.wait(
        lambda: (root / "image_server.out").read_text(), what="the server's log"
    )
    # the same command again changes the throttle, and submits nothing
    capsys.readouterr()
    assert submit(root, "--num_workers=3", "--num_chunks=1000", "--start_server") == 0
    assert (
        f"already submitted as array {first}, {second}: at most 3 tasks" in capsys.readouterr().out
    )
    shown = cluster.run("scontrol", "show", "job", first) + cluster.run(
        "scontrol", "show", "job", second
    )
    assert (
        "ArrayTaskThrottle=1 " in shown
        and "ArrayTaskThrottle=2 " in shown
        and "ArrayTaskThrottle=3 " not in shown
    )
    assert arrays.cancel(root, "p") == 0
    cluster.wait(lambda: len(cluster.jobs()) == 1, what="only the server's job")
    assert arrays.live(root, "p") == []
    assert arrays.cancel(root, "p") == 0


def test_a_pending_server_is_waited_for(site, cluster, capsys):
    root = site / "out"
    server = cluster.run(
        "sbatch",
        "--parsable",
        "--hold",
        "--partition=general",
        "--job-name=image_server",
        f"--output={root}/image_server.out",
        "--wrap=sleep 600",
    )
    assert submit(root, "--num_workers=2") == 0
    [array] = arrays.live(root, "p")
    time.sleep(1)
    assert {j["state"] for j in cluster.jobs(array=array).values()} == {"PENDING"}
    assert f"Dependency=after:{server}" in cluster.run("scontrol", "show", "job", array)
    cluster.run("scontrol", "release", server)
    cluster.wait(
        lambda: {j["state"] for j in cluster.jobs(array=array).values()} == {"RUNNING"},
        what="the array",
    )


@pytest.mark.parametrize(
    "name", ["cats, dogs 50% 'off'", 'a "b" $(touch owned) `touch owned` # c', "é\\n; touch owned"]
)
def test_a_data_set_with_any_name_is_found_again(site, cluster, capsys, name):
    root = site / "out"
    cluster.run(
        "sbatch",
        "--partition=general",
        "--job-name=image_server",
        "--output=/dev/null",
        "--wrap=sleep 600",
    )
    assert submit(root, "--num_workers=1", "--num_chunks=2", name=name) == 0
    [array] = arrays.live(root, name)
    assert submit(root, "--num_workers=2", "--num_chunks=2", name=name) == 0
    assert f"already submitted as array {array}: at most 2 tasks" in capsys.readouterr().out
    assert arrays.cancel(root, name) == 0
    cluster.wait(lambda: not cluster.jobs(array=array), what="the end of the array")
    assert not list(site.rglob("owned"))


def test_what_would_fail_in_every_task_fails_here(site, cluster, tmp_path):
    (site / "a_file").write_text("")
    for words, root, message in [
        (["--partition=nope"], "out", "SLURM refuses the job: invalid partition specified: nope"),
        (
            ["--gres=gpu:9"],
            "out",
            "SLURM refuses the job: Requested node configuration is not available",
        ),
        (["--exclude=n77"], "out", "SLURM refuses the job: Invalid node name"),
        (["--sbatch_args=--nonsense"], "out", "SLURM refuses the job: .*nonsense"),
        ([], "a_file/out", "cannot write to the output root .*a_file/out"),
        ([], "out", "no job server was started for .*out: .*--start_server"),
    ]:
        with pytest.raises(UserError, match=message) as said:
            submit(site / root, *words)
        assert "\n" not in str(said.value)
    assert cluster.jobs() == {}


def test_a_time_that_the_partition_does_not_allow(site, cluster):
    """SLURM would take the array, and let it wait for ever (PartitionTimeLimit)."""
    cluster.run("scontrol", "update", "PartitionName=all", "MaxTime=60")
    for words in ([], ["--time=61"], ["--time=UNLIMITED"], ["--partition=all", "--time=1-0"]):
        with pytest.raises(
            UserError,
            match=r"--time .* is more than partition all allows .60 minutes.: no task would start",
        ):
            submit(site / "out", *words)
    with pytest.raises(UserError, match="no job server was started"):
        submit(site / "out", "--time=1:00:00")
    with pytest.raises(UserError, match="no job server was started"):
        submit(site / "out", "--partition=all,high")  # the other one has no limit


def test_dry_run_submits_and_writes_nothing(site, cluster, capsys):
    assert submit(site / "out", "--num_workers=4", "--num_chunks=1000", "--dry_run") == 0
    said = capsys.readouterr().out
    assert (
        "#SBATCH --array=0-499%2" in said
        and "once more with --array=0-499%2" in said
        and "--dry_run" not in said
    )
    assert cluster.jobs() == {} and not (site / "out").exists()


def test_a_task_requeues_itself_alone_and_appends_to_its_log(site, cluster):
    root = site / "out"
    cluster.run(
        "sbatch",
        "--partition=general",
        "--job-name=image_server",
        "--output=/dev/null",
        "--wrap=sleep 600",
    )
    words = [
        "--num_workers=2",
        "--num_chunks=2",
        "--sbatch_args=--comment=x",
        "--setup=export FROM_SETUP=yes; true",
    ]
    submit(root, *words, payload_words=["--requeue_me"])
    [array] = arrays.live(root, "p")
    for task in (0, 1):  # one of the two has the array's own number as its job id
        log = root / f"{array}_{task}.out"
        text = cluster.wait(
            lambda log=log: log.exists() and log.read_text().count("run ") == 2 and log.read_text(),
            what=f"the second run of {task}",
        )
        assert "CUDA 0 setup yes" in text and "Comment=x" in cluster.run(
            "scontrol", "show", "job", array
        )
        assert (
            f"run {array}_{task} 0 " in text and f"run {array}_{task} 1 " in text
        )  # exactly once each
    states = {key: state for key, state in slurm.queue().items() if key[1] == 1}
    assert set(states.values()) == {"RUNNING"} and len(states) == 2


def test_pending_tasks_keep_off_a_node(site, cluster):
    root = site / "out"
    cluster.run(
        "sbatch",
        "--partition=general",
        "--job-name=image_server",
        "--output=/dev/null",
        "--wrap=sleep 600",
    )
    submit(root, "--num_workers=2", "--num_chunks=6", "--exclude=n3")
    [array] = arrays.live(root, "p")

    def running():
        tasks = cluster.jobs(array=array).values()
        return {task["node"] for task in tasks if task["state"] == "RUNNING"}

    cluster.wait(lambda: len(running()) == 2, what="two tasks")
    assert [slurm.exclude_node(array, node) for node in ("n1", "n0", "n3")] == [
        "done",
        "done",
        "there",
    ]
    assert "ExcNodeList=n0,n1,n3" in cluster.run("scontrol", "show", "job", array)
    assert [slurm.exclude_node(array, "n0", exclude=False) for _ in range(2)] == ["done", "there"]
    assert "ExcNodeList=n1,n3" in cluster.run(
        "scontrol", "show", "job", array
    )  # the user's own n3 stays
    (site / "generate_images.py.go").write_text("")
    cluster.wait(lambda: not cluster.jobs(array=array), what="the end")
    assert slurm.exclude_node(array, "n1") == ""  # nothing waits any more
