"""--keep_rejected: images that are not accepted lie beside the data set, and nothing takes them."""

import contextlib
import errno
import random
from types import SimpleNamespace

import pytest

from common.expression import parse
from generate.client.rejected import Rejected
from generate.dataset import disk
from generate.dataset.rejected_images import RejectedImages
from generate.dataset.samples import read_comment
from tests.fakes.running_server import until
from tests.generate.test_accept import ACCEPT, LUCK, check_scores, killed_after
from tests.postprocess_dataset.conftest import called

KEEP = [*ACCEPT, "--keep_rejected", 1000]


def kept(run):
    """{(prompt, caption, seed): what its JPEG says} of the rejected images; each is whole."""
    found = {}
    for path in (run.root / "rejected_images" / "birds").glob("*/*/*"):
        assert path.name.endswith(".jpg"), "no temporary file, no JSON"
        says = read_comment(path.read_bytes())
        attempt = path.stem.partition(".try")[2]
        assert path.name == f"{says['prompt_index']}_{says['augmentation_idx']}.try{attempt}.jpg"
        assert path.parent.name == str(says["prompt_index"])
        assert says["accepted"] is False and not parse(says["accept"]).holds(says["scores"])
        found[says["prompt_index"], says["augmentation_idx"], says["seed"]] = says
    return found


def rejected(records):
    """The same keys, by the JSONs of what was accepted."""
    return {
        (record["prompt_index"], record["augmentation_idx"], each["seed"])
        for record in records
        for each in record["rejected"]
    }


def test_all_that_is_rejected_is_kept_beside_the_data_set(start_run, tmp_path):
    run, server = start_run(total=4, images=4, options=KEEP, FAKE_LOG="drawn")
    assert run.start().wait(60) == 0, run.log()
    run.check()
    records = check_scores(run)
    assert kept(run).keys() == rejected(records) != set()
    one = next(iter(kept(run).values()))
    assert one["accept"] == "luck > 0" and one["augmented_prompt"]
    assert server.dataset("birds")["images"] == 16
    assert len(list((run.root / "generated_images").rglob("*.json"))) == 16
    table = called("convert_json_to_parquet", [run.data, tmp_path / "t.parquet"])
    assert table.status == 0 and "16" in table.out
    alone = called(
        "convert_json_to_parquet", [run.root / "rejected_images" / "birds", tmp_path / "r.parquet"]
    )
    assert alone.status != 0 or "0 " in alone.out, "they have no JSON: no table of them by mistake"


def test_what_others_put_in_the_place_of_its_folders_is_left_alone(start_run, tmp_path):
    """A link led elsewhere, where each *.tmp was removed; a file halted the run as a full disk."""
    never = ["--scores", LUCK, "--accept", "luck > 1000", "--max_tries", 2, "--keep_rejected", 9]
    run, _ = start_run(total=3, images=2, options=never)
    place = run.root / "rejected_images" / "birds" / "000000"
    place.mkdir(parents=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.tmp").touch()
    (place / "0").symlink_to(tmp_path / "thesis")
    (place / "1").touch()
    (place / "2").mkdir()
    (place / "2" / "notes.tmp").touch()
    assert run.start().wait(60) == 0, run.log()
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["draft.tmp"]
    assert (place / "2" / "notes.tmp").exists(), "only its own temporary files go"
    assert len(list((place / "2").glob("*.jpg"))) == 4
    said = [line for line in run.log().splitlines() if "rejected images are not kept: " in line]
    assert len(said) == 2 and any("0 is no folder" in line for line in said), said


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EIO])
def test_a_folder_of_another_user_is_no_failed_disk(tmp_path, monkeypatch, caplog, code):
    """A colleague's --keep_rejected makes folders that only he may write."""

    def keep(self, *args):
        raise OSError(code, "no", "3_0.try0.jpg")

    monkeypatch.setattr(RejectedImages, "keep", keep)
    judge = SimpleNamespace(keep=2, facts=dict)
    rejected = Rejected(SimpleNamespace(dataset_dir=tmp_path, judge=judge))
    sample = SimpleNamespace(attempt=0, index=SimpleNamespace(lease="1-1"))
    candidate = SimpleNamespace(jpeg=b"", metadata={}, sample=sample)
    for _ in range(2):
        with pytest.raises(OSError) if code in disk.PASSING else contextlib.nullcontext():
            rejected.keep(candidate, {})
    assert caplog.text.count("3_0.try0.jpg: no;") == (code not in disk.PASSING)


def test_the_number_bounds_those_of_a_prompt(start_run):
    options = ["--scores", LUCK, "--accept", "luck > 1000", "--max_tries", 3, "--keep_rejected", 4]
    run, _ = start_run(total=3, images=2, options=options)
    assert run.start().wait(60) == 0, run.log()
    prompts = [prompt for prompt, _, _ in kept(run)]
    assert sorted(prompts) == [0] * 4 + [1] * 4 + [2] * 4


def test_clients_killed_at_any_instant_lose_none(start_run):
    run, _ = start_run(
        total=6, images=4, options=KEEP, ttl_s=1, FAKE_LOG="drawn", FAKE_BATCH_S="0.1"
    )
    chance = random.Random(5)
    for number in range(3):
        killed_after(run, 6, chance.uniform(0, 0.2))
        (run.folder / "drawn").rename(run.folder / f"drawn.{number}")
    assert run.start().wait(90) == 0, run.log()
    run.check()
    assert kept(run).keys() == rejected(check_scores(run))


NO_ROOM = """
import errno, os
made = os.mkdir
def mkdir(name, *given, **options):
    if name == "rejected_images" and os.path.exists({full!r}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    made(name, *given, **options)
os.mkdir = mkdir
"""


def test_no_seed_is_noted_before_its_image_is_kept(start_run, tmp_path):
    """A disk that takes no rejected image costs no image, and none of them is passed over."""
    full = tmp_path / "full"
    full.touch()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_ROOM.format(full=str(full)))
    environment = {"FAKE_LOG": "drawn", "PYTHONPATH": str(tmp_path / "site")}
    run, _ = start_run(total=3, images=4, options=KEEP, **environment)
    client = run.start()
    until(lambda: "everything is released" in run.log(), run.log)
    full.unlink()
    assert client.wait(90) == 0, run.log()
    run.check()
    assert kept(run).keys() == rejected(check_scores(run)) != set()


def test_what_another_holder_left_half_done_is_cleared(start_run):
    run, _ = start_run(total=1, images=8, options=KEEP)
    folder = run.root / "rejected_images" / "birds" / "000000" / "0"
    folder.mkdir(parents=True)
    (folder / ".0_3.try0.jpg.1-77.tmp").write_bytes(b"half")
    assert run.start().wait(60) == 0, run.log()
    assert kept(run).keys() == rejected(check_scores(run)) != set()
