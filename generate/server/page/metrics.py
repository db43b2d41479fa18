"""The status document as Prometheus metrics: totals, seconds, dollars and tokens.

curl -H "Authorization: Bearer $(cat .server/metrics_secret)" http://localhost:5000/metrics

The names of the metrics are published.
"""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from common.console import visible
from generate.protocol.latency import LATENCY_BOUNDS_S

HEALTH = ("fair", "storm", "draining", "rebuilding", "idle", "finished")
PROMPT_STATES = ("waiting", "leased", "done", "set_aside")
Json = dict[str, Any]


def text(document: Json) -> bytes:
    """The status document in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Figures(document))
    return bytes(generate_latest(registry))


class _Figures:
    """A collector as prometheus_client wants it: collect() yields the metric families."""

    def __init__(self, document: Json) -> None:
        self.document = document

    def collect(self) -> Iterator[Any]:
        for part in (self._datasets, self._workers, self._server, self._llm):
            for family in part():
                family.samples = [
                    sample._replace(labels={k: visible(v) for k, v in sample.labels.items()})
                    for sample in family.samples
                ]
                yield family

    def _datasets(self) -> Iterator[Any]:
        prompts = GaugeMetricFamily(
            "generate_prompts",
            "Prompts by what became of them; the states add up to all prompts.",
            labels=["dataset", "state"],
        )
        short = GaugeMetricFamily(
            "generate_prompts_short",
            "Finished prompts for which the LLMs gave fewer variations.",
            labels=["dataset"],
        )
        images = CounterMetricFamily(
            "generate_images", "Images of finished prompts.", labels=["dataset"]
        )
        expected = GaugeMetricFamily(
            "generate_images_expected", "Images of all prompts.", labels=["dataset"]
        )
        speed = GaugeMetricFamily(
            "generate_images_per_second",
            "Images a second over the last quarter of an hour.",
            labels=["dataset"],
        )
        eta = GaugeMetricFamily(
            "generate_eta_seconds",
            "Seconds until all prompts are generated, at this speed.",
            labels=["dataset"],
        )
        released = CounterMetricFamily(
            "generate_prompts_given_back",
            "Prompts released by leases that ended, by reason.",
            labels=["dataset", "reason"],
        )
        judged = CounterMetricFamily(
            "generate_images_judged",
            "Images that --accept has judged, of finished prompts.",
            labels=["dataset", "verdict"],
        )
        given_up = CounterMetricFamily(
            "generate_captions_not_accepted",
            "Captions none of whose images was accepted.",
            labels=["dataset"],
        )
        origins = GaugeMetricFamily(
            "generate_images_by_origin",
            "Images of finished prompts by LLM (kind llm) and by source, accepted or rejected.",
            labels=["dataset", "kind", "name", "verdict"],
        )
        for dataset in self.document["datasets"]:
            name = dataset["name"]
            for kind, rows in dataset["origins"].items():
                for row in rows:
                    origins.add_metric([name, kind, row["name"], "accepted"], row["images"])
                    origins.add_metric([name, kind, row["name"], "rejected"], row["rejected"])
            if acceptance := dataset.get("acceptance"):
                for verdict in ("accepted", "rejected"):
                    judged.add_metric([name, verdict], acceptance[verdict])
                given_up.add_metric([name], acceptance["not_accepted"])
            for state in PROMPT_STATES:
                prompts.add_metric([name, state], dataset[state])
            short.add_metric([name], dataset["short"])
            images.add_metric([name], dataset["images"])
            expected.add_metric([name], dataset["images_expected"])
            if dataset["images_per_hour"] is not None:
                speed.add_metric([name], dataset["images_per_hour"] / 3600)
            if dataset["eta_s"] is not None:
                eta.add_metric([name], dataset["eta_s"])
            for reason, count in dataset["given_back"].items():
                released.add_metric([name, reason], count)
        yield from (prompts, short, images, expected, speed, eta, released)
        yield from (judged, given_up, origins)

    def _workers(self) -> Iterator[Any]:
        by_state = GaugeMetricFamily(
            "generate_workers", "Clients that send heartbeats, by what they do.", labels=["state"]
        )
        for state, count in self.document["workers"]["by_state"].items():
            by_state.add_metric([state], count)
        yield by_state
        yield GaugeMetricFamily(
            "generate_workers_slow",
            "Clients less than half as fast as the median.",
            self.document["workers"]["slow"],
        )
        yield GaugeMetricFamily(
            "generate_gpus_quarantined",
            "GPUs that get no work but probes.",
            len(self.document["quarantined"]),
        )

    def _server(self) -> Iterator[Any]:
        health = GaugeMetricFamily(
            "generate_weather",
            "1 for the state the whole run is in; alert on storm (halted).",
            labels=["state"],
        )
        for state in HEALTH:
            health.add_metric([state], self.document["weather"]["state"] == state)
        yield health
        server = self.document["server"]
        yield GaugeMetricFamily(
            "generate_server_epoch", "Starts of the job server.", server["epoch"]
        )
        yield GaugeMetricFamily(
            "generate_server_uptime_seconds",
            "Seconds since the job server's last start.",
            server["uptime_s"],
        )

    def _llm(self) -> Iterator[Any]:
        calls = CounterMetricFamily("generate_llm_calls", "LLM calls.", labels=["backend"])
        failures = CounterMetricFamily(
            "generate_llm_failures", "Failed LLM calls, by kind.", labels=["backend", "kind"]
        )
        tokens = CounterMetricFamily(
            "generate_llm_tokens", "LLM tokens.", labels=["backend", "kind"]
        )
        usd = CounterMetricFamily(
            "generate_llm_cost_usd", "US dollars spent on LLM calls.", labels=["backend"]
        )
        clients = GaugeMetricFamily(
            "generate_llm_clients",
            "Clients by how they see a backend.",
            labels=["backend", "state"],
        )
        latency = HistogramMetricFamily(
            "generate_llm_call_seconds", "Seconds an LLM call takes.", labels=["backend"]
        )
        llm = self.document["llm"]
        for backend in llm["backends"]:
            name = backend["name"]
            calls.add_metric([name], backend["calls"])
            for kind, count in backend["failures"].items():
                failures.add_metric([name, kind], count)
            tokens.add_metric([name, "prompt"], backend["prompt_tokens"])
            tokens.add_metric([name, "completion"], backend["completion_tokens"])
            usd.add_metric([name], backend["usd"])
            for state, count in backend["clients"].items():
                clients.add_metric([name, state], count)
            if backend["seconds"]:
                latency.add_metric([name], _buckets(backend["seconds"]), sum_value=None)
        yield from (calls, failures, tokens, usd, clients, latency)
        if llm["budget_usd"] is not None:
            yield GaugeMetricFamily(
                "generate_llm_budget_usd",
                "US dollars that may be spent on LLM calls.",
                llm["budget_usd"],
            )


def _buckets(seconds: list[int]) -> list[tuple[str, int]]:
    """Prometheus' cumulative classes of the calls counted per class."""
    so_far = 0
    buckets = []
    for bound, count in zip([*LATENCY_BOUNDS_S, "+Inf"], seconds, strict=False):
        so_far += count
        buckets.append((str(bound), so_far))
    return buckets
