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
        and f"{tmp_path / 'tars' / 'output_dataset_000000.tar'}'; finished shards stay"
        in ended.stderr
    ), ended.stderr
    assert (
        process("convert_parquet_to_wds", *args).returncode == 0
        and to_parquet(data.path, table, "--update").status == 0
    )


def test_a_list_of_rejects_that_has_no_room_publishes_no_table(folder, process, tmp_path):
    import resource

    data, table = folder().fill([1], 1), tmp_path / "t.parquet"
    for number in range(1000, 1600):
        (data.path / "000001").mkdir(exist_ok=True)
        (data.path / "000001" / f"{number}_0.json").write_text("torn")
        (data.path / "000001" / f"{number}_0.jpg").write_bytes(b"torn")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000,) * 2)

    ended = process("convert_json_to_parquet", data.path, table, preexec_fn=limit)
    assert ended.returncode == 1 and "nothing was published" in ended.stderr, ended.stderr
    assert "t.parquet.rejects.jsonl" in ended.stderr and not table.exists()
    assert process("convert_json_to_parquet", data.path, table).returncode == 3
    assert table.stat().st_size < 40_000 < (tmp_path / "t.parquet.rejects.jsonl").stat().st_size


def test_a_table_whose_state_has_no_room_is_said_to_be_published(
    folder, to_parquet, tmp_path, monkeypatch
):
    from postprocess_dataset import increment

    data, table = folder().fill([1], 1), tmp_path / "t.parquet"

    def full(path, text):
        raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patched:
        patched.setattr(increment, "publish_text", full)
        ended = to_parquet(data.path, table)
    assert ended.status == 1 and table.exists() and ended.err.count("\n") == 1
    assert f"{table} is published, the lists beside it are not" in ended.err
    assert "nothing was published" not in ended.err
    assert to_parquet(data.path, table).status == 0


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
