"""What page and --status say of a run beside its counts.

Whose texts its images show, what was rejected and why, and what is packed.
"""

import io
import json
import os

import pytest
from PIL import Image

from generate.dataset.rejected_images import RejectedImages
from generate.launch.status import render
from generate.protocol.fields import BadField, Fields
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits, LiveLeases
from generate.server.ledger.origins import MOST_NAMES, OTHERS, SHOWN, reported, section, tally
from generate.server.ledger.queries import Queries
from generate.server.ledger.rejected import KEPT, refused_by
from generate.server.ledger.rejected import reported as rejected_of
from generate.server.page import folder_extras
from generate.server.page.folder_extras import FolderExtras
from generate.server.page.history import RunHistory
from generate.server.page.newest import rejected_address
from generate.server.page.status import StatusDocument
from generate.server.storage.store import open_store
from postprocess_dataset.packing.pack_folder import Packing
from tests.fakes.fake_llm import FakeOllama
from tests.fakes.fake_run import FakeRun
from tests.fakes.ledger_run import Run
from tests.fakes.running_server import until as wait_for
from tests.fakes.signed_caller import signed
from tests.generate.test_accept import ACCEPT
from tests.generate.test_server_packed import generate_all, name_themselves

# ---------------------------------------------------------------- a run with --accept and an LLM


@pytest.fixture
def llm():
    with FakeOllama() as fake:
        yield fake


def test_images_are_counted_by_llm_and_what_was_rejected_is_told(start_run, llm):
    options = [*ACCEPT, "--ollama_hosts", llm.url, "--keep_rejected", 20]
    run, server = start_run(total=6, images=4, variations=False, options=options)
    assert run.start().wait(60) == 0, run.log()
    records = [json.loads(path.read_bytes()) for path in run.data.glob("*/*_*.json")]
    by_llm = {}
    for record in records:
        name = record["llm_model_name"] or "original prompt"
        counts = by_llm.setdefault(name, [0, 0, 0])
        counts[0] += 1
        counts[1] += 1
        counts[2] += len(record["rejected"])
    assert len(by_llm) == 2
    dataset = server.dataset("birds")
    origins = dataset["origins"]
    told = {
        row["name"]: [row["captions"], row["images"], row["rejected"]] for row in origins["llm"]
    }
    assert told == by_llm
    assert [row["name"] for row in origins["source"]] == ["no source"]
    assert origins["source"][0]["share"] == dataset["acceptance"]["share"]
    shares = ", ".join(
        f"{row['name']} {row['images'] / (row['images'] + row['rejected']):.0%} of "
        f"{row['images'] + row['rejected']}"
        for row in origins["llm"]
    )
    shown = run.run("--status", task=False).stdout
    assert f"accepted by LLM: {shares}\n" in shown and "(model " in shown
    assert f"accepted by LLM: {shares}\n" in run.run("--dry_run", task=False).stdout

    def rows():  # their texts are read by a thread that looks into the folders
        found = server.status()["rejected_lately"]
        return found if found and all(row["prompt"] and row["image"] for row in found) else None

    by_name = {(r["prompt_index"], r["augmentation_idx"]): r for r in records}
    for row in wait_for(rows, "the texts of the rejected ones"):
        record = by_name[row["index"], row["aug"]]
        seeds = {str(each["seed"]): each["scores"] for each in record["rejected"]}
        assert row["scores"] == seeds[row["seed"]]
        assert row["refused_by"] == ["luck > 0"] and row["dataset"] == "birds"
        assert row["prompt"] == record["augmented_prompt"] and row["try"] >= 1
        status, headers, image = signed(run.root, "GET", row["image"])
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        with Image.open(io.BytesIO(image)) as opened:
            kept = json.loads(opened.info["comment"])
        assert (str(kept["seed"]), kept["accepted"]) == (row["seed"], False)
    shown = row["image"]
    file = run.root / "rejected_images" / shown.removeprefix("/rejected/").partition("/")[0]
    file = next(file.glob(f"*/*/{shown.split('/')[-2]}.try{shown.split('/')[-1]}.jpg"))
    file.unlink()
    file.symlink_to(run.root / ".server" / "server.json")
    for path in (shown, shown + "0", "/rejected/../0_0/0", shown.replace("birds", "%2e%2e")):
        assert signed(run.root, "GET", path)[0] in (401, 404), path


# ---------------------------------------------------------------- counts by LLM and source


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "ledger.sqlite", epoch=1)
    yield store
    store.connection.close()


def queries_of(store):
    return Queries(store, None, LiveLeases(LeaseLimits(), 0))


