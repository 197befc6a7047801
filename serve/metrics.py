"""What Prometheus reads: counts and times of requests, and the engines' load. Of text it sees lengths in tokens."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.engine import Load
from serve.text import Answers

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    def __init__(self, loads: Callable[[], Mapping[str, Load]]):
        self._registry = CollectorRegistry()
        self._requests = Counter("serve_requests", "Requests by route and status", ["route", "status"], registry=self._registry)
        self._tokens = Counter("serve_tokens", "Tokens read, of those reused, and written", ["model", "kind"], registry=self._registry)
        self._first = Histogram(
            "serve_first_token_seconds", "From a request to its first token", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_Loads(loads))

    def answered(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def ended(self, model: str, answers: Answers) -> None:
        kinds = {"prompt": answers.prompt_tokens, "reused": answers.reused_tokens, "completion": answers.completion_tokens}
        for kind, count in kinds.items():
            self._tokens.labels(model, kind).inc(count)
        if answers.first_token_seconds is not None:
            self._first.labels(model).observe(answers.first_token_seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Loads(Collector):
    def __init__(self, loads: Callable[[], Mapping[str, Load]]):
        self._loads = loads

    def collect(self) -> Iterable[Metric]:
        loads = self._loads()
        for name, what in (
            ("waiting", "Requests that wait for a slot"),
            ("reading", "Requests whose prompt is read"),
            ("going", "Requests that are answered"),
            ("positions", "Positions of the key/value cache in use"),
            ("capacity", "Positions of the key/value cache"),
        ):
            gauge = GaugeMetricFamily(f"serve_{name}", what, labels=["model"])
            for model, load in loads.items():
                gauge.add_metric([model], getattr(load, name))
            yield gauge
