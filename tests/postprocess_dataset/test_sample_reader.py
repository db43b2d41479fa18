"""iterate(): the samples of any folder or tar, each once, its image read when asked for."""

import json
import os
import tarfile

import pytest

from common.sample_reader import iterate
from postprocess_dataset.packing.pack_folder import Packing


def test_a_data_set_folder_is_read_in_order(folder):
    data = folder().fill([2, 10, 1005], 2)
    texts = [{"text": "a", "llm_model_name": None, "backend": None}]
    (data.path / "000000/10.prompts").write_text(json.dumps({"texts": texts}))
    (data.path / "000000/10.prompts2").write_text(json.dumps({"texts": texts * 2}))
    (data.path / "000000/.10_1.jpg.3-1.tmp").write_bytes(b"half")
    (data.path / "000000/10_7.failed").write_text("{}")
    found = list(iterate(data.path))
    assert [sample.key for sample in found] == [
        "000000/2_0",
        "000000/2_1",
        "000000/10_0",
        "000000/10_1",
        "000001/1005_0",
        "000001/1005_1",
    ]
    sample = found[3]
    assert sample.jpeg() == (data.path / "000000/10_1.jpg").read_bytes()
    assert sample.metadata == json.loads((data.path / "000000/10_1.json").read_bytes())
    assert sample.caption == "a café, no. 10, take “1”"
    assert sample.original_prompt == "a café, no. 10"
    assert sample.texts() == texts * 2 and found[0].texts() == []
    assert [s.key for s in iterate(data.path / "000001")] == ["1005_0", "1005_1"]


def test_published_flat_folders_and_tars_are_read(folder, to_parquet, to_tars, tmp_path):
    data = folder(published=True).fill([3, 7], 2)
    assert [sample.key for sample in iterate(data.path)] == ["3_0", "3_1", "7_0", "7_1"]
    loose = {sample.key: sample.jpeg() for sample in iterate(data.path)}
    to_parquet(data.path, tmp_path / "t.parquet")
    to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    found = list(iterate(tmp_path / "tars"))
    assert {sample.key: sample.jpeg() for sample in found} == {
        f"HPDv2/{key}": image for key, image in loose.items()
    }
    assert found[1].caption == "a café, no. 3, take “1”"
    one = tmp_path / "tars/output_dataset_000000.tar"
    assert [sample.key for sample in iterate(one)] == [sample.key for sample in found]


def test_a_folder_that_is_packed_meanwhile_loses_no_sample(folder):
    """Neither those that were given before, nor those that are still to come."""
    data = folder().fill([2, 10], 3)
    texts = json.dumps({"texts": [{"text": "a"}], "short": None})
    for index in (2, 10):
        (data.path / f"000000/{index}.prompts").write_text(texts)
    (data.path / "000000/COMPLETE").write_text("{}")
    images = {path.stem: path.read_bytes() for path in data.path.glob("000000/*.jpg")}
    problems: list[str] = []
    samples = iterate(data.path / "000000", problems.append)
    found = [next(samples)]
    assert Packing(data.path / "000000").run().files == 14
    found += samples
    assert problems == [] and {sample.key: sample.jpeg() for sample in found} == images
    assert all(sample.texts() == [{"text": "a"}] for sample in found)


def test_tars_within_a_data_set_are_no_further_samples(folder, to_parquet, to_tars, tmp_path):
    data, table = folder().fill([3, 7], 2), tmp_path / "t.parquet"
    assert to_parquet(data.path, table).status == 0
    for place in ("tars", "more/tars"):
        assert to_tars(table, data.path.parent, data.path / place).status == 0
    assert len(list(iterate(data.path))) == len(list(iterate(tmp_path))) == 4
    assert len(list(iterate(data.path / "more"))) == 4


def test_what_cannot_be_read_is_named_and_takes_no_other_with_it(folder, tmp_path):
    data = folder().fill([1, 2, 3], 1)
    inside = data.path / "000000"
    (inside / "1_0.json").write_text("[" * 100_000)
    (inside / "2_0.json").unlink()
    os.mkfifo(inside / "2_0.json")
    (inside / "4_0.jpg").write_bytes(b"no JSON yet")
    tars = data.path.parent / "tars"
    tars.mkdir()
    (tars / "torn.tar").write_bytes(b"no tar at all" * 100)
    with tarfile.open(tars / "half.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("1_0.jpg"))
    for size in ("99999999999999999999", "-5"):
        with tarfile.open(tars / f"vast{size}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for name in ("1_0.jpg", "1_0.json"):
                member = tarfile.TarInfo(name)
                member.pax_headers = {"size": size}
                tar.addfile(member)
    problems: list[str] = []
    found = [sample.key for sample in iterate(data.path.parent, problems.append)]
    assert found == [f"{data.path.name}/000000/3_0"]
    assert sorted({text.split(":")[0].rsplit("/", 1)[1] for text in problems}) == [
        "1_0.json",
        "2_0.json",
        "half.tar",
        "torn.tar",
        "vast-5.tar",
        "vast99999999999999999999.tar",
    ]
    assert f"{tars}/half.tar: 1_0: there is no 1_0.json in it" in problems
    with pytest.raises(FileNotFoundError):
        next(iterate(tmp_path / "nowhere"))


def test_a_link_to_another_folder_is_not_followed(folder, tmp_path):
    """A colleague's folder would show files of mine, under the names of its samples."""
    mine = folder("mine").fill([7], 2).path / "000000"
    data = folder().fill([1, 2], 1)
    inside = data.path / "000000"
    for name, target in (("1_0.jpg", "7_0.jpg"), ("2_0.json", "7_1.json")):
        (inside / name).unlink()
        (inside / name).symlink_to(mine / target)
    os.link(inside / "1_0.json", inside / "3_0.json")
    (inside / "3_0.jpg").symlink_to("4_0.jpg")  # within its own folder it may lead
    (inside / "4_0.jpg").write_bytes(b"an image")
    problems: list[str] = []
    found = {sample.key: sample for sample in iterate(data.path, problems.append)}
    assert sorted(found) == ["000000/1_0", "000000/3_0"]
    assert [text for text in problems if "2_0.json" in text and "lies outside" in text] == problems
    with pytest.raises(OSError, match="lies outside"):
        found["000000/1_0"].jpeg()
    assert found["000000/3_0"].jpeg() == b"an image"


def bomb(path, kind):
    """A tar that begins with headers beyond all bounds; on the disk it takes some kilobytes."""
    member = tarfile.TarInfo("1_0.jpg")
    with open(path, "wb") as file:
        if kind == "chain":
            member.type = tarfile.XHDTYPE
            file.write(member.tobuf(tarfile.GNU_FORMAT) * 3_000)
        else:
            member.type, member.size = kind.encode(), 300 << 20
            file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + member.size + 1024)


@pytest.mark.parametrize("kind", ["x", "g", "X", "L", "K", "chain"])
def test_a_tar_of_vast_headers_is_not_read_into_memory(folder, to_parquet, to_tars, tmp_path, kind):
    data, tars = folder().fill([1], 1), tmp_path / "tars"
    to_parquet(data.path, tmp_path / "t.parquet")
    to_tars(tmp_path / "t.parquet", tmp_path, tars)
    bomb(tars / "bomb.tar", kind)
    problems: list[str] = []
    assert len(list(iterate(tars, problems.append))) == 1
    assert len(problems) == 1 and "the headers of a file take more than" in problems[0]
