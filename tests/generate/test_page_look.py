"""The status page in a real Chromium over a made-up run (tests/fakes/fake_run.py).

Its looks at phone and desk width, accessibility, a run of 1,000 workers with 50,000 failed prompts,
a halted run, and memory over many polls.
"""

import json
import os
import shutil
import threading
import urllib.request
from pathlib import Path

import pytest

from generate.dataset.layout import path_of
from generate.dataset.rejected_images import RejectedImages
from generate.protocol.output_root import dataset_folder
from generate.server.page import status as status_module
from generate.server.page import watch
from tests.fakes import fake_run
from tests.fakes.fake_run import EVIL

AXE = Path(__file__).resolve().parent.parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture
def start(tmp_path):
    runs = []

    def start_(**kwargs):
        runs.append(fake_run.serve(tmp_path, **kwargs))
        return runs[-1]

    yield start_
    for run in runs:
        run.close()


def link(run):
    return run.link()


def status(run, query="", timeout=20):
    request = urllib.request.Request(
        f"http://127.0.0.1:{run.port}/status{query}",
        headers=run.cookie(),
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_at_every_width_and_scheme(start, open_page, width, scheme):
    """axe-core finds no violation: the page, a halted run, the viewer; nothing is too wide.

    PAGE_SCREENSHOTS=folder keeps pictures.
    """
    if not AXE.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "axe-core is missing: npm install --prefix tests axe-core (make test does it)"
        )
    run = start()
    keep_a_rejected_image(run)
    page = open_page(link(run), width, scheme)
    page.wait_for_selector("#newest li")
    page.wait_for_selector("#rejected img")
    assert page.evaluate("document.querySelector('#rejected img').alt").startswith("Rejected: in ")
    assert EVIL in page.inner_text("#failed") and 'gpu000"<b>' in page.inner_text("#workers")
    assert "nsfw < 0.2" in page.inner_text("#rejected")
    keep(page, f"page_{width}_{scheme}")
    no_violation(page)
    summary = page.locator(".dataset").first.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".dataset tbody tr:visible")
    keep(page, f"origins_{width}_{scheme}")
    no_violation(page)
    summary.click()
    if width == 1600:
        page.locator("#newest li").nth(1).locator("button").nth(1).click()
        page.wait_for_selector("#viewer-facts dd")
        keep(page, f"viewer_{width}_{scheme}")
        no_violation(page)
        page.keyboard.press("Escape")
    run.ledger.halted = True
    page.wait_for_selector("#health:not([hidden])")
    text = page.inner_text("#health")
    assert (
        "No space left on device" in text
        and "df -h" in text
        and "812345_7.out" in text
        and page.title().startswith("⚠")
    )
    top = page.evaluate("[...document.querySelectorAll('main > :not([hidden])')][0].id")
    assert top == "health"  # the first thing on the page
    keep(page, f"halted_{width}_{scheme}")
    no_violation(page)


