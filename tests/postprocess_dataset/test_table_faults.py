"""The table when the disk is full or another process is writing it.

One line, and the old table stays.
"""


def test_a_full_disk_leaves_the_old_table(folder, to_parquet, tmp_path, monkeypatch):
    from postprocess_dataset import publish

    data = folder().fill([1], 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    before = (tmp_path / "t.parquet").read_bytes()
    data.add(2)

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.Draft, "publish", full)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 1 and "No space left" in ended.err and ended.err.count("\n") == 1
    assert (tmp_path / "t.parquet").read_bytes() == before and not list(tmp_path.glob(".t*"))


def test_a_disk_that_fills_up_half_way(folder, to_parquet, process, tmp_path):
    """By a limit on the size of files, which write(2) refuses as it does on a full disk; no
    complaint of the garbage collector.
    """
    import resource

    data, table = folder().fill(range(300), 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, table).status == 0
    before = table.read_bytes()
    data.fill([301])

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)

    for mode in ("--update", "--rebuild"):
        ended = process("convert_json_to_parquet", data.path, table, mode, preexec_fn=limit)
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
        assert (
            f"{table}: " in ended.stderr
            and "File too large" in ended.stderr
            and table.read_bytes() == before
        )
    args = ["--parquet_file", table, "--base_dir", tmp_path, "--output_dir", tmp_path / "tars"]
    ended = process("convert_parquet_to_wds", *args, preexec_fn=limit)
    assert (
        ended.returncode == 1
        and ended.stderr.count("\n") == 1
        and f"{tmp_path / 'tars'}: " in ended.stderr
    ), ended.stderr
    assert (
        process("convert_parquet_to_wds", *args).returncode == 0
        and to_parquet(data.path, table, "--update").status == 0
    )


def test_two_writers_of_one_table(folder, to_parquet, tmp_path):
    from postprocess_dataset.publish import Draft

    data = folder().fill([1], 1)
    with Draft(tmp_path / "t.parquet"):
        ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert (
        ended.status == 1
        and "another process is writing it" in ended.err
        and to_parquet(data.path, tmp_path / "t.parquet").status == 0
    )
