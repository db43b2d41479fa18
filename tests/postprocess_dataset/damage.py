"""Damage done to the small data set of verified.py: {name: (its kind, what does it)}."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from common.screening import Screen
from common.validation_set import ValidationSet
from generate.dataset.samples import PLACE, comment_of, encode, publish_failed
from postprocess_dataset import table
from postprocess_dataset.manifest.shards import tar_members
from tests.odd_jpegs import PRIVATE, progressive
from tests.postprocess_dataset.verified import RunFolder, convert, picture, put, rewrite


def sample(root, name="995_1"):
    return root / "HPDv2/000000" / name


def folder(root):
    """The maker of the data set, on its copy; dataset.yaml stays."""
    made = RunFolder.__new__(RunFolder)
    made.path, made.published, made.input_file = root / "HPDv2", False, "HPDv2.json"
    return made


def remake(root, **changes):
    """Sample 995_1 as it would be with other facts, in all that is made of it."""
    record = folder(root).record(995, 1, b"") | changes
    hidden = (*PLACE, "image_sha256")
    comment = comment_of({name: value for name, value in record.items() if name not in hidden})
    rewrite(sample(root, "995_1.json"), **changes)
    put(sample(root, "995_1"), encode(picture(bytes(192)), comment, 95))
    convert(root)


def cut(path, size=-40):
    path.write_bytes(path.read_bytes()[:size])


def swap_files(one, other):
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)


def edit_table(root, change):
    """change: rows (a list of dictionaries) in place; they are numbered again."""
    path = root / "t.parquet"
    old = pq.read_table(path)
    rows = old.to_pylist()
    change(rows)
    for number, row in enumerate(rows):
        row["idx"] = number
    facts = table.facts(path) | {"generations": [len(rows)]}
    note = {table.KEY: json.dumps(facts).encode()}
    pq.write_table(pa.Table.from_pylist(rows, old.schema.with_metadata(note)), path)


def edit_tar(root, change, number=0):
    """change: [(name, content)] in place; the index is made to fit."""
    path = sorted((root / "tars").glob("*.tar"))[number]
    members = list(tar_members(io.BytesIO(path.read_bytes())))
    change(members)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    index = json.loads((root / "tars/index.json").read_text())
    index["shardlist"][number] |= {
        "nsamples": len(members) // 3,
        "filesize": path.stat().st_size,
    }
    (root / "tars/index.json").write_text(json.dumps(index))


def edit_captions(root, change):
    path = sample(root, "995.prompts")
    record = json.loads(path.read_text())
    change(record["texts"])
    path.write_text(json.dumps(record))


def an_unsafe_text(root):
    """Its image was given up, so it stands in no table."""
    text = {"text": "a naked woman having sex", "llm_model_name": None, "backend": None}
    edit_captions(root, lambda texts: texts.append(text))
    publish_failed(root / "HPDv2", 995, 3, "image", "a black image", "1-1")


def a_damaged_mark(root):
    """It gives no image up."""
    text = {"text": "a fox at dawn", "llm_model_name": None, "backend": None}
    edit_captions(root, lambda texts: texts.append(text))
    sample(root, "995_3.failed").write_text("[")


def the_same_picture(root):
    """Of 995_1 and 995_2, each with its own comment."""
    made = folder(root)
    image = made.image(995, 2)
    other = made.image(995, 1)
    start, end = (image.index(b"\xff\xfe"), other.index(b"\xff\xfe"))
    length = int.from_bytes(image[start + 2 : start + 4], "big") + 2
    of_other = int.from_bytes(other[end + 2 : end + 4], "big") + 2
    put(
        sample(root, "995_2"), other[:end] + image[start : start + length] + other[end + of_other :]
    )
    convert(root)


def a_nan_in_the_table(root):
    path = root / "t.parquet"
    old = pq.read_table(path)
    scores = pa.array([0.5] * 5 + [float("nan")] + [None] * (old.num_rows - 6), pa.float64())
    pq.write_table(old.append_column("score_clip", scores), path)


def exif(root):
    """In an image that its JSON and all that is made of it know as it is."""
    image = sample(root, "995_1.jpg").read_bytes()
    put(sample(root, "995_1"), PRIVATE["Exif"][0](image))
    convert(root)


def card(root):
    text = "---\ndataset_info:\n  splits:\n  - {name: train, num_examples: 25}\n---\n"
    (root / "tars/README.md").write_text(text)


def judged(root, accept, *before):
    """995_1 (clip 0.3) has this expression, and so many rejected ones before it."""
    rejected = [{"seed": n, "scores": {"clip": clip}} for n, clip in enumerate(before)]
    remake(root, accept=accept, rejected=rejected)


def leak(root):
    """The validation set holds a caption."""
    text = folder(root).record(1001, 2, b"")["augmented_prompt"]
    (root / "HPDv2.json").write_text("[]")
    Screen(validation=ValidationSet.of([text])).save_beside(root / "HPDv2.json")


def renamed(root):
    for suffix in (".jpg", ".json"):
        swap_files(*(sample(root, f"{name}{suffix}") for name in ("995_1", "996_2")))


def first(root, pattern="*.tar"):
    return sorted((root / "tars").glob(pattern))[0]


def swap_rows(rows):
    rows[3], rows[4] = rows[4], rows[3]


DAMAGE = {
    "missing image": ("missing", lambda r: sample(r, "995_1.jpg").unlink()),
    "missing JSON": ("missing", lambda r: sample(r, "995_1.json").unlink()),
    "missing captions": ("missing", lambda r: sample(r, "995.prompts").unlink()),
    "missing row": ("missing", lambda r: edit_table(r, lambda rows: rows.pop(4))),
    "missing in tars": ("missing", lambda r: edit_tar(r, lambda m: m.__delitem__(slice(3, 6)))),
    "doubled row": ("doubled", lambda r: edit_table(r, lambda rows: rows.insert(4, dict(rows[4])))),
    "doubled in tars": ("doubled", lambda r: edit_tar(r, lambda m: m.extend(m[:3]))),
    "torn image": ("torn", lambda r: cut(sample(r, "995_1.jpg"))),
    "torn JSON": ("torn", lambda r: cut(sample(r, "995_1.json"))),
    "torn captions": ("torn", lambda r: cut(sample(r, "995.prompts"))),
    "no count of missing texts": ("torn", lambda r: rewrite(sample(r, "995.prompts"), short={})),
    "a word of missing texts": (
        "torn",
        lambda r: rewrite(sample(r, "995.prompts"), short={"missing": "x"}),
    ),
    "empty image": ("torn", lambda r: cut(sample(r, "995_1.jpg"), 0)),
    "too many scans": (
        "torn",
        lambda r: put(sample(r, "995_1"), progressive(picture(bytes(192)), 3000)),
    ),
    "torn definition": ("torn", lambda r: (r / "HPDv2/dataset.yaml").write_text("a: [")),
    "foreign file": ("foreign", lambda r: sample(r, "notes.txt").write_text("x")),
    "link to itself": ("foreign", lambda r: sample(r, "995_1.failed").symlink_to("995_1.failed")),
    "foreign prompt": ("foreign", lambda r: sample(r, "1999_0.jpg").write_bytes(b"x")),
    "foreign tar": ("foreign", lambda r: (r / "tars/more.tar").write_bytes(b"")),
    "renamed": ("renamed", renamed),
    "swapped images": (
        "renamed",
        lambda r: swap_files(sample(r, "995_1.jpg"), sample(r, "995_2.jpg")),
    ),
    "swapped caption": (
        "swapped_caption",
        lambda r: rewrite(sample(r, "995_1.json"), augmented_prompt="another caption"),
    ),
    "another seed": (
        "swapped_caption",
        lambda r: rewrite(sample(r, "995_1.json"), seed=7),
    ),
    "another seed in the table": (
        "swapped_caption",
        lambda r: edit_table(r, lambda rows: rows[4].update(seed=7)),
    ),
    "another seed in a tar": (
        "swapped_caption",
        lambda r: edit_tar(r, lambda m: m.__setitem__(2, (m[2][0], m[2][1].replace(b"28", b"29")))),
    ),
    "swapped in the table": (
        "swapped_caption",
        lambda r: edit_table(r, lambda rows: rows[4].update(caption="another caption")),
    ),
    "swapped in a tar": (
        "swapped_caption",
        lambda r: edit_tar(r, lambda m: m.__setitem__(1, (m[1][0], b"another caption"))),
    ),
    "wrong hash": (
        "wrong_hash",
        lambda r: sample(r, "995_1.jpg").write_bytes(folder(r).image(995, 1, "other")),
    ),
    "wrong hash in a tar": (
        "wrong_hash",
        lambda r: edit_tar(r, lambda m: m.__setitem__(0, (m[0][0], m[3][1]))),
    ),
    "stale .samples": ("wrong_hash", lambda r: sample(r, "995.samples").write_text("{}\n{}\n")),
    "wrong order of rows": ("wrong_order", lambda r: edit_table(r, swap_rows)),
    "wrong order in a tar": (
        "wrong_order",
        lambda r: edit_tar(r, lambda m: m.__setitem__(slice(0, 6), m[3:6] + m[:3])),
    ),
    "torn tar": ("unreadable_shard", lambda r: cut(first(r), 7000)),
    "torn table": ("unreadable_shard", lambda r: cut(r / "t.parquet")),
    "no shard": ("index_without_shard", lambda r: first(r).unlink()),
    "no index": ("index_without_shard", lambda r: (r / "tars/index.json").unlink()),
    "row without image": (
        "row_without_image",
        lambda r: edit_table(
            r, lambda rows: rows.append(rows[-1] | {"__key__": "HPDv2/000009/9_9"})
        ),
    ),
    "another text": (
        "caption_differs",
        lambda r: edit_captions(r, lambda texts: texts[1].update(text="another text")),
    ),
    "another prompt": (
        "caption_differs",
        lambda r: rewrite(sample(r, "995.prompts"), original_prompt="another prompt"),
    ),
    "wrong size": ("wrong_size", lambda r: rewrite(sample(r, "995_1.json"), width=16)),
    "leak": ("validation_leak", leak),
    "damaged .failed": ("missing", a_damaged_mark),
    "unsafe": ("unsafe_text", an_unsafe_text),
    "unsafe beside": ("unsafe_text", lambda r: remake(r, note="a naked woman having sex")),
    "duplicate": ("duplicate_image", the_same_picture),
    "unknown model": (
        "licence_unknown",
        lambda r: remake(r, model_name="someone/own"),
    ),
    "unknown source": (
        "licence_unknown",
        lambda r: remake(r, source=["theirs"]),
    ),
    "NaN score": ("nan_score", lambda r: rewrite(sample(r, "995_1.json"), scores={"a": 0 * 1e999})),
    "NaN in the table": ("nan_score", a_nan_in_the_table),
    "not accepted": ("not_accepted", lambda r: judged(r, "clip > 0.3")),
    "accepted before": ("not_accepted", lambda r: judged(r, "clip > 0.2", 0.25)),
    "a score is missing": ("not_accepted", lambda r: judged(r, "rendered_text < 1")),
    "no expression": ("not_accepted", lambda r: judged(r, "clip >")),
    "private": ("private_field", exif),
    "card": ("card_counts", card),
}
