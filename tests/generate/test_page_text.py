"""Foreign text on the page and in its metrics: no control, bidi or invisible character as it is."""

import json
import sys
import unicodedata

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.console import visible
from generate.server.page import metrics
from generate.server.page.history import RunHistory
from generate.server.page.status import StatusDocument
from tests.fakes import fake_run

TURN = "\x1b[31m\u202e\u2066\n\x00\x7f\x9b\u200b\u2028\ufeff\U000e0041"
ADDRESSES = {"report", "image", "original", "dataset"}  # what the page asks for
SHOWN = """() => {
    const texts = [document.title];
    const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) texts.push(walk.currentNode.data);
    for (const node of document.querySelectorAll('*'))
        for (const {name, value} of node.attributes)
            if (!['data-key', 'class'].includes(name)) texts.push(value);
    return texts.filter(text => text.trim());
}"""


@pytest.fixture
def run(tmp_path):
    run = fake_run.serve(tmp_path)
    yield run
    run.close()


def hostile(value):
    """The value with TURN at the end of each of its texts, and of each name of a count."""
    if isinstance(value, dict):
        return {key: each if key in ADDRESSES else hostile(each) for key, each in value.items()} | {
            f"{key}{TURN}": each for key, each in value.items() if type(each) is int
        }
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return value + TURN if isinstance(value, str) else value


def harmful(texts):
    """Those that a terminal would be shown otherwise; not the markup's own ends of lines."""
    return [text for text in texts if visible(text.strip(), 10**6) != text.strip()]


def test_no_foreign_text_turns_the_page_around(run, open_page):
    page = open_page("about:blank")

    def turned(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps(hostile(answer.json())))

    for address in ("**/status*", "**/sample/**"):
        page.route(address, turned)
    page.goto(run.link())
    page.wait_for_selector("#newest img", state="attached")
    page.wait_for_selector("#rejected .caption", state="attached")
    page.locator("#newest button:visible").first.click()
    page.wait_for_selector("#viewer-facts dd", state="attached", timeout=30_000)
    shown = page.evaluate(SHOWN)
    assert harmful(shown) == []
    told = visible(TURN)
    for part in ("server", "datasets", "errors", "workers", "failed", "quarantine", "llm"):
        assert told in page.text_content(f"#{part}"), part
    for part in ("health", "newest", "rejected", "viewer-facts", "viewer-prompt"):
        assert told in page.text_content(f"#{part}"), part
    assert told in page.get_attribute("#viewer-image", "alt")


def test_the_page_shows_a_text_as_a_terminal_does(run, open_page):
    """Every character that has a name in both; of two versions of Unicode one knows more."""
    page = open_page(run.link())
    text = "".join(
        chr(number)
        for number in range(sys.maxunicode + 1)
        if unicodedata.category(chr(number)) not in ("Cs", "Cn", "Co")
    )
    assert page.evaluate("text => visible(text)", text) == visible(text, 10**8)


def test_no_label_of_the_metrics_turns_a_line_around(run, tmp_path):
    ledger, totals = run.ledger, run.accounts.totals()
    backend = f"groq{TURN}\ud800"
    run.accounts.totals = lambda: {backend: totals["groq"]}
    document = StatusDocument(run, RunHistory(tmp_path / "history.json")).make(ledger, 1000.0)
    text = metrics.text(document).decode()
    assert harmful(text.splitlines()) == []
    labels = [
        sample.labels["backend"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "backend" in sample.labels
    ]
    assert set(labels) == {visible(backend)}
