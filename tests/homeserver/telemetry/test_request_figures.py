"""Figures of requests are shown as prometheus_client shows its own."""

from __future__ import annotations

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from homeserver.telemetry.request_figures import RequestFigures

BOUNDS = (0.001, 0.0025, 0.5, 1, 30, 60)


class EqualityTests(SynchronousTestCase):
    def test_same_text(self) -> None:
        counter = Counter(
            "hearth_requests_total",
            "Requests answered, by endpoint, method and status.",
            ["endpoint", "method", "status"],
            registry=None,
        )
        histogram = Histogram(
            "hearth_request_seconds",
            "Time from the complete request to its answer; long-polls include their wait.",
            ["endpoint", "method"],
            buckets=BOUNDS,
            registry=None,
        )
        figures = RequestFigures(BOUNDS)
        registries = CollectorRegistry(), CollectorRegistry()
        registries[0].register(counter)
        registries[0].register(histogram)
        registries[1].register(figures)
        chosen = random.Random(1)
        for _ in range(500):
            endpoint = chosen.choice(["/sync", "/rooms/{room_id}/send", 'odd"\\name'])
            method = chosen.choice(["GET", "PUT"])
            status = chosen.choice([200, 404, 499])
            seconds = chosen.choice([*BOUNDS, chosen.random() * 2, 0.0, 100.0])
            counter.labels(endpoint, method, str(status)).inc()
            histogram.labels(endpoint, method).observe(seconds)
            figures.count(endpoint, method, status, seconds)
        usual, own = (self.lines(registry) for registry in registries)
        self.assertEqual(own, usual)
        self.assertGreater(len(own), 60)

    def lines(self, registry: CollectorRegistry) -> list[str]:
        """All lines, without the values of the times at which something was first counted."""
        return sorted(
            line.rpartition(" ")[0] if "_created{" in line else line
            for line in generate_latest(registry).decode().splitlines()
        )

    def test_nothing_yet(self) -> None:
        registry = CollectorRegistry()
        registry.register(RequestFigures(BOUNDS))
        self.assertIn(b"# TYPE hearth_request_seconds histogram", generate_latest(registry))
        self.assertNotIn(b"{", generate_latest(registry))
