"""The status page in a real Chromium, over a real server and clients (FakePipeline, FakeOllama)."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.fakes.fake_llm import FakeOllama
from tests.fakes.page_run import HOST, ROOT, PageRun, prompts
from tests.fakes.running_server import until as wait_for


@pytest.fixture
def run(tmp_path):
    run = PageRun(tmp_path)
    yield run
    run.end()


@pytest.fixture
def llm():
    with FakeOllama() as fake:
        yield fake


def numbers(text):
    return [int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*", text)]


def figures(page):
    """What the page says of its one data set: images and the four states."""
    return page.evaluate("""() => {
        const card = document.querySelector('.dataset');
        const number = node => parseInt(node.textContent.replace(/,/g, ''));
        const states = [...card.querySelectorAll('.legend li')].map(number);
        const bar = card.querySelector('.bar').getAttribute('aria-label');
        return {images: number(card.querySelector('.figures dd')), states, bar};
    }""")


def of_document(document):
    dataset = document["datasets"][0]
    return [dataset[state] for state in ("done", "leased", "waiting", "set_aside")]


def test_the_page_follows_a_run_and_outlives_its_server(run, llm, open_page, until):
    """Its figures are those of /status and of the files while a run goes on.

    Nothing is rebuilt at an update; a killed server is reported, a restarted one is found again,
    with its history.
    """
    n, each = 40, 4
    run.start_server()
    clients = run.start_clients(prompts(n, each), each, "--ollama_hosts", llm.url)
    page = open_page(run.link, expect=["Failed to load resource", "net::ERR"])
    page.wait_for_selector(".dataset", timeout=60_000)
    page.evaluate("document.querySelector('.dataset').kept = true")

    seen = []
    while not seen or seen[-1] < n:
        before = run.get("/status")
        until(
            page,
            "polls => Number(document.documentElement.dataset.polls) >= polls + 2",
            arg=page.evaluate("Number(document.documentElement.dataset.polls)"),
        )
        shown = figures(page)
        after, json_files = run.get("/status"), run.files("*_*.json")
        assert (
            before["datasets"][0]["images"]
            <= shown["images"]
            <= after["datasets"][0]["images"]
            <= json_files
        )
        assert before["datasets"][0]["done"] <= shown["states"][0] <= after["datasets"][0]["done"]
        assert sum(shown["states"]) == n and numbers(shown["bar"])[0] == n
        seen.append(shown["states"][0])
        assert len(seen) < 60 and clients.poll() in (None, 0), run.log()
        if len(seen) == 2 or (len(seen) < 2 and shown["states"][0] > n // 3):  # in the middle of it
            break
    assert HOST in page.inner_text("#workers")
    page.wait_for_selector("#newest img")
    line = run.root / ".server" / "history.json"
    points = wait_for(
        lambda: json.loads(line.read_text()).get("page test"), "the line of the run's life"
    )["points"]
    os.killpg(run.server.pid, signal.SIGKILL)
    run.server.wait()
    page.wait_for_selector("#away:not([hidden])", timeout=40_000)
    assert "does not answer" in page.inner_text("#away") and "as of" in page.inner_text("#away")
    assert page.is_visible(".dataset")  # what is known stays
    run.start_server()
    page.wait_for_selector("#away", state="hidden", timeout=40_000)

    assert clients.wait(120) == 0, run.log()
    until(page, "n => parseInt(document.querySelector('.legend li').textContent) === n", arg=n)
    document = run.get("/status")
    shown = figures(page)
    assert shown["states"] == of_document(document) == [n, 0, 0, 0]
    assert (
        shown["images"]
        == document["datasets"][0]["images"]
        == n * each
        == run.files("*_*.json")
        == run.files("*_*.jpg")
    )
    assert (
        document["server"]["epoch"] == 2
        and document["datasets"][0]["history"][: len(points)] == points
    )
    assert page.evaluate("document.querySelector('.dataset').kept"), (
        "the page was rebuilt or loaded again"
    )
    assert "finished" in page.inner_text(".dataset")
    assert document["llm"]["calls"] > 0 and page.locator("#llm tr").count() == len(
        document["llm"]["backends"]
    )
    assert f"{document['llm']['calls']:,} calls" in page.inner_text("#llm-summary")
    metrics = run.get("/metrics").decode()
    assert f'generate_images_total{{dataset="page test"}} {float(n * each)}' in metrics
    assert f'generate_prompts{{dataset="page test",state="done"}} {float(n)}' in metrics

    # the viewer, by keyboard
    until(page, "document.querySelectorAll('#newest li').length >= 3")
    page.locator("#newest button:visible").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    page.wait_for_selector("#viewer-facts dd")
    heading = page.inner_text("#viewer-heading")
    facts = page.evaluate(
        "[...document.querySelectorAll('#viewer-facts dt')]"
        ".map(dt => [dt.textContent, dt.nextSibling.textContent])"
    )
    index, aug = heading.rsplit(" ", 1)[1].split("_")
    sample = json.loads(
        next(
            (run.root / "generated_images" / "page test").glob(f"*/{index}_{aug}.json")
        ).read_text()
    )
    assert (
        dict(facts)["image_sha256"] == sample["image_sha256"]
        and dict(facts)["augmented_prompt"] == sample["augmented_prompt"]
    )
    assert dict(facts)["seed"] == str(sample["seed"]), "not rounded to what JavaScript can count"
    assert page.evaluate("document.querySelector('#viewer-image').naturalWidth") == 64
    page.keyboard.press("ArrowRight")
    until(page, "was => document.querySelector('#viewer-heading').textContent !== was", arg=heading)
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.evaluate("document.activeElement.closest('#newest') !== null"), (
        "the focus is back where it was"
    )


def test_what_failed_is_named_with_its_log_and_a_command_that_works(run, llm, open_page, until):
    run.environment["FAKE_BLACK"] = "poison"
    run.start_server("--max_marks", 2)
    poison = {"prompt": "a poison <b>bottle</b>", "variations": ["poison again"]}
    texts = [poison, *prompts(6, 2)[1:]]
    assert run.start_clients(texts, 2, "--ollama_hosts", llm.url, workers=2).wait(120) in (0, 3), (
        run.log()
    )
    page = open_page(run.link)
    page.wait_for_selector("#failed tr")
    text = page.inner_text("#failed-section")
    (row,) = run.get("/status")["set_aside"]["rows"]
    assert (
        (row["index"], row["prompt"]) == (0, "a poison <b>bottle</b>")
        and "a poison <b>bottle</b>" in text
        and "image:" in text
        and HOST in text
    )
    assert row["errors"] and all((run.root / error["log"]).exists() for error in row["errors"])
    assert any(
        error["log"] in text for error in row["errors"]
    )  # errors that say the same are merged on the page
    assert figures(page)["states"] == [5, 0, 0, 1] and "failed" in page.inner_text("#health")
    command = shlex.split(page.inner_text("#failed-command"))
    assert (
        command[0] == "python"
        and subprocess.run(
            [sys.executable, *command[1:]], cwd=ROOT, env=run.environment, capture_output=True
        ).returncode
        == 0
    )
    page.wait_for_selector("#failed-section", state="hidden")
    until(
        page, "parseInt(document.querySelectorAll('.legend li')[2].textContent) === 1"
    )  # it waits again
