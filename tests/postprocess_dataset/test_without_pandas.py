"""The converter's process does without pandas, which pyarrow would import for nothing."""

import subprocess
import sys

from tests.conftest import ROOT

ASKS = """
import sys
import pyarrow as pa
from common.without_pandas import without_pandas
without_pandas()
pa.array(["a"]).to_numpy(zero_copy_only=False)
print("pandas" in sys.modules, len(pa.table({"a": [1]}).to_pandas()))
"""


def test_the_converter_does_not_import_it(folder, process, tmp_path):
    data = folder().fill([1], 2)
    ended = process(
        "convert_json_to_parquet",
        data.path,
        tmp_path / "t.parquet",
        env={"PYTHONPROFILEIMPORTTIME": "1"},
    )
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "pyarrow.lib" in imported and "pandas.core" not in imported


def test_to_pandas_still_finds_it():
    said = subprocess.run([sys.executable, "-c", ASKS], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "1"], said.stderr
