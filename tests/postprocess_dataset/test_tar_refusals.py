"""What a user gets wrong with the tars: one line, and nothing that lies there is touched."""

import pytest


def test_foreign_shards_and_other_options_are_refused(
    table, to_tars, to_parquet, folder, tmp_path, tree
):
    data, path = table
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "output_dataset_000000.tar").write_bytes(b"x")
    ended = to_tars(path, data.path, tmp_path / "old")
    assert (
        ended.status == 1
        and "output_dataset_000000.tar" in ended.err
        and "another table" in ended.err
    )
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    before = tree(tmp_path / "tars")
    other = folder("other").fill([1, 2], 20)
    assert to_parquet(other.path, tmp_path / "other.parquet").status == 0
    for args, says in (
        ((tmp_path / "other.parquet", other.path), "another table"),
        ((path, data.path, "--shard_size_mb", 7), "--shard_size_mb 500"),
        ((path, data.path, "--shuffle_seed", 1), "--shuffle_seed None"),
        ((path, data.path, "--split", "a=0.5,b=0.5"), "--split None"),
    ):
        ended = to_tars(args[0], args[1], tmp_path / "tars", *args[2:])
        assert (
            ended.status == 1
            and says in ended.err
            and ended.err.count("\n") == 1
            and tree(tmp_path / "tars") == before
        )
    data.place(995, 0).with_suffix(".json").unlink()
    assert to_parquet(data.path, path, "--rebuild").status == 0
    assert (
        "another table" in to_tars(path, data.path, tmp_path / "tars").err
        and tree(tmp_path / "tars") == before
    )


@pytest.mark.parametrize(
    "args, says",
    [
        (["--split", "a=0.5"], "shares that make 1"),
        (["--split", "a=0.5,a=0.5"], "shares"),
        (["--split", "nonsense"], "shares"),
        (["--split", "हिन्दी=0.9,val=0.1"], "letters, digits"),  # a combining mark: the plan was
        (["--split", "a·b=1"], "letters, digits"),  # said to be damaged ever after
        (["--split", "1a=1"], "letters, digits"),
        (["--split", f"{'é' * 51}=1"], "at most 100 bytes"),
        (["--split", "train=nan"], "shares"),
        (["--split", "train=0.9,val=nan"], "shares"),
        (["--shuffle_seed", "-1"], "--shuffle_seed"),
        (["--num_workers", "0"], "--num_workers"),
        (["--shard_size_mb", "-1"], "--shard_size_mb"),
        (["--part", "4/4"], "--part"),
        (["--finish"], "--part 0/N"),
        (["--shufle_seed", "1"], "--shuffle_seed"),
        (["--where", " "], "it is empty"),  # "$FILTER" of an unset variable published all
    ],
)
def test_usage_is_one_line(to_tars, tmp_path, args, says):
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars", *args)
    assert (
        ended.status == 2
        and says in ended.err
        and ended.err.count("\n") == 1
        and not (tmp_path / "tars").exists()
    )


@pytest.mark.parametrize("name", ["école", "训练", "_a1", "a" * 100])
def test_a_split_of_any_script_is_gone_on_with(table, to_tars, tmp_path, name):
    """What is taken once is taken again."""
    data, path = table
    for written in (2, 0):
        ended = to_tars(path, data.path, tmp_path / "tars", "--split", f"{name}=0.9,val=0.1")
        assert ended.status == 0 and f"({written} written now)" in ended.out, ended.err


def test_no_table(to_tars, tmp_path):
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    assert ended.status == 1 and "no such table" in ended.err and ended.err.count("\n") == 1
    (tmp_path / "t.parquet").write_bytes(b"not parquet at all")
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    assert ended.status == 1 and ended.err.count("\n") == 1
