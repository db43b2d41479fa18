"""The report of a data set on the status page: which file it is, and that it can do nothing."""

import os
import urllib.error

import pytest

from generate.server.page import folder_extras
from generate.server.page.folder_extras import report_of
from tests.fakes.page_run import PageRun
from tests.fakes.running_server import until as wait_for

HOSTILE = """<!DOCTYPE html><title>a report</title><style>h1 { color: rgb(1, 2, 3) }</style>
<h1 id="one">a report</h1><a href="#one">here</a><img src="/image/birds/0_0"><img src="/icon.svg">
<script>document.title = "a script ran"</script><form action="/"><button>send</button></form>"""


@pytest.fixture
def page_run(tmp_path):
    run = PageRun(tmp_path)
    yield run
    run.end()


def test_a_report_is_linked_and_can_do_nothing(page_run, browser):
    """Beside the folder or in it; no script, no image of the run, and only with the cookie."""
    run = page_run
    run.start_server()
    texts = [{"prompt": f"bird {k}", "source": ["test"], "variations": []} for k in range(2)]
    assert run.start_clients(texts, 1, "--augment_prompts=False", workers=1).wait(120) == 0
    (run.root / "generated_images" / "page test.report.html").write_text(HOSTILE)
    report = wait_for(lambda: run.get("/status")["datasets"][0]["report"], "the report")
    assert report["file"] == "generated_images/page test.report.html"
    context = browser.new_context()
    page = context.new_page()
    page.goto(run.link)
    page.click(".title a")
    page.wait_for_selector("h1#one")
    assert page.title() == "a report", "its script does not run"
    color = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert color == "rgb(1, 2, 3)", "its own styles are used"
    assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [0, 0]
    assert page.evaluate("origin") == "null"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        run.get(report["address"], cookie="none=1")
    context.close()


def test_which_file_is_a_report(page_run):
    run = page_run
    run.start_server()
    folder = run.root / "generated_images" / "page test"
    folder.mkdir(parents=True)
    address = "/report/page%20test"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        run.get(address)
    inside, outside = folder / "report.html", folder.with_name("page test.report.html")
    outside.write_text("beside")
    assert run.get(address) == b"beside"
    inside.write_text("within")
    assert run.get(address) == b"within"
    assert report_of(run.root, "page test")["file"] == "generated_images/page test/report.html"
    outside.unlink()
    inside.unlink()
    inside.symlink_to(run.root / ".server" / "server.json")
    os.mkfifo(outside)
    (folder.with_name("linked")).symlink_to(folder)
    for path in (address, "/report/linked", "/report/..", "/report/%2e%2e", "/report/a%00b"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            run.get(path)
        assert refused.value.code in (400, 404), path
    outside.unlink()
    with open(outside, "wb") as file:
        file.truncate(folder_extras.REPORT_BYTES + 1)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        run.get(address)
    assert report_of(run.root, "page test") is None
