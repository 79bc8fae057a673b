"""Metrics: a registry for each homeserver, rendered for Prometheus."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.cache import Cache, Caches
from homeserver.telemetry.metrics import Metrics


def value(metrics: Metrics, line_start: str) -> float | None:
    """The value of the first sample that starts so."""
    for line in metrics.render().decode().splitlines():
        if line.startswith(line_start):
            return float(line.rsplit(" ", 1)[1])
    return None


class MetricsTests(TestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def test_requests(self) -> None:
        for _ in range(3):
            self.metrics.request("/sync", "GET", 200, 0.02)
        self.metrics.request("/sync", "GET", 401, 0.001)
        counted = 'hearth_requests_total{endpoint="/sync",method="GET",status="%d"}'
        self.assertEqual(value(self.metrics, counted % 200), 3)
        self.assertEqual(value(self.metrics, counted % 401), 1)
        times = 'hearth_request_seconds_count{endpoint="/sync",method="GET"}'
        self.assertEqual(value(self.metrics, times), 4)

    def test_transactions(self) -> None:
        self.metrics.transaction("append", "write", 0.004)
        name = 'hearth_database_transaction_seconds_sum{kind="write",name="append"}'
        self.assertEqual(value(self.metrics, name), 0.004)

    def test_point_queries(self) -> None:
        direct, thread = {"of_user": 1}, {"of_user": 0}
        self.metrics.point_queries(direct, thread)
        direct["of_user"] = 5
        thread["of_room"] = 2
        name = 'hearth_database_queries_total{name="%s",way="%s"}'
        self.assertEqual(value(self.metrics, name % ("of_user", "direct")), 5)
        self.assertEqual(value(self.metrics, name % ("of_user", "thread")), 0)
        self.assertEqual(value(self.metrics, name % ("of_room", "thread")), 2)

    def test_gauges_are_computed_when_asked_for(self) -> None:
        waiting = [1, 2]
        self.metrics.gauge("hearth_waiting", "Waiting clients.", lambda: len(waiting))
        self.assertEqual(value(self.metrics, "hearth_waiting "), 2)
        waiting.append(3)
        self.assertEqual(value(self.metrics, "hearth_waiting "), 3)

    def test_caches(self) -> None:
        caches = Caches(1 << 20)
        cache: Cache[int, bytes] = Cache("pages")
        caches.adopt(cache)
        self.metrics.caches(caches)
        cache[1] = b"x" * 5_000
        cache.get(1)
        cache.get(2)
        shown = {
            name: value(self.metrics, f'hearth_cache_{name}{{cache="pages"}}')
            for name in ("hits_total", "misses_total", "evictions_total", "bytes", "entries")
        }
        self.assertEqual(
            shown,
            {
                "hits_total": 1,
                "misses_total": 1,
                "evictions_total": 0,
                "bytes": cache.bytes,
                "entries": 1,
            },
        )
        self.assertEqual(value(self.metrics, "hearth_caches_limit_bytes"), 1 << 20)

    def test_registries_are_separate(self) -> None:
        other = Metrics()
        other.request("/sync", "GET", 200, 0.1)
        self.assertIsNone(value(self.metrics, "hearth_requests_total"))

    def test_process_figures(self) -> None:
        self.assertGreater(value(self.metrics, "process_resident_memory_bytes ") or 0, 0)
        self.assertIsNotNone(value(self.metrics, "process_cpu_seconds_total "))

    def test_loop_lag(self) -> None:
        clock = Clock()
        loop = self.metrics.watch_loop(clock)
        clock.advance(1.0)
        clock.advance(1.5)
        self.assertEqual(value(self.metrics, "hearth_loop_lag_seconds_count"), 2)
        self.assertAlmostEqual(value(self.metrics, "hearth_loop_lag_seconds_sum") or 0, 0.5)
        clock.advance(0.5)
        self.assertAlmostEqual(value(self.metrics, "hearth_loop_lag_seconds_sum") or 0, 0.5)
        loop.stop()
