"""Bad texts, bad devices, full disks and extensions: over the real client, server and files."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from generate.client.job_client import JobClient
from generate.client.worker import WorkerIdentity
from generate.dataset.layout import path_of
from generate.launch import redo
from tests.fakes import running_client
from tests.fakes.running_server import until


def test_a_text_that_gives_nan(start_run):
    """Generated twice with different seeds, with strikes on the server until it fails for good.

    Only that sample is lost, and its reason is on disk.
    """
    run, server = start_run(
        total=4, images=4, FAKE_NAN="number 2, view 1", FAKE_LOG="drawn", server=["--max_marks", 2]
    )
    ended = run.start().wait(60)
    assert ended == 3, run.log()
    run.check(given_up={"2_2"})
    assert (
        json.loads((run.data / "000000" / "2_2.failed").read_text())["error"]
        == "NaN or infinite pixels"
    )
    assert server.dataset("birds")["set_aside"] == 1
    lines = [line.split("\t")[1:] for line in (run.folder / "drawn").read_text().splitlines()]
    assert len({seed for seed, text in lines if "number 2, view 1" in text}) == 2, (
        "again once, with the next seed"
    )


def test_a_bad_device_waits_for_its_probe_and_is_used_again(start_run):
    """Every image NaN: nothing fails for good and nothing is published.

    Quarantined, it sleeps; healed, it generates everything.
    """
    faults = {"FAKE_NAN": "bird number", "FAKE_BAD_HOSTS": "bad", "SLURMD_NODENAME": "n1"}
    run, server = start_run(
        total=6, images=3, server=["--max_failures", 2, "--probe_s", 2], **faults
    )
    (run.folder / "bad").write_text("n1")
    good = run.start(
        "--max_leases", 1, SLURMD_NODENAME="n2"
    )  # others succeed: then it is the device
    bad = run.start()
    until(lambda: "failed (image)" in run.log(), f"a failure\n{run.log()}")
    assert good.wait(60) == 0
    until(lambda: run.log().count("failed (image)") >= 4, f"more failures\n{run.log()}")
    assert bad.poll() is None, "it does not exit into the arms of the next array task"
    (run.folder / "bad").write_text("")
    assert bad.wait(100) == 0, run.log()
    run.check()
    assert server.dataset("birds")["set_aside"] == 0


def test_a_cuda_error_is_answered_by_a_fresh_process(start_run):
    run, server = start_run(
        total=6, images=3, FAKE_CUDA_ERROR="bird number", FAKE_BAD_HOSTS="bad", SLURMD_NODENAME="n1"
    )
    (run.folder / "bad").write_text("n1")
    client = run.start()
    until(lambda: "starting again" in run.log(), f"the error\n{run.log()}")
    (run.folder / "bad").write_text("")
    assert client.wait(100) == 0, run.log()
    run.check()
    assert (
        re.search(r"failed \(gpu\): RuntimeError: CUDA error", run.log())
        and server.dataset("birds")["set_aside"] == 0
    )


def test_a_device_that_cannot_draw_the_warm_up_batch_takes_no_lease(start_run):
    run, server = start_run(
        total=4, images=2, FAKE_BLACK=".", FAKE_BAD_HOSTS="bad", SLURMD_NODENAME="n1"
    )
    (run.folder / "bad").write_text("n1")
    client = run.start()
    until(
        lambda: "does not work: the warm-up batch gave a black image; starting again" in run.log(),
        run.log,
    )
    assert not server.dataset("birds") or server.dataset("birds")["leased"] == 0
    (run.folder / "bad").write_text("")
    assert client.wait(60) == 0, run.log()
    run.check()


def test_a_batch_that_does_not_fit(start_run):
    run, _server = start_run(total=4, images=3, FAKE_MAX_BATCH="3")
    assert run.start().wait(60) == 0, run.log()
    run.check()
    assert "2 images at a time" in run.log()
    assert {json.loads(path.read_text())["batch_size"] for path in run.data.glob("*/*.json")} == {2}
    assert "2 images a batch" in run.log() or run.start().wait(30) == 0


def test_what_is_missing_on_disk_is_drawn_again(start_run):
    """A JPEG, a JSON and a whole prompt deleted by hand: the next run brings back exactly these."""
    run, server = start_run(total=4, images=3)
    assert run.start().wait(60) == 0
    before = run.snapshot()
    names = [
        "0_1.jpg",
        "1_2.json",
        *(f"3_{aug}.{suffix}" for aug in range(3) for suffix in ("jpg", "json")),
    ]
    for name in names:
        (run.data / "000000" / name).unlink()
    server.stop()
    server.start()
    assert run.start().wait(60) == 0, run.log()
    run.check()
    after = run.snapshot()
    assert {str(name) for name in after if after[name] != before.get(name)} == {
        f"000000/{name}" for name in [*names, "0_1.json"]
    }
    assert json.loads((run.data / "000000" / "1_2.json").read_text())["hostname"] is None, (
        "its JSON was made from the image"
    )


def test_extend(start_run):
    """More images a prompt and appended prompts: exactly the missing is generated.

    Captions and images that were there stay; without --extend it is refused.
    """
    run, _server = start_run(total=4, images=3)
    assert run.start().wait(60) == 0
    before = run.snapshot()
    run.images = 5
    refused = run.run()
    assert (
        refused.returncode == 1
        and "images_per_prompt" in refused.stderr
        and refused.stderr.count("\n") == 1
    )
    run.write_prompts(6)
    assert run.start("--extend").wait(60) == 0, run.log()
    run.check()
    after = run.snapshot()
    assert all(after[name] == data for name, data in before.items()) and len(after) > len(before)
    assert (run.data / "000000" / "0.prompts2").exists() and (run.data / "dataset.2.yaml").exists()


def test_redo(start_run):
    """Identical pixels on the same stack; a difference is shown; nothing is replaced."""
    run, _server = start_run(total=2, images=3)
    assert run.start().wait(60) == 0
    before = run.snapshot()
    same = run.run("--redo", "1_2", task=False)
    assert same.returncode == 0 and same.stdout.strip() == "1_2: identical", (
        same.stdout + same.stderr
    )
    assert run.run("--redo", "1", task=False).stdout.split() == [
        "1_0:",
        "identical",
        "1_1:",
        "identical",
        "1_2:",
        "identical",
    ]
    path = run.data / "000000" / "0_1.json"
    path.write_text(path.read_text().replace('"seed": ', '"seed": 1'))
    other = run.run("--redo", "0_1", task=False)
    assert other.returncode == 1 and "of the pixels differ" in other.stdout
    assert {n: d for n, d in run.snapshot().items() if n.name != "0_1.json"} == {
        n: d for n, d in before.items() if n.name != "0_1.json"
    }
    for wrong, says in (
        ("7", "no 000000/7_*.json"),
        ("x_1", "expected an index"),
        ("²", "expected an index"),
    ):
        assert says in run.run("--redo", wrong, task=False).stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", None),
        ("width", 10**9),
        ("num_inference_steps", "x"),
        ("batch_size", 0),
        ("seed", "x"),
        ("dtype", 5),
        ("augmented_prompt", None),
        ("negative_prompt", [1]),
        ("lora", 5),
        ("quantize_args", "[1]"),
        ("quantize_args", 5),
        ("seed", -(10**23)),
    ],
)
def test_a_sample_that_does_not_say_how_it_was_drawn(tmp_path, field, value):
    path = tmp_path / "0_0.json"
    good = dict.fromkeys(redo.BOUNDS, 1) | {"guidance_scale": None, "dtype": "float32"}
    good |= {"model_name": "tiny", "augmented_prompt": "a cat"}
    path.write_text(json.dumps(good))
    assert redo.read_record(path) == good
    path.write_text(json.dumps(good | {field: value}))
    with pytest.raises(ValueError, match=f"its {field} is"):
        redo.read_record(path)


def test_redo_names_a_broken_sample_and_goes_on(start_run):
    run, _server = start_run(total=1, images=4)
    assert run.start().wait(60) == 0
    path = run.data / "000000" / "0_0.json"
    record = json.loads(path.read_text())
    del record["height"]
    path.write_text(json.dumps(record))
    (run.data / "000000/0_1.jpg").write_bytes(b"no JPEG")
    ended = run.run("--redo", "0", task=False)
    assert ended.returncode == 3 and "its height is None" in ended.stderr
    assert "0_1.json: cannot be drawn again: its image cannot be decoded" in ended.stderr
    assert ended.stdout.splitlines() == ["0_2: identical", "0_3: identical"]
    Image.new("RGB", (24, 16)).save(run.data / "000000/0_2.jpg")
    ended = run.run("--redo", "0_2", task=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert re.fullmatch(r"0_2: is 24 x 16 pixels, drawn again \d+ x \d+", ended.stdout.strip())


def test_preview_touches_nothing(tmp_path):
    run = running_client.Run(tmp_path, total=4, images=4)
    shown = run.run("--preview", 3, task=False)
    assert shown.returncode == 0 and "12 images, all of them would count" in shown.stdout, (
        shown.stdout + shown.stderr
    )
    assert re.search(r"[\d,]+ images an hour on the .*, in batches of \d+; a run is", shown.stdout)
    assert re.match(r"loading \S+, then drawing 3 prompts\n", shown.stdout), shown.stdout
    sheet = Image.open(tmp_path / "preview_birds.jpg")
    assert sheet.size[0] > 4 * 256 and sheet.size[1] > 3 * 256
    assert (
        not run.data.exists()
        and json.loads((run.root / ".server" / "measured.jsonl").read_text())["images_per_hour"] > 0
    )
    (tmp_path / "preview_birds.jpg").unlink()
    (tmp_path / "preview_birds.jpg").symlink_to(tmp_path / "precious")
    refused = run.run("--preview", 1, task=False)
    assert refused.returncode == 1 and "preview_birds.jpg" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "precious").exists()


def test_an_image_left_without_json_is_rolled_forward(start_run, tmp_path):
    """A client died between the two links: the next one makes the JSON from the image.

    It removes the temporary files, too.
    """
    run, server = start_run(total=2, images=2)
    assert run.start().wait(60) == 0
    path_of(run.data, 0, 1, ".json").unlink()
    (run.data / "000000" / ".1_1.jpg.9-9.tmp").write_bytes(b"half an image")
    path_of(run.data, 1, 1, ".json").unlink()
    path_of(run.data, 1, 1, ".jpg").unlink()
    server.stop()
    server.start()
    jpeg = path_of(run.data, 0, 1, ".jpg").read_bytes()
    assert run.start().wait(60) == 0
    run.check()
    assert path_of(run.data, 0, 1, ".jpg").read_bytes() == jpeg


HEAVY_MODULES = """
import atexit, json, runpy, sys
script = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path[0] = script.rpartition("/")[0]
heavy = ("torch", "diffusers", "transformers", "numpy", "PIL")
atexit.register(lambda: print(json.dumps([name for name in heavy if name in sys.modules])))
runpy.run_path(script, run_name="__main__")
"""


def test_no_heavy_import_before_work_is_known(start_run):
    """The client of a real model finds a finished set, and leaves without torch or numpy."""
    run, _server = start_run(total=1, images=1)
    definition = {"name": "x", "total": 1, "images_per_prompt": 1}
    assert JobClient(run.root, definition, WorkerIdentity("h")).check()["epoch"] == 1
    assert run.start().wait(60) == 0
    for task in (True, False):
        _python, _, *words = run.command(task=task)
        shown = subprocess.run(
            [sys.executable, "-c", HEAVY_MODULES, *words],
            capture_output=True,
            text=True,
            env=running_client.ENVIRONMENT,
        )
        assert (
            "all indices are done" in shown.stdout
            and json.loads(shown.stdout.splitlines()[-1]) == []
        ), shown.stdout + shown.stderr
