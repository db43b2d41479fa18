"""--parallel_loads: how many clients load their models at once. Real clients and server."""

from generate.server.loading import Loading
from tests.fakes.running_server import until


def trace(run):
    """[("begin" or "end", process id), …] of the loads so far."""
    path = run.folder / "trace"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split()) for line in lines]


def test_one_loads_after_the_other_also_when_one_dies(start_run):
    """The first is killed while it loads: its place is free when its heartbeats are missed."""
    run, _server = start_run(
        total=4, images=2, FAKE_LOAD_TRACE="trace", options=["--parallel_loads", 1]
    )
    dying = run.start(FAKE_LOAD_S="600")
    until(lambda: trace(run) == [("begin", str(dying.pid))], run.log)
    others = [run.start(FAKE_LOAD_S="1") for _ in range(2)]
    until(lambda: run.log().count("waiting for a place (--parallel_loads)") == 2, run.log)
    assert len(trace(run)) == 1
    dying.kill()
    assert [other.wait(90) for other in others] == [0, 0], run.log()
    run.check()
    loads = trace(run)[1:]
    assert [what for what, _ in loads] == ["begin", "end"] * 2, loads
    assert loads[0][1] == loads[1][1] != loads[2][1] == loads[3][1]


def test_places():
    loading = Loading(ttl_s=10)
    assert [loading.may_load(0, client, 2) for client in "aabc"] == [0, 0, 0, 2]
    loading.loaded("a")
    assert loading.may_load(1, "c", 2) == 0 and loading.may_load(1, "d", 2) == 2
    loading.heard(9, "b")
    assert loading.may_load(11, "d", 2) == 0, "c was not heard of for ten seconds"
    loading.heard(11, "unknown")
    assert loading.may_load(12, "e", 2) == 2
