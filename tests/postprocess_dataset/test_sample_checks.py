"""A chunk parsed as one text says just what its files say one by one, for whatever bytes they
hold.
"""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from postprocess_dataset import sample_json, table

RECORD = {
    "prompt_index": 7,
    "augmentation_idx": 1,
    "original_prompt": "a café",
    "augmented_prompt": "a {café} }{ “x”",
    "is_augmented": True,
    "model_name": "m",
    "llm_model_name": None,
    "height": 8,
    "width": 8,
    "input_file": "p.json",
    "hostname": "h",
    "image_path": "7_1.jpg",
    "gpu_name": "g",
    "generation_timestamp": "2026-01-02T03:04:05",
    "source": ["a", "b"],
    "seed": 5,
    "guidance_scale": 7,
    "image_sha256": "00",
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=9),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
CHANGED = st.dictionaries(st.sampled_from([*RECORD, "new", "caption"]), VALUES, max_size=2).map(
    lambda changes: json.dumps(RECORD | changes).encode()
)
LESS = st.sampled_from(list(RECORD)).map(
    lambda name: json.dumps({k: v for k, v in RECORD.items() if k != name}).encode()
)
SHAPED = st.builds(
    lambda **how: json.dumps(RECORD, **how).encode(errors="surrogatepass"),
    indent=st.sampled_from([None, 1]),
    ensure_ascii=st.booleans(),
    sort_keys=st.booleans(),
)
TORN = st.builds(
    lambda content, cut, end: content[:cut] + end,
    SHAPED,
    st.integers(0, 500),
    st.binary(max_size=3),
)
CONTENT = st.one_of(
    SHAPED,
    SHAPED,
    SHAPED,
    CHANGED,
    LESS,
    TORN,
    st.binary(max_size=5),
    st.just(b"{} {}"),
    st.just(b'{"lease": '),
    st.just(b'{"a": 1}} {"a": 1}'),
)


GOOD = json.dumps(
    RECORD
).encode()  # before the others: the first one's keys are looked at more closely


@settings(max_examples=400, deadline=None)
@example([GOOD, json.dumps(RECORD | {"guidance_scale": 2**53 + 1}).encode()])
@example([GOOD, json.dumps(RECORD | {"guidance_scale": float("nan")}).encode()])
@example([GOOD, json.dumps(RECORD | {"guidance_scale": float("inf")}).encode()])
@example([GOOD, GOOD.replace(b'"h"', b'"h\xff"')])
@example([GOOD, GOOD + b" " + GOOD])
@given(st.lists(CONTENT, min_size=1, max_size=5))
def test_together_is_apart(contents):
    together = sample_json.parse_together(contents)
    apart, kept, reasons = sample_json.parse_apart(contents)
    assert len(kept) + len(reasons) == len(contents) and apart.num_rows == len(kept)
    if together is not None:
        assert not reasons and together.select(apart.column_names).to_pylist() == apart.to_pylist()


def test_clean_files_are_parsed_together():
    """Else the fast way would never be taken."""
    contents = [
        json.dumps(RECORD | {"prompt_index": i}).encode() + b"\n" * (i % 2) for i in range(50)
    ]
    assert sample_json.parse_together(contents)["prompt_index"].to_pylist() == list(range(50))
    published = {name: RECORD[name] for name in list(table.JSON_FIELDS)[:14]}
    assert sample_json.parse_together([json.dumps(published).encode()] * 2).num_rows == 2
