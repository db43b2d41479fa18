"""make_report.py: its figures are right; its page loads nothing and tells nothing private.

The page is opened in a real Chromium.
"""

import base64
import html
import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from common.scores.histogram import histogram
from postprocess_dataset.report import costs, gather, pictures, rows, texts
from postprocess_dataset.shard_images import Images
from tests.fakes.hostile_files import doubling
from tests.postprocess_dataset.conftest import called

AXE = Path(__file__).resolve().parents[1] / "node_modules" / "axe-core" / "axe.min.js"
EVIL = 'a “café” <img src=x onerror="window.evil=1"> {{ 7 * 7 }} \u202egnp.exe \x1b[31m'


@pytest.fixture
def data(folder, to_parquet, tmp_path):
    """The table of 30 prompts of 4 images; one caption is hostile, one JSON is torn."""
    made = folder()
    for prompt in range(30):
        for augmentation in range(4):
            evil = {"augmented_prompt": EVIL} if (prompt, augmentation) == (3, 2) else {}
            made.add(
                prompt,
                augmentation,
                source=["sac"] if prompt % 3 else ["hpd", "sac"],
                model_name="/home/alice/models/own-model",
                scores={"clip": prompt / 100, "/home/alice/own.py": 1.0},
                **({"llm_model_name": "/home/alice/llm"} if prompt == 4 else {}),
                tries=2,
                generation_timestamp=f"2026-01-02T03:04:{10 * augmentation:02d}+00:00",
                gpu_name="/home/alice/H100" if prompt == 5 else "NVIDIA H100 80GB HBM3",
                batch_size=1,
                **evil,
            )
    (made.path / "dataset.yaml").write_text("name: HPDv2\nmodel: /home/alice/models/own-model\n")
    made.place(29, 3).with_suffix(".json").write_text("{torn")
    assert to_parquet(made.path, tmp_path / "t.parquet").status == 3
    return tmp_path / "t.parquet"


def report_of(table, *options):
    ended = called("make_report", [table, table.with_name("report.html"), *options])
    assert ended.status == 0, ended.err
    return table.with_name("report.html").read_text()


def test_the_figures_are_those_of_the_table(data):
    report = gather.gather(gather.ReportSettings(str(data), "report.html"))
    assert (report.seen.rows, report.seen.counted, report.seen.exact) == (119, 119, True)
    assert report.seen.counts["source"] == {"sac": 119, "hpd": 10 * 4}
    assert report.seen.sizes == {(8, 8): 119}
    writers = {group.name: group for group in report.groups["Who wrote the caption"]}
    assert (writers["gemma2"].count, writers["the prompt itself"].count) == (86, 29)
    assert writers["llm"].count == 4
    assert report.accepted == 0.5
    assert [(found.name, found.count) for found in report.scores] == [
        ("/home/alice/own.py", 119),
        ("clip", 119),
    ]
    assert report.left_out == [("not JSON", 1)] and not report.unread_images
    assert report.costs.seconds_per_image == 10
    assert report.costs.kwh == pytest.approx(10 * 119 / 3600 * 0.7)
    assert len(report.strips) == 10 and {len(strip.pictures) for strip in report.strips} <= {3, 4}


def test_the_page_holds_all_it_shows_and_nothing_private(data, tmp_path):
    page = report_of(data, "--name", "Our <b>set")
    assert "kWh: an upper estimate" in page
    assert "<h1>Our &lt;b&gt;set</h1>" in page
    uris = re.findall(r'src="([^"]+)"', page)
    assert len(uris) > 30 and all(uri.startswith("data:image/jpeg;base64,") for uri in uris)
    for uri in uris:
        Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).load()
    for private in ("node1", "/home/alice", str(tmp_path), "3-12"):
        assert private not in page, private
    assert "own-model" in page
    shown = html.unescape(page)
    assert "\u202e" not in page and "\x1b" not in page
    assert "<img src=x" not in page and ("{{ 7 * 7 }}" in shown) == ("gnp.exe" in shown)


