"""The status page shows nothing without its link, and no file that is not a sample."""

import urllib.error
import urllib.request

import pytest

from tests.fakes.fake_llm import FakeOllama
from tests.fakes.page_run import PageRun, prompts


@pytest.fixture
def run(tmp_path):
    run = PageRun(tmp_path)
    yield run
    run.end()


@pytest.fixture
def llm():
    with FakeOllama() as fake:
        yield fake


def test_nothing_without_the_link(run, open_page):
    run.start_server()
    url = run.known()["url"].rstrip("/")
    for path in (
        "/",
        "/status",
        "/metrics",
        "/page.js",
        "/image/x/0_0",
        "/sample/x/0_0",
        "/?code=wrong",
        "/?code=",
        "/status?code=wrong",
        "/metrics?code=",
        "/page_link",
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

    link = run.link
    page = open_page(link)
    page.wait_for_selector("[data-polls]")
    assert "code" not in page.url and run.known()["token"] not in page.content() + str(
        run.get("/status")
    )
    (cookie,) = page.context.cookies()
    assert (
        cookie["httpOnly"]
        and cookie["sameSite"] == "Lax"
        and run.known()["token"] not in cookie["value"]
    )
    assert page.evaluate("document.cookie") == ""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(link)  # the link was for one browser
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
    ), run.log()
    folder = run.root / "generated_images" / "page test"
    assert (
        run.get("/image/page%20test/1_1")[:2] == b"\xff\xd8"
        and run.get("/sample/page%20test/1_1")["prompt_index"] == 1
    )
    assert run.get("/image/page%20test/1_1?small")[:2] == b"\xff\xd8"
    secret = run.root / ".server" / "server.json"
    (folder / "000000" / "7_0.jpg").symlink_to(secret)
    (folder / "000000" / "7_0.json").symlink_to(secret)
    (folder / "000000" / "11_0.json").write_text('{"score": NaN}')  # no JSON for a browser
    (folder / "000001").symlink_to(run.root / ".server")
    (run.root / ".server" / "1000_0.json").write_text("{}")
    (run.root / "generated_images" / "linked").symlink_to(folder)
    (folder / "000000" / "8_0.jpg").mkdir()
    (folder / "000000" / "9_0.jpg").symlink_to("9_0.jpg")
    (folder / "000000" / "10_0.jpg").symlink_to("a" * 300)
    (run.root / "rejected_images").symlink_to("a" * 300)
    paths = [
        "/image/page%20test/7_0",
        "/sample/page%20test/7_0",
        "/sample/page%20test/11_0",
        "/sample/page%20test/1000_0",
        "/image/linked/1_1",
        *(f"/image/page%20test/{n}_0{small}" for n in (8, 9, 10) for small in ("", "?small")),
        "/image/page%20test/99_0",
        "/rejected/page%20test/1_1/0",
        "/image/page%20test/..%2F..%2F..%2F.server%2Fserver",
        "/image/../../.server/server.json",
        "/image/%2e%2e/1_1",
        f"/image/{'a' * 300}/1_1",
        f"/sample/{'%C3%BC' * 150}/1_1",
        f"/report/{'a' * 300}",
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