def test_names_are_bounded_and_nothing_is_lost(store):
    """More sources than are counted apart or shown: the sums stay right."""
    n = MOST_NAMES + 20
    with store.transaction():
        for k in range(n):
            tally(store, "HPDv2", [{"origins": {("source", f"source {k}"): [10, 9, k]}}] * 2)
    rows = queries_of(store).origins("HPDv2")
    assert len(rows) == MOST_NAMES + 1
    assert [sum(row[k] for row in rows) for k in (2, 3, 4)] == [20 * n, 18 * n, n * (n - 1)]
    shown = section(queries_of(store), "HPDv2", judged=True)["source"]
    assert len(shown) == SHOWN and shown[-1]["name"] == OTHERS
    assert sum(row["images"] for row in shown) == 18 * n
    assert section(queries_of(store), "HPDv2", judged=False)["source"][0]["share"] is None


def test_more_images_a_prompt_are_counted_anew(tmp_path):
    """Each prompt is done again and told as a whole: its first images counted twice."""
    run = Run(tmp_path, total=4)
    store = run.ledger.store
    with store.transaction():
        tally(store, "d", [{"origins": {("llm", "gemma"): [1, 1, 0]}}])
    run.define(total=8)
    assert queries_of(store).origins("d") == [("llm", "gemma", 1, 1, 0)]
    run.define(total=8, images_per_prompt=2)
    assert queries_of(store).origins("d") == []


def test_a_ledger_of_before_gets_the_table(tmp_path):
    store = open_store(tmp_path / "ledger.sqlite", epoch=1)
    store.connection.execute("DROP TABLE origins")
    store.connection.close()
    store = open_store(tmp_path / "ledger.sqlite", epoch=2)
    assert store.lost is None and store.all("SELECT * FROM origins") == []
    store.connection.close()


@pytest.mark.parametrize(
    "told",
    [
        {"llm": {"a": [1, 2]}},
        {"llm": {"a": [1, 2, -1]}},
        {"llm": {"a": "many"}},
        {"source": {str(k): [1, 1, 0] for k in range(51)}},
        [],
    ],
)
def test_a_report_of_another_form_is_refused(told):
    with pytest.raises(BadField):
        reported(Fields({"origins": told}))


def test_a_name_is_made_harmless():
    told = {"llm": {"a\ud800\x1b[31m" + 300 * "x": [1, 1, 0]}, "other": {"b": 1}}
    (((kind, name), counts),) = reported(Fields({"origins": told}))["origins"].items()
    assert (kind, counts) == ("llm", [1, 1, 0])
    assert name.startswith("a\\ud800\\x1b[31mxx") and len(name) == 100
    assert reported(Fields({})) == {"origins": {}}


# ---------------------------------------------------------------- rejected lately


def told(number, index, aug=0, seed=None):
    scores = {"luck": -1.0}
    return {
        "number": number,
        "index": index,
        "aug": aug,
        "attempt": 0,
        "seed": number if seed is None else seed,
        "scores": scores,
    }


def beat(live, now, entries, rejected, client="client-1"):
    live.heartbeat(
        now,
        Heartbeat(
            client, [], "drawing", dataset="HPDv2", rejected=rejected, rejected_lately=entries
        ),
    )


def names(live):
    return [(index, row["at"]) for (_, index, _), row in live.rejected.newest()]


def test_a_heartbeat_tells_again_what_it_told_before():
    live = LiveLeases(LeaseLimits(), 0)
    beat(live, 1, [told(1, 7), told(2, 8)], rejected=2)
    beat(live, 2, [told(1, 7), told(2, 8), told(3, 9)], rejected=3)
    assert names(live) == [(9, 2), (8, 1), (7, 1)]
    beat(live, 3, [told(4, 7, seed=44)], rejected=4)  # another try: the newest of its caption
    assert names(live) == [(7, 3), (9, 2), (8, 1)]
    for k in range(2 * KEPT):
        beat(live, 10 + k, [told(5 + k, 100 + k)], rejected=5 + k)
    assert len(names(live)) == KEPT and names(live)[0][0] == 99 + 2 * KEPT
    beat(live, 90, [told(4, 7), told(5, 100)], rejected=4 + 2 * KEPT)  # pushed out: not new
    assert names(live)[0][0] == 99 + 2 * KEPT
    restarted = LiveLeases(LeaseLimits(), 0)
    beat(restarted, 1, [told(3, 9)], rejected=3)
    assert names(restarted) == [(9, 1)]