@pytest.mark.parametrize("width, scheme", [(400, "light"), (1400, "dark")])
def test_the_page_in_a_browser(data, browser, width, scheme):
    """axe-core finds nothing, nothing is too wide, nothing is asked for. SCREENSHOTS keeps it."""
    if not AXE.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "axe-core is missing: npm install --prefix tests axe-core (make test does it)"
        )
    report_of(data)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(90_000)
    page.goto(data.with_name("report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("typeof window.evil + document.scripts.length") == "undefined0"
    if os.environ.get("PAGE_SCREENSHOTS"):
        shot = Path(os.environ["PAGE_SCREENSHOTS"], f"report_{width}_{scheme}.png")
        page.screenshot(path=shot, full_page=True)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document)")
    context.close()
    assert [
        (v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found["violations"]
    ] == []
    assert len(found["passes"]) > 15 and problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_of_a_large_table_a_part_is_read(data, monkeypatch, tmp_path):
    import pyarrow.parquet as pq

    table = pq.read_table(data)
    large = tmp_path / "large.parquet"
    with pq.ParquetWriter(large, table.schema) as writer:
        for _ in range(40):
            writer.write_table(table)
    monkeypatch.setattr(rows, "GROUPS", 5)
    seen = rows.look([str(large)])
    assert (seen.rows, seen.counted, seen.exact) == (40 * 119, 5 * 119, False)
    assert seen.counts["source"] == {"sac": 5 * 119, "hpd": 5 * 40}
    page = report_of(large, "--base_dir", tmp_path)
    assert "counts are of 595 images that are spread evenly over the 4,760" in " ".join(
        page.split()
    )


def test_what_is_wrong_is_one_line(data, tmp_path):
    def says(words, *args):
        ended = called("make_report", args)
        assert ended.status == 1 and ended.err.count("\n") == 1, ended.err
        assert all(word in ended.err for word in words), ended.err

    says(["none.parquet", "no such table"], tmp_path / "none.parquet", tmp_path / "r.html")
    says(
        ["is no folder", "--base_dir"],
        data,
        tmp_path / "r.html",
        "--base_dir",
        tmp_path / "elsewhere",
    )
    (tmp_path / "status.json").write_text("[]")
    says(["--status"], data, tmp_path / "r.html", "--status", tmp_path / "status.json")
    (tmp_path / "HPDv2" / "dataset.yaml").write_text("{torn")
    says(["dataset.yaml is damaged"], data, tmp_path / "r.html")
    (tmp_path / "HPDv2" / "dataset.yaml").write_text(f"model: {doubling('/x/y')}")
    says(["dataset.yaml is damaged", "aliases"], data, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("caption", 5, "its column caption is int64, not text"),
        ("caption", [["a"]], "its column caption is list"),
        ("source", 5, "its column source is int64, not text"),
        ("source", [["a"]], "its column source is list"),
        ("gpu_name", [["a"]], "its column gpu_name is list"),
        ("input_file", {"a": 1}, "its column input_file is struct<a: int64>, not text"),
        ("is_augmented", [["a"]], "its column is_augmented is list"),
        ("image_sha256", 5, "its column image_sha256 is int64, not text"),
        ("truncated", 5, ""),
        ("extra", '{"source": 5, "original_prompt": {}, "llm_model_name": [1]}', ""),
        ("width", "64", "its column width is string, not a whole number"),
        ("__key__", None, "no row has key and caption"),
        ("source", [None], ""),
    ],
)
def test_a_column_of_another_type_is_named(data, tmp_path, name, value, says):
    rows = pq.read_table(data)
    if name == "extra":  # what has a column of its own is read from that
        rows = rows.drop_columns(["source", "original_prompt", "truncated", "llm_model_name"])
    kind = pa.string() if value is None else pa.list_(pa.string()) if value == [None] else None
    other = pa.array([value] * len(rows), kind)
    pq.write_table(rows.set_column(rows.schema.get_field_index(name), name, other), data)
    ended = called("make_report", [data, tmp_path / "r.html", "--base_dir", tmp_path])
    assert says in ended.err and "Traceback" not in ended.err
    assert (ended.status, ended.err.count("\n")) == ((1, 1) if says else (0, 0)), ended.err


def test_an_image_that_cannot_be_read_is_counted_once(folder, to_parquet, tmp_path):
    """However many sections of the page would show it."""
    made = folder().fill(range(4), 2)
    assert to_parquet(made.path, tmp_path / "t.parquet").status == 0
    made.place(1, 1).with_suffix(".jpg").write_bytes(b"gone")
    ended = called("make_report", [tmp_path / "t.parquet", tmp_path / "r.html"])
    assert ended.status == 3 and "; 1 unread" in ended.out, ended.out
    assert f"cannot be read: {made.path.name}/000000/1_1" in ended.out
    assert (tmp_path / "r.html").exists()


def test_tokens_and_failed_prompts_come_from_the_status(data):
    status = {
        "datasets": [{"name": "HPDv2", "set_aside": 3}],
        "llm": {"prompt_tokens": 12345, "completion_tokens": 678, "usd": 1.5},
    }
    data.with_name("status.json").write_text(json.dumps(status))
    page = report_of(data, "--status", data.with_name("status.json"))
    assert "12,345 tokens read, 678 written, 1.50 USD" in page
    assert "prompts of HPDv2 that failed again and again" in page


def test_measures_of_texts():
    assert texts.keeps("a red fox in the snow", "a crimson fox runs through snow") == pytest.approx(
        2 / 3
    )
    assert texts.keeps("in the", "anything") is None
    assert texts.differs(["a fox", "a fox"]) == 0 and texts.differs(["a fox"]) is None
    assert texts.differs(["red fox", "blue whale"]) == 1
    assert costs.mean_power(Counter({"NVIDIA H100": 3, "NVIDIA L4": 1})) == (3 * 700 + 72) / 4
    assert costs.mean_power(Counter({"NVIDIA H100": 3, "own card": 1})) is None
    assert histogram("words", [3, 3, 5]).bins == (2, 0, 1)
    assert histogram("x", [0.5]).bins == (1,) and sum(histogram("x", [0.1, 0.2, 7]).bins) == 3


def test_the_same_drawing_in_other_colours_is_no_copy():
    """Of a hundred flat drawings 85 were called copies: a difference hash sees no colour."""
    found = []
    for ground, shape in (("white", "red"), ("white", "blue"), ("white", "#f00808")):
        image = Image.new("RGB", (64, 64), ground)
        ImageDraw.Draw(image).rectangle((16, 16, 48, 48), fill=shape)
        data = io.BytesIO()
        image.save(data, "JPEG", quality=95)
        found.append(pictures.print_of(data.getvalue()))
    assert pictures.alike(found) == [(0, 2)]


def times(*seconds, batch=4):
    """The rows of a prompt, with their time stamps."""
    stamps = [f"2026-01-02T03:04:{second:06.3f}+00:00" for second in seconds]
    prompt = [{"generation_timestamp": stamp, "batch_size": batch} for stamp in stamps]
    return [rows.Prompt("a", prompt)]


def test_device_time_is_that_of_batches():
    """The images of a batch are ready together: they seemed to take milliseconds."""
    together = times(*[1 + 0.001 * k for k in range(10)], batch=16)
    assert costs.seconds_per_image(together) is None
    two = times(*[1 + 0.001 * k for k in range(4)], *[3 + 0.001 * k for k in range(4)])
    assert costs.seconds_per_image(two) == pytest.approx(2 / 4, rel=0.01)
    # 4 + 4 + 2: the third batch is filled up with images of the next prompt
    three = times(1, 1, 1, 1, 3, 3, 3, 3, 5, 5)
    assert costs.seconds_per_image(three) == pytest.approx(2 / 4)
    # and waits for that prompt's captions
    waited = times(1, 1, 1, 1, 3, 3, 3, 3, 55, 55)
    assert costs.seconds_per_image([*three, *waited]) == pytest.approx(2 / 4)
    assert costs.seconds_per_image(times(1, 3, 5, 7, batch=None)) == 2


def test_a_page_of_one_source_one_model_and_equal_scores(folder, to_parquet, tmp_path):
    """No bar of 100 %, no chart of one value, no model's name seven times a row."""
    made = folder()
    for prompt in range(3):
        for augmentation in range(8):
            made.add(
                prompt,
                augmentation,
                source=["sac"],
                scores={"shape": 1},
                truncated=["a", "b"] if augmentation else [],
                text_tokens=["a 90 of 77", "b 90 of 77"],
            )
    assert to_parquet(made.path, tmp_path / "t.parquet").status == 0
    page = " ".join(html.unescape(report_of(tmp_path / "t.parquet")).split())
    assert "<p>Source: <b>sac</b>, all images.</p>" in page
    assert "All images are 8 × 8 pixels." in page  # noqa: RUF001
    assert "shape: 1, of all 24 images" in page and "Histogram of shape" not in page
    strips = page.partition('id="prompts"')[2].partition("</section>")[0]
    assert strips.count("</span>the prompt itself") == 3 and "gemma2" not in strips
    assert "8 images, 7 of them here" in strips and "in turn" not in strips
    assert strips.count("<img") == 21
    assert page.partition('id="mix"')[2].partition("</section>")[0].count("<img") == 0
    cut = "21 of 24 captions are longer than a text encoder of the model reads (truncated)"
    assert f"{cut}; the end of 21 was read by none." in page


def test_a_copy_at_another_quality_looks_alike(tmp_path):
    noise = Image.effect_noise((256, 256), 90).convert("RGB")
    other = Image.effect_noise((256, 256), 90).convert("RGB")
    found = []
    for image, quality in ((noise, 95), (other, 95), (noise, 40)):
        data = io.BytesIO()
        image.resize((32, 32)).resize((512, 512)).save(data, "JPEG", quality=quality)
        found.append(pictures.print_of(data.getvalue()))
    assert pictures.alike(found) == [(0, 2)]
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 no image\xff\xd9")
    taken = pictures.Pictures(Images(str(tmp_path)))
    row = {"__key__": "torn", "image_path": "torn.jpg"}
    assert taken.print_of(row) is None and taken.take(row) is None and taken.unread == {"torn"}
