"""The status page in a real Chromium, over a real server and real clients (FakePipeline, FakeOllama)."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.fakes.fake_llm import FakeOllama
from tests.fakes.fake_run import EVIL

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "gpu\"01'<b>"


class Run:
    """A job server and clients over one output root, as the README starts them."""

    def __init__(self, folder):
        self.folder, self.root, self.processes = folder, folder / "outputs", []
        self.environment = {
            k: v
            for k, v in os.environ.items()
            if k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
        } | {
            "SLURMD_NODENAME": HOST,
            "FAKE_BATCH_S": "0.4",
        }
        self.server = None

    def start(self, *command):
        with open(self.folder / "processes.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_server(self, *options):
        self.server = self.start(
            "generate/image_server.py",
            "--output_root",
            self.root,
            "--host",
            "127.0.0.1",
            "--ttl_s",
            20,
            "--beat_s",
            1,
            *options,
        )
        wait_for(
            lambda: self.known() and self.known()["pid"] == self.server.pid and self.answers(),
            "the server",
        )

    def start_clients(self, prompts, images, *options, workers=2):
        path = self.folder / "page test.json"
        path.write_text(json.dumps(prompts))
        return self.start(
            "generate/generate_images.py",
            path,
            "--pipeline",
            "tests/fakes/fake_pipeline.py:FakePipeline",
            "--output_root",
            self.root,
            f"--num_workers={workers}",
            f"--expected_samples_per_index={images}",
            "--resolution=64",
            "--batch_size=2",
            "--max_chunk_size=3",
            *options,
        )

    def known(self):
        path = self.root / ".server" / "server.json"
        return json.loads(path.read_text()) if path.exists() else None

    def answers(self):
        try:
            return self.get("/status")
        except (OSError, ValueError):
            return None

    def get(self, path, token=None, cookie=None):
        known = self.known()
        headers = (
            {"Cookie": cookie} if cookie else {"Authorization": f"Bearer {token or known['token']}"}
        )
        with urllib.request.urlopen(
            urllib.request.Request(known["url"].rstrip("/") + path, headers=headers), timeout=20
        ) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    @property
    def link(self):
        return f"{self.known()['url'].rstrip('/')}/?token={self.known()['token']}"

    def files(self, pattern):
        return len(list((self.root / "generated_images").glob(f"*/*/{pattern}")))

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.end()


@pytest.fixture
def llm():
    with FakeOllama() as fake:
        yield fake


def wait_for(condition, what, seconds=90):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return found


def prompts(n, each):
    """n prompts; the first is markup and brings its own variations, the LLM is asked for those of the others."""
    evil = {
        "prompt": EVIL,
        "source": ["test"],
        "variations": [f"{EVIL}, seen {k}" for k in range(1, each)],
    }
    return [evil] + [
        {"prompt": f"a lighthouse number {i} in the fog", "source": ["test"]} for i in range(1, n)
    ]


def numbers(text):
    return [int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*", text)]


def figures(page):
    """What the page says of its one data set: images and the four states."""
    return page.evaluate("""() => {
        const card = document.querySelector('.dataset'), number = text => parseInt(text.replace(/,/g, ''));
        const states = [...card.querySelectorAll('.legend li')].map(item => number(item.textContent));
        const bar = card.querySelector('.bar').getAttribute('aria-label');
        return {images: number(card.querySelector('.figures dd').textContent), states, bar};
    }""")


def of_document(document):
    dataset = document["datasets"][0]
    return [dataset[state] for state in ("done", "leased", "waiting", "set_aside")]


def test_the_page_follows_a_run_and_outlives_its_server(run, llm, open_page, until):
    """Its figures are those of /status and of the files while a run goes on; nothing is rebuilt at an update; a killed server is reported,
    a restarted one is found again, with its history."""
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
        assert len(seen) < 60 and clients.poll() in (None, 0), (
            run.folder / "processes.log"
        ).read_text()[-3000:]
        if len(seen) == 2 or (len(seen) < 2 and shown["states"][0] > n // 3):  # in the middle of it
            break
    assert HOST in page.inner_text("#workers")
    page.wait_for_selector("#newest img")
    line = run.root / ".server" / "history.json"
    points = wait_for(
        lambda: json.loads(line.read_text()).get("page test"), "the line of the run's life"
    )["points"]
    port = run.known()["url"].rstrip("/").rsplit(":", 1)[1]
    os.killpg(run.server.pid, signal.SIGKILL)
    run.server.wait()
    page.wait_for_selector("#away:not([hidden])", timeout=40_000)
    assert "does not answer" in page.inner_text("#away") and "as of" in page.inner_text("#away")
    assert page.is_visible(".dataset")  # what is known stays
    run.start_server("--port", port)
    page.wait_for_selector("#away", state="hidden", timeout=40_000)

    assert clients.wait(120) == 0, (run.folder / "processes.log").read_text()[-3000:]
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
        "[...document.querySelectorAll('#viewer-facts dt')].map(dt => [dt.textContent, dt.nextSibling.textContent])"
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


def test_nothing_without_the_token(run, open_page):
    run.start_server()
    url = run.known()["url"].rstrip("/")
    for path in (
        "/",
        "/status",
        "/metrics",
        "/page.js",
        "/image/x/0_0",
        "/sample/x/0_0",
        "/?token=wrong",
        "/?token=",
    ):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Cookie": f"status_{run.known()['run_id'][:12]}=wrong"},
            {"Authorization": "Bearer tök"},
        ):
            headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(url + path, headers=headers))
            assert refused.value.code == 401
            body = refused.value.read().decode()
            assert run.known()["token"] not in body and str(run.root) not in body

    page = open_page(run.link)
    page.wait_for_selector("[data-polls]")
    assert "token" not in page.url and run.known()["token"] not in page.content() + str(
        run.get("/status")
    )
    (cookie,) = page.context.cookies()
    assert (
        cookie["httpOnly"]
        and cookie["sameSite"] == "Lax"
        and run.known()["token"] not in cookie["value"]
    )
    assert page.evaluate("document.cookie") == ""
    policy = urllib.request.urlopen(
        urllib.request.Request(url + "/", headers={"Cookie": f"{cookie['name']}={cookie['value']}"})
    ).headers["Content-Security-Policy"]
    assert (
        "script-src 'self'" in policy and "unsafe" not in policy and "default-src 'none'" in policy
    )
    # the cookie shows the page, and takes no work
    request = urllib.request.Request(
        url + "/get_indices",
        data=b"{}",
        headers={
            "Cookie": f"{cookie['name']}={cookie['value']}",
            "Content-Type": "application/json",
        },
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 401


def test_images_only_from_inside_the_data_set(run, llm):
    run.start_server()
    assert (
        run.start_clients(prompts(2, 2), 2, "--ollama_hosts", llm.url, workers=1).wait(120) == 0
    ), (run.folder / "processes.log").read_text()[-3000:]
    folder = run.root / "generated_images" / "page test"
    assert (
        run.get("/image/page%20test/1_1")[:2] == b"\xff\xd8"
        and run.get("/sample/page%20test/1_1")["prompt_index"] == 1
    )
    assert run.get("/image/page%20test/1_1?small")[:2] == b"\xff\xd8"
    secret = run.root / ".server" / "server.json"
    (folder / "000000" / "7_0.jpg").symlink_to(secret)
    (folder / "000000" / "7_0.json").symlink_to(secret)
    (folder / "000001").symlink_to(run.root / ".server")
    (run.root / ".server" / "1000_0.json").write_text("{}")
    (run.root / "generated_images" / "linked").symlink_to(folder)
    (folder / "000000" / "8_0.jpg").mkdir()
    paths = [
        "/image/page%20test/7_0",
        "/sample/page%20test/7_0",
        "/sample/page%20test/1000_0",
        "/image/linked/1_1",
        "/image/page%20test/8_0",
        "/image/page%20test/99_0",
        "/image/page%20test/..%2F..%2F..%2F.server%2Fserver",
        "/image/../../.server/server.json",
        "/image/%2e%2e/1_1",
        "/sample/page%20test/1_1.json",
        "/image/page%20test/1_1%00",
        "/image/page%20test%2F000000/1_1",
        f"/image/page%20test/{10**11}_{10**5}",
        "/image/page%20test/-1_0",
        "/image/page%20test/%D9%A1_0",
    ]
    for path in paths:
        with pytest.raises(urllib.error.HTTPError) as refused:
            run.get(path)
        assert refused.value.code in (400, 404), path
    for path in (
        "/status?workers_page=-1",
        "/status?set_aside_page=x",
        "/status?workers_page=99999999999",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            run.get(path)
        assert refused.value.code == 400
    assert run.get("/status?workers_page=999&set_aside_page=999")["workers"]["page"] == 0


def test_what_was_set_aside_is_named_with_its_log_and_a_command_that_works(
    run, llm, open_page, until
):
    run.environment["FAKE_BLACK"] = "poison"
    run.start_server("--max_marks", 2)
    texts = [{"prompt": "a poison <b>bottle</b>", "variations": ["poison again"]}] + prompts(6, 2)[
        1:
    ]
    assert run.start_clients(texts, 2, "--ollama_hosts", llm.url, workers=2).wait(120) in (0, 3), (
        run.folder / "processes.log"
    ).read_text()[-3000:]
    page = open_page(run.link)
    page.wait_for_selector("#set-aside tr")
    text = page.inner_text("#set-aside-section")
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
    assert figures(page)["states"] == [5, 0, 0, 1] and "set aside" in page.inner_text("#weather")
    command = shlex.split(page.inner_text("#set-aside-command"))
    assert (
        command[0] == "python"
        and subprocess.run(
            [sys.executable, *command[1:]], cwd=ROOT, env=run.environment, capture_output=True
        ).returncode
        == 0
    )
    page.wait_for_selector("#set-aside-section", state="hidden")
    until(
        page, "parseInt(document.querySelectorAll('.legend li')[2].textContent) === 1"
    )  # it waits again
