"""Each field of a sample's JSON with values that are none of ours, before each reader of JSONs."""

import json

import pyarrow.parquet as pq
import pytest

from common.sample_reader import iterate
from tests.postprocess_dataset.conftest import called, captions

ODD = [10**400, 10**20, 1e308, float("nan"), -1, True, "\ud800", "\x1b[31m", [[]], {"a": [1]}, None]
FURTHER = ["scores", "score_versions", "accept", "tries", "rejected", "lora", "accepted"]
READERS = {
    "convert_json_to_parquet": "{out}/table.parquet",
    "verify_dataset": "--report={out}/verification.json",
    "score_images": "{out}/scores",
}


@pytest.fixture
def odd(folder):
    """A data set: an odd JSON for each field and value, and ten of ours."""
    data = folder().fill(range(5), 2)
    fields = [*data.record(9, 0, b""), *FURTHER]
    changes = [{field: value} for field in fields for value in ODD]
    changes += [{"scores": {"sharpness": value}} for value in ODD]
    changes += [{"source": [value]} for value in ODD]
    for number, change in enumerate(changes):
        place = data.place(10 + number, 0)
        record = json.loads(data.add(10 + number, 0).with_suffix(".json").read_text())
        record |= {"score_versions": ["sharpness 1"], "scores": {"sharpness": 0.5}}
        place.with_suffix(".json").write_text(json.dumps(record | change))
    return data


@pytest.mark.parametrize("reader", READERS)
def test_an_odd_value_costs_its_own_sample(odd, reader, tmp_path):
    """An integer of 400 digits in the place of a float ended the verification with a traceback."""
    words = READERS[reader].format(out=tmp_path)
    scores = ["--scores", "sharpness"] * (reader == "score_images")
    ended = called(reader, [odd.path, words, *scores])
    assert ended.status in (1, 3) and "Traceback" not in ended.err
    assert "\x1b" not in ended.out + ended.err
    if reader == "verify_dataset":
        assert "NOT GOOD" in ended.out and json.loads((tmp_path / "verification.json").read_text())
    else:
        found = pq.read_table(tmp_path / READERS[reader].rpartition("/")[2]).to_pylist()
        keys = {row.get("key") or row["__key__"] for row in found}
        assert keys > {f"HPDv2/000000/{n}_{aug}" for n in range(5) for aug in (0, 1)}


def test_an_odd_value_in_captions_costs_its_own_prompt(folder, tmp_path):
    """A list in the place of a prompt ended the verification with a traceback."""
    data = folder().fill(range(400), 1)
    plain = captions(0, 1)
    changes = [{field: value} for field in plain for value in ODD]
    changes += [{"texts": [plain["texts"][0] | {f: v}]} for f in plain["texts"][0] for v in ODD]
    changes += [{"short": {"missing": value}} for value in ODD]
    for index, change in enumerate(changes):
        record = captions(index, 1) | change
        (data.path / "000000" / f"{index}.prompts").write_text(json.dumps(record))
    (data.path / "000000" / "COMPLETE").write_text("{}")
    for _ in range(2):  # loose, then packed where it may be
        checked = called("verify_dataset", [data.path, f"--report={tmp_path / 'v.json'}"])
        assert checked.status == 1 and "NOT GOOD" in checked.out and "Traceback" not in checked.err
        packed = called("pack_finished_folders", [data.path])
        assert packed.status in (0, 3) and "Traceback" not in packed.err
    assert len(list(iterate(data.path))) == 400
