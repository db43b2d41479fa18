"""Shuffled rows: the same for the same seed, made once for all partitions."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_parts_that_start_at_once(table, to_tars, tmp_path, small_shards, tree):
    """As an array does: one of them makes the plan and the shuffled rows, the others take it."""
    data, path = table
    code = """
import sys, time
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
from postprocess_dataset.to_tars import shard_plan, tar_settings
shard_plan.padded = lambda size: ((10**6 - 1024) // 5 - 3 * 512) // 3
ordered = tar_settings.ordered
# so that the others come meanwhile
tar_settings.ordered = lambda *args: (ordered(*args), time.sleep(0.3))
from common.command_line import run_script
from postprocess_dataset import convert_parquet_to_wds
run_script(convert_parquet_to_wds.main)
"""
    args = [
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--shard_size_mb",
        1,
        "--num_workers",
        1,
    ]
    args += ["--split", "train=0.7,val=0.3", "--shuffle_seed", 3]
    command = [sys.executable, "-c", code, ROOT, *args, "--output_dir", tmp_path / "tars"]
    small_shards(5)
    args = [*args[4:6], *args[8:]]
    assert to_tars(path, data.path, tmp_path / "whole", *args).status == 0
    for _ in range(2):
        pieces = [list(map(str, [*command, "--part", f"{i}/4"])) for i in range(4)]
        parts = [
            subprocess.Popen(piece, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for piece in pieces
        ]
        said = [part.communicate(timeout=60)[1] for part in parts]
        assert [part.returncode for part in parts] == [0] * 4, said
        assert (
            to_tars(path, data.path, tmp_path / "tars", *args, "--part", "0/4", "--finish").status
            == 0
        )
        assert (
            tree(tmp_path / "tars") == tree(tmp_path / "whole")
            and len(list((tmp_path / "tars").glob("*.tar"))) > 6
        )
        for tar in (tmp_path / "tars").glob(
            "*.tar"
        ):  # all to do again, with a plan, but without the shuffled rows that --finish removed
            tar.unlink()


def test_a_shuffle_shuffles(table, to_tars, tar_members, tmp_path):
    """One pile holds all rows here: their order is another one, another for another seed, and the
    same for the same.
    """
    data, path = table
    orders = []
    for n, seed in enumerate((None, 1, 2, 1)):
        assert (
            to_tars(
                path,
                data.path,
                tmp_path / f"{n}",
                *([] if seed is None else ["--shuffle_seed", seed]),
            ).status
            == 0
        )
        orders.append([name for name in tar_members(tmp_path / f"{n}") if name.endswith(".jpg")])
    assert orders[1] == orders[3] and sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (
            sum(a == b for a, b in zip(orders[one], orders[other], strict=True)) < 12
        )  # of 36; by chance 1
