"""Sorted pieces in any order come out as one sorted, numbered table."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROW = st.tuples(st.sampled_from("abé"), st.integers(0, 9), st.integers(0, 3), st.integers(0, 10**6))


PIECES = st.lists(st.lists(ROW, min_size=1, max_size=12), max_size=20)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PIECES, min_size=1, max_size=2), st.integers(2, 4))
def test_any_pieces_come_out_sorted(tmp_path, generations, max_runs):
    """Of a first conversion, and of an update that follows its rows; with a bounded number of
    files open.
    """
    import pyarrow as pa

    from postprocess_dataset import sorted_rows, table

    schema, path = table.row_schema(), tmp_path / "sorted.parquet"
    empty = {pa.int64(): 0, pa.bool_(): False, pa.string(): ""}
    before = sorted_rows.ROW_GROUP, sorted_rows.MERGE_BATCH, sorted_rows.MAX_RUNS
    sorted_rows.ROW_GROUP, sorted_rows.MERGE_BATCH, sorted_rows.MAX_RUNS = 5, 2, max_runs
    path.unlink(missing_ok=True)
    try:
        wanted = []
        for pieces in generations:
            with sorted_rows.SortedRows(
                path, {}, path if path.exists() else None, len(wanted)
            ) as rows:
                for piece in pieces:
                    keys = dict(
                        zip(
                            sorted_rows.ORDER,
                            map(
                                list,
                                zip(*[(f, p, a, f"k/{k}") for f, p, a, k in piece], strict=True),
                            ),
                            strict=True,
                        )
                    )
                    columns = [
                        keys.get(
                            field.name, [None if field.nullable else empty[field.type]] * len(piece)
                        )
                        for field in schema
                    ]
                    rows.add(
                        sorted_rows.in_order(
                            pa.table(
                                [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)],
                                schema=schema,
                            )
                        )
                    )
                    assert len(rows.runs) <= max_runs
                rows.publish([])
            wanted += sorted((f, p, a, f"k/{k}") for piece in pieces for f, p, a, k in piece)
    finally:
        sorted_rows.ROW_GROUP, sorted_rows.MERGE_BATCH, sorted_rows.MAX_RUNS = before
    found = [row for batch in table.read_rows([path]) for row in batch.to_pylist()]
    assert [tuple(r[n] for n in sorted_rows.ORDER) for r in found] == wanted
    assert [r["idx"] for r in found] == list(range(len(found)))
    for start, stop in ((0, 3), (4, 9), (len(found) - 1, len(found) + 5)):
        assert [
            r for batch in table.read_rows([path], start, stop) for r in batch.to_pylist()
        ] == found[max(0, start) : stop]
