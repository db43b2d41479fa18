"""A million samples, each file its own, through both converters (8 GB in pytest's temporary
folder).
"""

import hashlib
import json
import os
import tarfile

import pytest

from benchmarks import made_samples
from benchmarks.cost import Cost
from postprocess_dataset import table as table_module


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_million_samples(tmp_path):
    count = int(os.environ.get("SAMPLES", 1_000_000))
    folder, table = tmp_path / "ours", tmp_path / "ours.parquet"
    made_samples.make_samples(folder, 0, count, made_samples.pictures(1000), ours=True)
    cost = Cost([*made_samples.TO_PARQUET, folder, table])
    assert f"{count:,} rows; 0 rejected, 0 images without JSON" in cost.output and cost.peak < 350
    args = [
        "--parquet_file",
        table,
        "--base_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        100,
    ]
    cost = Cost([*made_samples.TO_TARS, *args])
    assert f"{count:,} images" in cost.output and "0 left out" in cost.output and cost.peak < 200
    samples = 0
    rows = (
        row
        for batch in table_module.read_rows([str(table)], columns=["__key__", "idx", "caption"])
        for row in batch.to_pylist()
    )
    for path in sorted((tmp_path / "tars").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = iter(tar)
            for image in members:
                row, text, metadata = next(rows), next(members), next(members)
                record = json.load(tar.extractfile(metadata))
                assert [image.name, text.name, metadata.name] == [
                    f"{row['__key__']}{suffix}" for suffix in (".jpg", ".txt", ".json")
                ]
                assert row["idx"] == samples and divmod(samples, 20) == (
                    record["prompt_index"],
                    record["augmentation_idx"],
                )
                assert (
                    hashlib.sha256(tar.extractfile(image).read()).hexdigest()
                    == record["image_sha256"]
                    and tar.extractfile(text).read().decode() == row["caption"]
                )
                samples += 1
            tar.members = []  # tarfile keeps them all otherwise
    assert samples == count and next(rows, None) is None