def test_what_the_page_says_of_a_run(start, open_page):
    """Incomplete prompts, quarantine with its command, LLM backends with failures, times and money.

    A variation beside its original, the bar's and the plot's text alternatives.
    """
    run = start()
    page = open_page(link(run))
    page.wait_for_selector("#newest li")
    document = status(run)
    card = page.locator(".dataset").first
    assert all(
        part in card.inner_text()
        for part in ("30,000 done (41 incomplete)", "913 images fewer", "412 preempted")
    )
    assert "30,000 done (28.0 %)" in card.locator(".bar").get_attribute("aria-label")
    widths = page.evaluate(
        "[...document.querySelector('.dataset .bar').children]"
        ".map(part => part.getBoundingClientRect().width)"
    )
    assert (
        widths[0] / sum(widths) == pytest.approx(30_000 / 107_000, abs=0.02) and widths[3] >= 2
    )  # 23 of 107,000 can still be seen
    quarantine = page.inner_text("#quarantine")
    for part in (
        "gpu13 GPU-dead",
        "5 failures",
        "probe in 5 min",
        "2 × gpu: CUDA error",  # noqa: RUF001
        "log 812345_7.out",
        "--release_quarantine gpu13",
    ):
        assert part in quarantine or part.replace("5 min", "4 min") in quarantine, part
    assert document["quarantined"][0]["command"] in quarantine
    paid, free = (row.replace("\t", " ") for row in page.locator("#llm tr").all_inner_texts())
    b = {backend["name"]: backend for backend in document["llm"]["backends"]}
    for part in (
        "llama3.1:8b",
        "123,456",
        "31 timeout",
        "512 bad_json",
        "12.3M / 34.6M",
        "$0.00",
        f"{b['ollama gpu01']['p50_s']:.1f} / {b['ollama gpu01']['p95_s']:.1f} s",
    ):
        assert part in free, (part, free)
    for part in (
        "backoff for 1 h 1 min",
        "429: 30 requests a minute",
        "800 rate_limit",
        "$3.46",
        "of $25.00",
    ):
        assert part in paid, (part, paid)
    assert "accepted of 7.41M tries\n80.9 %" in card.locator(".figures").inner_text()
    assert "clip > 0.26: 17.5 %, nsfw < 0.2: 2.0 %. 812 captions given up" in card.inner_text()
    summary = card.locator("summary")
    assert summary.inner_text().startswith("Accepted by LLM: llama3.1:8b 81.6 %, ")
    summary.click()
    by_llm, by_source = (table.inner_text() for table in card.locator("table").all())
    assert "llama3.1:8b\t4,000,000\t3,999,400\t81.6 %" in by_llm
    assert "pickscore\t1,200,000\t1,199,687\t74.4 %" in by_source
    other = page.locator(".dataset").nth(1)
    assert "accepted" not in other.inner_text().lower() and other.locator("summary").is_hidden()
    page.wait_for_selector("#rejected .caption")  # texts come with the next look into the folders
    rejected = page.locator("#rejected li").nth(1).inner_text()
    for part in (
        "fails clip > 0.26",
        "fails nsfw < 0.2",
        "clip 0.213, nsfw 0.31",
        "in variation 2, a red circle above a blue square, number 1",
        "HPDv2 1_2, try 2",
        "seed 1078089835635643068",
    ):
        assert part in rejected, (part, rejected)
    newest = page.locator("#newest li").filter(has_text="number 1").first
    assert (
        newest.locator("img").count() == 2
        and "Original prompt: a red circle above a blue square, number 1" in newest.inner_text()
    )


def keep_a_rejected_image(run):
    """As --keep_rejected does, of an image that fails the condition on clip alone."""
    (key, row), *others = run.ledger.rejected_lately()
    row["scores"] = {"clip": 0.2134567, "nsfw": 0.1}
    run.ledger.rejected_lately = lambda: [(key, row), *others]
    folder = dataset_folder(run.output_root, "HPDv2")
    kept = RejectedImages(folder, 1).path_of(*key[1:], row["attempt"])
    kept.parent.mkdir(parents=True)
    shutil.copy(path_of(folder, 1, 1, ".jpg"), kept)