def test_what_a_heartbeat_may_tell():
    entry = told(1, 7) | {"scores": {"luck": 0.5, "odd": "text", **{f"s{k}": 1 for k in range(20)}}}
    (row,) = rejected_of(Fields({"rejected_lately": [entry]}))
    assert (
        row["scores"]["luck"] == 0.5 and row["scores"]["odd"] is None and len(row["scores"]) == 10
    )
    assert rejected_of(Fields({})) == rejected_of(Fields({"rejected_lately": []})) == []
    for wrong in ([entry] * 17, [entry | {"seed": -1}], [entry | {"scores": 3}], "many", [3]):
        with pytest.raises(BadField):
            rejected_of(Fields({"rejected_lately": wrong}))


def test_what_is_not_safe_for_work_is_not_shown(tmp_path):
    kept = RejectedImages(tmp_path / "generated_images" / "HPDv2", 1).path_of(7, 3, 1)
    kept.parent.mkdir(parents=True)
    row = {"dataset": "HPDv2", "index": 7, "aug": 3, "try": 2, "refused_by": ["clip > 0.26"]}
    assert rejected_address(tmp_path, row) is None
    kept.write_text("an image")
    assert rejected_address(tmp_path, row) == "/rejected/HPDv2/7_3/1"
    row["refused_by"].append("nsfw < 0.2")
    assert rejected_address(tmp_path, row) is None


def test_the_conditions_that_refuse_an_image():
    accept = "clip > 0.26 and nsfw < 0.2 and (a > 1 or b > 1)"
    assert refused_by(accept, {"clip": 0.2, "nsfw": 0.1, "a": 2}) == ["clip > 0.26"]
    assert refused_by(accept, {"clip": 0.3, "nsfw": None, "a": 0, "b": 0}) == [
        "nsfw < 0.2",
        "a > 1 or b > 1",
    ]
    assert refused_by(None, {}) == refused_by("import os", {}) == []


# ---------------------------------------------------------------- packed folders


def test_packed_folders_are_found_by_their_names_a_few_at_a_time(start, monkeypatch):
    """Nothing is listed, a mark is read once, and a look asks for so many marks at most."""
    server = start()
    generate_all(server.client(total=3))
    folder = server.root / "generated_images" / "storm" / "000000"
    wait_for((folder / "COMPLETE").exists, "the mark")
    name_themselves(folder)
    assert server.dataset()["packed"] in (None, {"folders": 0, "of": 1, "images": 0})
    assert Packing(folder).run().prompts == 3
    packed = {"folders": 1, "of": 1, "images": 6}
    wait_for(lambda: server.dataset()["packed"] == packed, "the packed folder")

    looks = []
    read = []
    stat, untrusted = os.stat, folder_extras.read_untrusted
    monkeypatch.setattr(os, "scandir", None)
    monkeypatch.setattr(os, "listdir", None)
    monkeypatch.setattr(
        folder_extras.os,
        "stat",
        lambda path, **kwargs: (looks.append(path), stat(path, **kwargs))[1],
    )
    monkeypatch.setattr(
        folder_extras, "read_untrusted", lambda *args: (read.append(args), untrusted(*args))[1]
    )
    monkeypatch.setattr(folder_extras, "MARKS_A_LOOK", 4)
    found = FolderExtras(server.root)
    for k in range(6):  # ten folders: three looks for a round
        looks.clear()
        found.look([("storm", 10_000)])
        assert sum(path.name == "PACKED" for path in looks) <= 4 and len(looks) < 10
        whole = {"folders": 1, "of": 10, "images": 6} if k >= 2 else None
        assert found.of("storm")["packed"] == whole
    assert len(read) == 1
    (folder / "PACKED").write_text("torn")
    found.look([("storm", 10_000)])
    found.look([("storm", 10_000)])
    found.look([("storm", 10_000)])
    assert found.of("storm")["packed"]["images"] == 0
    assert found.of("another") == {"packed": None, "report": None}


def test_the_status_on_a_terminal_says_it_too(tmp_path):
    run = FakeRun(tmp_path, 5000)
    document = run.read(StatusDocument(run, RunHistory(tmp_path / "history.json")).make)
    packed = {"folders": 12, "of": 107, "images": 2_400_000}
    document["datasets"][0] |= {"packed": packed, "report": {"file": "x/report.html"}}
    first, _, other = render(document, output_root="/data").partition("shapes & more")
    assert "(model stabilityai/stable-diffusion-3-medium-diffusers)" in first
    assert "accepted by LLM: llama3.1:8b 82% of 4,899,400, openai" in first
    assert "accepted by source: HPDv2 83% of 5,799,400, pickscore 74% of 1,611,687\n" in first
    assert "12 of 107 folders are packed, with 2,400,000 images\n" in first
    assert "report: /data/x/report.html\n" in first
    assert "images by source: HPDv2 4,799,400\n" in other
    assert "packed" not in other and "report" not in other and "accepted" not in other
    document["datasets"][0].pop("origins")  # of a server of before
    assert "by LLM" not in render(document)
