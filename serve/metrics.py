"""Prometheus metrics: counts and durations of requests, and the engines' load. Of texts it sees lengths in tokens only."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.engine import Load
from serve.text import CompletionStream

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # buckets of the time to the first token
LOAD_GAUGES = {  # field of Load: help text
    "waiting": "Requests that wait for a slot",
    "prefill": "Requests in prefill",
    "running": "Requests that are decoded",
    "positions": "Positions of the key/value cache in use",
    "capacity": "Positions of the key/value cache",
}


class Metrics:
    """The server's metrics in a registry of their own. ``loads`` gives the current load by model name."""

    def __init__(self, loads: Callable[[], Mapping[str, Load]]):
        self._registry = CollectorRegistry()
        self._requests = Counter("serve_requests", "Requests by route and status", ["route", "status"], registry=self._registry)
        self._tokens = Counter("serve_tokens", "Prompt tokens, cached ones, and new tokens", ["model", "kind"], registry=self._registry)
        self._first = Histogram(
            "serve_first_token_seconds", "From a request to its first token", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_LoadCollector(loads))

    def count_response(self, route: str, status: int) -> None:
        """Count a response; ``route`` must be one of a fixed set of labels."""
        self._requests.labels(route, str(status)).inc()

    def count_stream(self, model: str, stream: CompletionStream) -> None:
        """Count the tokens of a stream that ended, and its time to the first token."""
        counts = {"prompt": stream.prompt_tokens, "cached": stream.cached_tokens, "completion": stream.completion_tokens}
        for kind, count in counts.items():
            self._tokens.labels(model, kind).inc(count)
        if stream.first_token_seconds is not None:
            self._first.labels(model).observe(stream.first_token_seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _LoadCollector(Collector):
    """Reads the engines' load when Prometheus asks for it."""

    def __init__(self, loads: Callable[[], Mapping[str, Load]]):
        self._loads = loads

    def collect(self) -> Iterable[Metric]:
        """One gauge per field of ``Load``, labelled by model."""
        loads = self._loads()
        for name, help_text in LOAD_GAUGES.items():
            gauge = GaugeMetricFamily(f"serve_{name}", help_text, labels=["model"])
            for model, load in loads.items():
                gauge.add_metric([model], getattr(load, name))
            yield gauge
