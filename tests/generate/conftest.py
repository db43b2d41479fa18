"""What several tests here need.

A real Chromium for the status page, a real server, and a real server with real clients.
"""

import time

import pytest


@pytest.fixture
def open_page(browser):
    """open_page(url, width=1600, scheme="light") -> page.

    It fails on an error in the browser's console that the test does not expect, and on markup that
    came from the run.
    """
    contexts, problems, expected = [], [], []

    def open_(url, width=1600, scheme="light", expect=()):
        expected.extend(expect)
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)  # ms; the machine may be busy with other tests
        page.on(
            "console", lambda message: message.type == "error" and problems.append(message.text)
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "dialog",
            lambda dialog: (problems.append("a dialog: " + dialog.message), dialog.dismiss()),
        )
        page.goto(url)
        return page

    yield open_
    for page in (
        page for context in contexts for page in context.pages
    ):  # whatever came from the run was text, never markup
        assert page.evaluate("typeof window.evil") == "undefined"
        assert page.evaluate(
            "[...document.scripts].map(script => new URL(script.src).pathname)"
        ) == ["/tools.js", "/page.js", "/newest.js"]
        assert page.evaluate("document.querySelectorAll('main b b, main img[src=x]').length") == 0
    for context in contexts:
        context.close()
    assert [problem for problem in problems if not any(part in problem for part in expected)] == []


@pytest.fixture(scope="session")
def until():
    """until(page, expression, arg=None, seconds=60): wait for a JavaScript expression.

    (page.wait_for_function needs the eval that the page's policy forbids.)
    """

    def wait(page, expression, arg=None, seconds=60):
        end = time.monotonic() + seconds
        while not page.evaluate(expression, arg):
            assert time.monotonic() < end, f"waited {seconds} s for {expression}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def processes():
    """A list of those that are killed at the end."""
    begun = []
    yield begun
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def start(tmp_path):
    """start(*options, …) -> RunningServer, start.crowd(count, *options, …) -> Clients.

    They use tmp_path/out and are ended with the test.
    """
    from tests.fakes.running_server import Clients, RunningServer

    servers, crowds = [], []

    def start_(*options, root=tmp_path / "out", **kwargs):
        servers.append(RunningServer(root, *options, **{"ttl_s": 60} | kwargs))
        return servers[-1]

    def crowd(count, *options, root=tmp_path / "out", **kwargs):
        crowds.append(Clients(root, count, *options, **kwargs))
        crowds[-1].fill()
        return crowds[-1]

    start_.crowd = crowd
    yield start_
    for each in crowds:
        each.end()
    for server in servers:
        server.stop()


@pytest.fixture
def start_run(tmp_path):
    """start_run(settings of a Run, server=its options, ttl_s=3) -> (run, server).

    Clients that generate birds, and their server.
    """
    from tests.fakes import running_client
    from tests.fakes.running_server import RunningServer

    begun = []

    def start(server=(), ttl_s=3, **settings):
        run = running_client.Run(tmp_path, **settings)
        begun.append(run)
        begun.append(RunningServer(run.root, *server, ttl_s=ttl_s))
        return begun

    yield start
    for each in begun:
        each.stop()
