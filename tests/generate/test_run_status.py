"""The terminal's status page and the estimate before a run."""

import argparse
import json
import os

import pytest

from common.command_line import UserError
from common.console import amount
from common.files import device_of
from generate.launch import disk_limits, estimate, status
from generate.launch.disk_limits import quota_rows

ERROR = {
    "reason": "gpu",
    "count": 5,
    "last_error": "CUDA error: unspecified launch failure\nsecond line",
    "host": "gpu03",
    "gpu": "GPU-1",
    "log": "4242_17.out",
    "time": "2026-11-22T19:01:00Z",
}
DATASET = {
    "name": "HPDv2",
    "total": 1000,
    "waiting": 500,
    "leased": 300,
    "done": 199,
    "set_aside": 1,
    "short": 2,
    "short_images": 9,
    "failed_images": 0,
    "sum_ok": True,
    "images": 39791,
    "images_expected": 200000,
    "images_per_prompt": 200,
    "images_per_hour": 36000.0,
    "eta_s": 16000.0,
    "given_back": {"expired": 3, "preempted": 12, "released": 0},
}
DOCUMENT = {
    "server": {
        "url": "http://node7:5000/",
        "hostname": "node7",
        "port": 5000,
        "ssh": "ssh -N -L 5000:node7:5000 <login host>",
        "epoch": 2,
        "uptime_s": 7200.0,
    },
    "weather": {"state": "fair", "headline": "36,000 images an hour", "what_to_do": []},
    "datasets": [DATASET, DATASET | {"name": "other", "short": 0, "sum_ok": False}],
    "workers": {"total": 12, "by_state": {"drawing": 10, "loading": 2}, "slow": 1, "rows": []},
    "quarantined": [
        {
            "host": "gpu03",
            "gpu": "GPU-1",
            "since": "2026-11-22T19:01:00Z",
            "probe_in_s": 540.0,
            "failures": 5,
            "last_errors": [],
            "log": "4242_17.out",
            "command": "python generate/image_server.py --release gpu03",
        }
    ],
    "set_aside": {
        "total": 1,
        "command": "python generate/image_server.py --retry_failed",
        "rows": [],
    },
    "errors": [ERROR],
    "llm": {
        "calls": 4000,
        "failures": 7,
        "prompt_tokens": 1200000,
        "completion_tokens": 1800000,
        "usd": 1.5,
        "reserved_usd": 0.1,
        "budget_usd": 10.0,
        "backends": [
            {"name": "groq", "state": "cooling", "because": "429: rate limit"},
            {"name": "ollama", "state": "healthy", "because": None},
            {"name": "spare", "state": "unused", "because": None},
        ],
    },
}


def test_the_status_says_what_happens_and_which_log_to_read():
    text = status.render(DOCUMENT, "HPDv2", "/data/out")
    for part in [
        "199 of 1,000 prompts done (19.9 %), 39,791 of 200,000 images, 36,000 an hour, 4 h left",
        "500 waiting + 300 leased + 199 done + 1 failed = 1,000",
        "released: 3 expired, 12 preempted\n",
        "2 prompts are incomplete: 9 images fewer than asked for",
        "12: 10 drawing, 2 loading the model; 1 slow",
        "quarantined: gpu03 (GPU-1), 5 failures in a row, next probe in 9 min",
        "gpu, 5 times",
        "unspecified launch failure; read /data/out/4242_17.out",
        "4,000 calls, 7 failed; 3,000,000 tokens; USD 1.50 of 10.00",
        "groq cooling: 429: rate limit",
        "ssh -N -L 5000:node7:5000",
    ]:
        assert part in text, part
    assert not [word for word in ("other", "second line", "spare") if word in text]
    assert "+ 1 failed IS NOT 1,000" in status.render(DOCUMENT)
    assert "has not seen this data set yet" in status.render(DOCUMENT, "new")


def test_after_an_extension_the_status_says_that_nothing_is_lost(tmp_path):
    folder = tmp_path / "generated_images" / "HPDv2"
    folder.mkdir(parents=True)
    (folder / "dataset.yaml").touch()
    assert "extended" not in status.render(DOCUMENT, "HPDv2", tmp_path)
    (folder / "dataset.2.yaml").touch()
    text = status.render(DOCUMENT, "HPDv2", tmp_path)
    assert "extended (dataset.2.yaml): a prompt counts again" in text and "it has 200; none" in text


