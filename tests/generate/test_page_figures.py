"""The figures behind the status page: speeds, the run's life, quantiles, Prometheus' text."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from generate.protocol.latency import LATENCY_BOUNDS_S, quantile_s
from generate.server.page import metrics
from generate.server.page.history import POINTS, RunHistory
from generate.server.page.status import StatusDocument
from tests.fakes.fake_run import FakeRun


def observe(history, now, images, clients=()):
    history.observe(
        now,
        1_700_000_000 + now,
        {"set": images},
        [{"client_id": name, "images": n} for name, n in clients],
        active={"set"},
    )


def test_speed_is_that_of_the_last_quarter_of_an_hour(tmp_path):
    history = RunHistory(tmp_path / "history.json")
    for now in range(0, 4000, 2):  # 1 image a second for 2,000 s, then 3 a second
        observe(history, now, now if now <= 2000 else 2000 + 3 * (now - 2000))
    assert history.per_hour("set") == pytest.approx(3 * 3600, rel=0.01)
    assert history.per_hour("other") is None


def test_a_worker_speed_starts_anew_with_its_count(tmp_path):
    history = RunHistory(tmp_path / "history.json")
    for now in range(0, 60, 2):
        observe(history, now, 0, [("fast", now * 2), ("again", now if now < 30 else now - 30)])
    assert history.worker_per_hour("fast") == pytest.approx(7200, rel=0.01)
    assert history.worker_per_hour("again") == pytest.approx(3600, rel=0.01)  # never negative
    observe(history, 60, 0, [("fast", 120)])
    assert history.worker_per_hour("again") is None  # gone: not kept
    assert set(history.workers) == {"fast"}


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 50)), min_size=2, max_size=900))
def test_the_line_keeps_the_whole_life_in_few_points(steps):
    history = RunHistory("/nonexistent/history.json")
    now = images = 0
    for pause, drawn in steps:
        observe(history, now, images)
        now, images = now + pause, images + drawn
    points = history.points("set")
    assert 1 <= len(points) <= POINTS
    assert points[0] == [1_700_000_000, 0]  # the start is never thinned out
    assert points == sorted(points)
    assert (
        now - (points[-1][0] - 1_700_000_000)
        <= 2 * history.lines["set"]["spacing"] + steps[-1][0] + 10_000
    )


def test_the_line_survives_a_restart_and_a_torn_file(tmp_path):
    path = tmp_path / "history.json"
    history = RunHistory(path)
    for now in range(0, 300, 2):
        observe(history, now, now)
    history.save(300)
    again = RunHistory(path)
    assert again.points("set") == history.points("set") and len(again.points("set")) > 20
    out_of_bounds = '{"set": {"spacing": 10, "points": [[NaN, 1]]}}'
    infinite = '{"set": {"spacing": 1e999, "points": [[1, Infinity]]}}'
    deep = "[" * 100_000
    cut = path.read_text()[:50]
    for torn in (cut, "[1, 2]", '{"set": {"points": 3}}', "", out_of_bounds, infinite, deep):
        path.write_text(torn)
        fresh = RunHistory(path)
        assert fresh.points("set") == [] and "history.json" in fresh.problem
        observe(fresh, 0, 5)
        fresh.save(0)
        assert json.loads(path.read_text())["set"]["points"] == [[1_700_000_000, 5]]
    assert (tmp_path / "history.json.damaged-7").read_text() == deep
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_stops_nothing(tmp_path):
    history = RunHistory(tmp_path / "missing folder" / "history.json")
    observe(history, 0, 1)
    history.save(0)
    assert "not saved" in history.problem
    observe(history, 40, 50)
    assert len(history.points("set")) == 2


@given(st.lists(st.integers(0, 50), min_size=15, max_size=15), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_class_that_holds_it(counts, share):
    value = quantile_s(counts, share)
    if sum(counts) == 0:
        assert value is None
        return
    edges = [0, *LATENCY_BOUNDS_S, LATENCY_BOUNDS_S[-1]]
    below = sum(
        count for count, upper in zip(counts, edges[1:], strict=True) if upper < value - 0.001
    )
    up_to = sum(
        count for count, lower in zip(counts, edges, strict=False) if lower <= value + 0.001
    )
    assert below <= share * sum(counts) + 1e-6 and share * sum(counts) <= up_to + 1e-6


def test_quantiles_of_a_known_mixture():
    counts = [0] * 15
    counts[5], counts[8] = 95, 5  # 95 calls of 0.8-1.6 s, 5 of 6.4-12.8 s
    assert quantile_s(counts, 0.5) == pytest.approx(0.8 + 0.8 * 50 / 95, abs=0.001)
    assert quantile_s(counts, 0.95) == 1.6
    assert quantile_s(counts, 0.98) == pytest.approx(6.4 + 6.4 * 3 / 5)


def document_of(run, folder):
    return run.read(StatusDocument(run, RunHistory(folder / "history.json")).make)


def test_who_has_left_in_order_is_no_worker(tmp_path, monkeypatch):
    run = FakeRun(tmp_path, 5000)
    rows = run.ledger.workers(time.monotonic())
    rows[0].update(state="releasing", leases=[])
    rows[1].update(state="releasing")  # still publishes
    monkeypatch.setattr(run.ledger, "workers", lambda now: rows)
    document = document_of(run, tmp_path)
    assert document["workers"]["total"] == 11 and document["workers"]["by_state"]["releasing"] == 1


@pytest.mark.parametrize(
    "url, line",
    [
        ("http://node7:5000/", "ssh -N -L 5000:node7:5000 <login host>"),
        (
            "http://10.0.0.7:5000/",
            "ssh -N -L 5000:10.0.0.7:5000 <login host>",
        ),  # its name is not in the cluster's DNS
        (
            "http://127.0.0.1:5000/",
            "ssh -N -L 5000:127.0.0.1:5000 node7",
        ),  # a local run's server: nobody else can reach it
    ],
)
def test_the_tunnel_leads_to_where_the_server_listens(tmp_path, monkeypatch, url, line):
    run = FakeRun(tmp_path, 5000)
    about = run.about() | {"url": url}
    monkeypatch.setattr(run, "about", lambda: about)
    document = document_of(run, tmp_path)
    assert document["server"]["ssh"] == line


def test_prometheus_reads_the_figures_of_the_document(tmp_path):
    run = FakeRun(tmp_path, 5000)
    document = document_of(run, tmp_path)
    values = {}
    for family in text_string_to_metric_families(metrics.text(document).decode()):
        for sample in family.samples:
            values[sample.name, *sorted(sample.labels.values())] = sample.value
    dataset, llm = document["datasets"][0], document["llm"]
    for state in ("waiting", "leased", "done", "set_aside"):
        assert values["generate_prompts", *sorted(["HPDv2", state])] == dataset[state]
    assert (
        sum(
            value
            for (name, *labels), value in values.items()
            if name == "generate_prompts" and "HPDv2" in labels
        )
        == dataset["total"]
    )
    assert values["generate_images_total", "HPDv2"] == dataset["images"]
    assert values["generate_prompts_given_back_total", "HPDv2", "preempted"] == 412
    assert (
        sum(value for (name, *_), value in values.items() if name == "generate_workers")
        == document["workers"]["total"]
        == 12
    )
    assert values["generate_weather", "fair"] == 1 and values["generate_weather", "storm"] == 0
    assert (
        values["generate_llm_failures_total", "groq", "rate_limit"] == 800
        and values["generate_llm_cost_usd_total", "groq"] == 3.4567
    )
    assert (
        sum(value for (name, *_), value in values.items() if name == "generate_llm_calls_total")
        == llm["calls"]
    )
    assert values["generate_llm_call_seconds_bucket", *sorted(["+Inf", "groq"])] == sum(
        llm["backends"][0]["seconds"]
    )
    assert json.loads(json.dumps(document)) == document
