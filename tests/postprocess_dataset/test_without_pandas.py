"""The converters' processes do without pandas, which pyarrow would import for nothing."""

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


def test_the_converters_do_not_import_it(folder, process, tmp_path):
    data, table = folder().fill([1], 2), tmp_path / "t.parquet"
    tars = f"--parquet_file={table}", f"--base_dir={tmp_path}", f"--output_dir={tmp_path / 'tars'}"
    for command in (
        ("convert_json_to_parquet", data.path, table),
        ("convert_parquet_to_wds", *tars),
    ):
        ended = process(*command, env={"PYTHONPROFILEIMPORTTIME": "1"})
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "pyarrow.lib" in imported and "pandas.core" not in imported


def test_to_pandas_still_finds_it():
    said = subprocess.run([sys.executable, "-c", ASKS], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "1"], said.stderr