def test_show_prints_no_secret_into_a_file_or_pipe(start, capsys, monkeypatch):
    """On a terminal it shows a link for one browser; the token itself is shown nowhere."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy must not stand between
    server = start()
    token = server.json["token"]
    assert status.show(server.root) == 0
    said = capsys.readouterr().out
    assert "epoch 1" in said and "?code=" not in said and token not in said
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert status.show(server.root, "HPDv2") == 0
    said = capsys.readouterr().out
    assert f"page       {server.json['url']}?code=" in said and token not in said
    assert "HPDv2: the server has not seen this data set yet" in said


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no job server was started for .*python generate/image_server.py"),
        ("{", "server.json cannot be read"),
        (
            '{"url": "http://127.0.0.1:9", "token": "t", "run_id": "r", "epoch": 1, '
            '"hostname": "n1"}',
            "the job server at http://127.0.0.1:9 on n1 does not answer: ",
        ),
    ],
)
def test_without_a_server_one_line_says_why(tmp_path, content, message):
    if content is not None:
        (tmp_path / ".server").mkdir()
        (tmp_path / ".server" / "server.json").write_text(content)
    with pytest.raises(UserError, match=message) as said:
        status.show(tmp_path)
    assert "\n" not in str(said.value)


DEFINITION = {
    "name": "HPDv2",
    "total": 1000,
    "images_per_prompt": 200,
    "height": 1024,
    "width": 1024,
    "num_inference_steps": 28,
    "model": "m",
    "augment_prompts": True,
}
ITEMS = [{"prompt": "a cat", "source": []}] * 900 + [
    {"prompt": "a dog", "source": [], "variations": ["x"] * 199}
] * 100


def estimated(root, document=None, budget_usd=0.0, num_chunks=None, **changes):
    args = argparse.Namespace(
        num_workers=10,
        num_chunks=num_chunks,
        use_slurm=True,
        mem="24g",
        llm=None,
        llm_backends=None,
        ollama_hosts=None,
        llm_budget_usd=budget_usd,
    )
    return "\n".join(
        estimate.estimate(args, DEFINITION | changes, ITEMS, root, status.Answer(document))
    )


def test_the_estimate_counts_what_is_left_to_draw(tmp_path):
    text = estimated(tmp_path)
    assert (
        "200,000 images: 1,000 prompts x 200" in text
        and "402,000 files, 84.2 GB (419 kB an image, assumed)" in text
    )
    assert "18,000 LLM calls" in text and "how long is not known yet" in text
    text = estimated(tmp_path, DOCUMENT)
    assert "160,209 images (39,791 more are there)" in text
    assert (
        "45 GPU hours at 3,600 images an hour (a worker of this run, now), 4 h with 10 workers"
        in text
    )
    assert "18,000 LLM calls, 5.4 + 8.1 million tokens (asked + answered, measured)" in text
    assert "measured), free of charge (paid backends are off)" in text
    assert "measured), USD 5.67 if paid backends took them all" in estimated(
        tmp_path, DOCUMENT, budget_usd=10.0
    )  # 5.4 x 0.15 + 8.1 x 0.60
    assert "took them all, capped at --llm_budget_usd 2" in estimated(
        tmp_path, DOCUMENT, budget_usd=2.0
    )
    assert "no LLM is asked" in estimated(tmp_path, augment_prompts=False)
    assert "note on" not in text and "note on the model: " in estimated(
        tmp_path, model="stabilityai/stable-diffusion-3.5-large"
    )


def test_the_estimate_counts_the_weights_of_a_folder_by_its_files(tmp_path):
    """More than a task's memory; FLUX's class, whose row of the table has other weights."""
    folder = tmp_path / "painter"
    part = folder / "transformer"
    part.mkdir(parents=True)
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (part / "config.json").write_text("{}")
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1000, 20_000_000]}}).encode()
    size = len(header).to_bytes(8, "little")
    (part / "diffusion_pytorch_model.safetensors").write_bytes(size + header)
    assert "37.3 GiB of weights" in estimated(tmp_path, model=str(folder))
    (part / "diffusion_pytorch_model.safetensors").unlink()
    assert "GiB of weights" not in estimated(tmp_path, model=str(folder)), "not known then"


def test_the_estimate_says_whether_tasks_are_spare(tmp_path):
    assert "no task is spare: if one fails, nobody takes its place; --num_chunks 12" in estimated(
        tmp_path
    )
    assert "40 tasks, 10 of them at a time: 30 are spare" in estimated(tmp_path, num_chunks=40)
    few = estimated(tmp_path, total=32, num_chunks=1000)
    assert "1,000 tasks for 32 prompts: most find nothing; --num_chunks 32" in few


def test_the_estimate_measures_where_it_can(tmp_path):
    (tmp_path / "generated_images" / "HPDv2" / "000000").mkdir(parents=True)
    (tmp_path / "generated_images" / "HPDv2" / "000000" / "1_0.jpg").write_bytes(b"x" * 300_000)
    (tmp_path / ".server").mkdir()
    row = {
        "model": "m",
        "height": 1024,
        "width": 1024,
        "num_inference_steps": 28,
        "images_per_hour": 500.0,
        "gpu_name": "A100",
    }
    (tmp_path / ".server" / "measured.jsonl").write_text(
        "".join(
            json.dumps(r) + "\n" for r in (row, row | {"model": "other", "images_per_hour": 1.0})
        )
    )
    text = estimated(tmp_path)
    assert (
        "(300 kB an image, measured)" in text
        and "400 GPU hours at 500 images an hour (--preview on A100, without LLMs and disk)" in text
    )
    (tmp_path / "generated_images" / "HPDv2" / "dataset.yaml").write_text(
        "total: 1\nimages_per_prompt: 1\nheight: 64\n"
    )
    assert "(419 kB an image, assumed)" in estimated(tmp_path), "those images are of 64 pixels"


def test_a_quota_is_read_and_too_little_is_said(tmp_path, monkeypatch):
    device = device_of(tmp_path)
    (tmp_path / "bin").mkdir()
    fake_quota = tmp_path / "bin" / "quota"
    fake_quota.write_text(
        "#!/bin/sh\necho 'Disk quotas for user me (uid 1000):'\n"
        "echo '     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace'\n"
        f"echo '{device} 1000000 0 2000000 0 5000 300000 400000 0'\n"
    )
    fake_quota.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert f"TOO LITTLE: the quota of {device} leaves 1.02 GB and 295,000 files" in estimated(
        tmp_path
    )


@pytest.mark.parametrize("workers, fits", [(100, True), (300, False)])
def test_too_few_files_may_be_enough_with_packing(tmp_path, monkeypatch, workers, fits):
    """40 million files on a quota of a million: 100 folders of 2,000, 8 prompts a worker, tars."""
    monkeypatch.setattr(estimate, "disk_limits", lambda _: [("the quota", 1e15, 1_000_000)])
    definition = {"total": 100_000, "images_per_prompt": 200, "height": 512, "width": 512}
    args = argparse.Namespace(num_workers=workers)
    text = "\n".join(estimate._disk(args, definition | {"name": "d"}, tmp_path, 20_000_000))
    assert ("fits with packing, some 542,000 files" in text) == fits
    assert ("TOO LITTLE: the quota" in text) == (not fits)


def test_a_quota_command_that_hangs_holds_up_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "quota").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(disk_limits, "QUOTA_S", 0.2)
    assert (
        "the file system leaves" in estimated(tmp_path)
        and "no quota is known: quota: TimeoutExpired" in capsys.readouterr().err
    )


def test_what_is_not_limited_is_not_said(tmp_path, monkeypatch):
    """btrfs counts no files; a quota may limit files alone, or nothing."""
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda path: argparse.Namespace(f_bavail=10, f_frsize=10**9, f_files=0, f_favail=0),
    )
    assert "the file system leaves 10 GB\n" in estimated(tmp_path)
    for row, says in (
        ((None, 5), "leaves 5 files\n"),
        ((7e9, None), "leaves 7 GB\n"),
        ((None, None), None),
    ):
        monkeypatch.setattr(
            estimate, "disk_limits", lambda root, row=row: [("the quota of disk", *row)]
        )
        text = estimated(tmp_path)
        assert says in text if says else "quota" not in text


def test_quota_rows_of_lustre():
    assert quota_rows("     /lustre 5000* 4000 6000 6d23h 10 0 0 -\n") == [("/lustre", 0, None)]
    assert quota_rows("lfs: no quota\n") == []


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (84.2e9, "84.2 GB"),
        (8.26e12, "8.26 TB"),
        (5e16, "50 PB"),
    ],
)
def test_amounts(value, text):
    assert amount(value) == text
