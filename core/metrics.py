"""The registry of a process's metrics, and the metrics that every process has."""

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from core.shares import Shares


def new_registry(*, revision: str = "") -> CollectorRegistry:
    """Return a registry with the metrics that every process has, and its ``revision``."""
    # They are a time next to each counter: twice the lines, and Prometheus does not use them.
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library forgot to annotate it
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "longlook_build_info",
        "1; version and revision are labels.",
        ["version", "revision"],
        registry=registry,
    )
    build.labels(importlib.metadata.version("longlook"), revision).set(1)
    return registry


class ShareMetrics(Collector):
    """Shows how full the shared resources of this process are.

    Args:
        shares: returns all resources. The label is the name; resources of one name are added up.
    """

    def __init__(self, shares: Callable[[], Iterable[Shares]]) -> None:
        self._shares = shares

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield places, waiting calls, and refused calls."""
        places = GaugeMetricFamily(
            "longlook_share_places",
            "Places of a resource that accounts share.",
            labels=["resource", "state"],
        )
        waiting = GaugeMetricFamily(
            "longlook_share_waiting", "Calls that wait for a place.", labels=["resource"]
        )
        refused = CounterMetricFamily(
            "longlook_share_refused", "Calls that got no place in time.", labels=["resource"]
        )
        by_name: dict[str, list[Shares]] = {}
        for one in self._shares():
            by_name.setdefault(one.name, []).append(one)
        for name, alike in by_name.items():
            resource, held = name.replace(" ", "_"), sum(shares.held for shares in alike)
            places.add_metric([resource, "held"], held)
            places.add_metric([resource, "free"], sum(one.capacity for one in alike) - held)
            waiting.add_metric([resource], sum(one.waiting for one in alike))
            refused.add_metric([resource], sum(one.refused for one in alike))
        yield from (places, waiting, refused)