def no_violation(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document)")
    assert [
        (v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found["violations"]
    ] == []
    assert len(found["passes"]) > 15


def keep(page, name):
    if os.environ.get("PAGE_SCREENSHOTS"):
        page.screenshot(
            path=os.path.join(os.environ["PAGE_SCREENSHOTS"], f"{name}.png"),
            full_page=not name.startswith("viewer"),
        )


def test_a_thousand_workers_and_fifty_thousand_failed_prompts_come_in_pages(
    start, open_page, until
):
    run = start(workers=1000, failed=50_000)
    page = open_page(link(run))
    page.wait_for_selector("#failed tr")
    assert page.locator("#workers tr").count() == 50 and page.locator("#failed tr").count() == 10
    assert "1,000 clients" in page.inner_text("#workers-summary") and "50,000" in page.inner_text(
        "#failed-heading"
    )
    page.click("#failed-pager button:last-child")
    until(page, "document.querySelector('#failed small').textContent.endsWith(' 10')")
    page.click("#workers-pager button:last-child")
    until(page, "document.querySelector('#workers-pager span').textContent === 'Page 2 of 20'")
    assert page.locator("#failed-pager span").inner_text() == "Page 2 of 5,000"
    page.click("#workers-pager button:first-child")
    until(page, "document.querySelector('#workers-pager span').textContent === 'Page 1 of 20'")

    last = status(run, "?set_aside_page=4999&workers_page=19")
    assert [row["index"] for row in last["set_aside"]["rows"]] == list(
        range(49_990, 50_000)
    ) and len(last["workers"]["rows"]) == 50
    assert len(json.dumps(last)) < 200_000
    run.ledger.rows_read = 0
    for _ in range(20):
        status(run, "?set_aside_page=77")
    assert run.ledger.rows_read <= 10 * 20, "a poll reads one page, not all"


def test_a_poll_waits_for_no_lock_and_holds_none(start):
    """While the ledger is busy /status answers with its last look; 50 polls leave it free."""
    run = start()
    first = status(run)
    with run.lock:
        assert status(run, timeout=5)["datasets"][0]["name"] == first["datasets"][0]["name"]
    looks, read = [], run.read
    run.read = lambda function: (looks.append(1), read(function))[1]
    threads = [threading.Thread(target=status, args=(run,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks) < 25, "polls share the looks of one thread"


def test_a_ledger_that_hangs_halts_the_run(start, open_page, monkeypatch):
    monkeypatch.setattr(watch, "STALE_S", 3)
    run = start()
    page = open_page(link(run))
    page.wait_for_selector(".dataset")
    with run.lock:
        page.wait_for_selector("#health.bad")
        assert "has not answered for" in page.inner_text("#health") and page.is_visible(".dataset")
    page.wait_for_selector("#health", state="hidden")


def test_slow_workers_come_first_and_stand_out(start, open_page, monkeypatch):
    monkeypatch.setattr(status_module, "SLOW_AFTER_S", 0)
    run = start()
    ticking = threading.Event()
    threading.Thread(
        target=lambda: [
            setattr(run.ledger, "step", run.ledger.step + 1)
            for _ in iter(lambda: ticking.wait(0.5), True)
        ],
        daemon=True,
    ).start()
    page = open_page(link(run))
    page.wait_for_selector("#workers tr.slow", timeout=30_000)
    ticking.set()
    assert (
        page.locator("#workers tr.slow").count() == 1
        and "GPU-8f3c0007" in page.locator("#workers tr").first.inner_text()
    )
    assert "slow" in page.locator("#workers tr").first.inner_text() and "1 slow" in page.inner_text(
        "#workers-summary"
    )


def memory_over(page, run, polls, until):
    """[(polls, bytes of the JavaScript heap, DOM nodes)] at each quarter, with a fast clock."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    measured = []
    for k in range(polls):
        run.ledger.step += 1
        run.ledger.n_workers = 10 + k % 30  # rows come and go; each quarter ends with as many
        before = page.evaluate("Number(document.documentElement.dataset.polls)")
        page.clock.run_for(2100)
        until(page, "before => Number(document.documentElement.dataset.polls) > before", before)
        if (k + 1) % (polls // 4) == 0:
            session.send("HeapProfiler.enable")
            session.send("HeapProfiler.collectGarbage")
            metrics = {
                metric["name"]: metric["value"]
                for metric in session.send("Performance.getMetrics")["metrics"]
            }
            measured.append((k + 1, metrics["JSHeapUsedSize"], metrics["Nodes"]))
    return measured


@pytest.mark.parametrize(
    "polls", [120, pytest.param(2040, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])]
)
def test_memory_stays_flat(start, open_page, until, polls, monkeypatch):
    monkeypatch.setattr(watch, "EVERY_S", 0.02)  # a new document for nearly every poll
    monkeypatch.setattr(watch, "NEWEST_EVERY_S", 0.5)
    run = start()
    page = open_page("about:blank")
    page.clock.install()
    page.goto(link(run))
    page.wait_for_selector("[data-polls]")
    measured = memory_over(page, run, polls, until)
    print(measured)
    (_, heap, nodes), (_, heap_end, nodes_end) = measured[1], measured[-1]
    assert heap_end < heap * 1.1 + 300_000 and nodes_end < nodes + 200, measured
