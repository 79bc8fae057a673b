"""Metrics of one homeserver, in a Prometheus registry of its own.

All metrics are declared here. Label values come from declared names (endpoints, functions run
as transactions), never from what a client sent, so that their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

import homeserver
from homeserver.cache import Caches
from homeserver.telemetry.request_figures import RequestFigures
from homeserver.ticking import start_ticking

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one homeserver."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Gauge("hearth_info", "The version that runs.", ["version"], registry=self.registry).labels(
            homeserver.__version__
        ).set(1)
        self._requests = RequestFigures(_SECONDS)
        self.registry.register(self._requests)
        self.transactions = Histogram(
            "hearth_database_transaction_seconds",
            "Time of database transactions, the wait for a connection and retries included.",
            ["name", "kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.commit_events = Histogram(
            "hearth_commit_events",
            "Requests of this server that one transaction added to rooms, by the way they went:"
            " plain messages by one statement, everything else the general way. Missed: plain"
            " messages that had to go the general way, as their rooms were written to elsewhere.",
            ["way"],
            buckets=_COUNTS,
            registry=self.registry,
        )
        self._commits = {
            way: self.commit_events.labels(way) for way in ("plain", "general", "missed")
        }
        self.federation_transactions = Counter(
            "hearth_federation_transactions_total",
            "Attempts to send a transaction to another server, by outcome: arrived or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.federation_received = Counter(
            "hearth_federation_received_transactions_total",
            "Transactions of other servers: new, repeated, refused (too many), or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.federation_fetches = Counter(
            "hearth_federation_fetches_total",
            "Requests to other servers for events that are missing, by kind and outcome.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.to_device_dropped = Counter(
            "hearth_federation_to_device_dropped_total",
            "Messages for devices of other servers that were given up: too many waited.",
            registry=self.registry,
        )
        self.state_resets = Counter(
            "hearth_state_resets_total",
            "Changes of a room's state by state resolution that no event which arrived was about.",
            registry=self.registry,
        )
        self.received_events = Counter(
            "hearth_received_events_total",
            "New events of other servers, by verdict.",
            ["verdict"],
            registry=self.registry,
        )
        self.checked_events = Counter(
            "hearth_checked_events_total",
            "Events of other servers whose signatures and hashes were to be checked, by the way"
            " they were read: few at a time; of many, plain ones in one go, others in the general"
            " way.",
            ["way"],
            registry=self.registry,
        )
        self.texts = Counter(
            "hearth_searchable_events_total",
            "Events that have texts to be searched, by when these were made findable: together"
            " with the event, or later.",
            ["when"],
            registry=self.registry,
        )
        self.pushes = Counter(
            "hearth_pushes_total",
            "Attempts to tell people of events, by kind of pusher and outcome: delivered, failed, "
            "busy (the gateway wants a pause), refused, rejected (the pusher is gone).",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.sync_answers = Counter(
            "hearth_sync_answers_total",
            "Answers of /sync that may tell something new: from memory (way fast), or from the "
            "database (way general) for a reason.",
            ["way", "reason"],
            registry=self.registry,
        )
        self.sliding_answers = Counter(
            "hearth_sliding_sync_answers_total",
            "Answers of sliding sync behind a position: as hearth_sync_answers_total.",
            ["way", "reason"],
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "hearth_loop_lag_seconds",
            "How much later than asked the event loop ran a timer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.shown_rooms = Counter(
            "hearth_rooms_shown_total",
            "Rooms that answers of /sync showed as a whole: from memory, or in the general way.",
            ["how"],
            registry=self.registry,
        )
        # Children are kept: `labels()` costs twice what counting does.
        self._sync_counts: dict[str, Any] = {}
        self._sliding_counts: dict[str, Any] = {}
        self._transaction_times: dict[tuple[str, str], Any] = {}

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request. `endpoint` is the declared path, not the requested one."""
        self._requests.count(endpoint, method, status, seconds)

    def committed(self, requests: int, way: str) -> None:
        """For `homeserver.rooms.append.Observer`."""
        self._commits[way].observe(requests)

    def received(self, status: int, count: int) -> None:
        """Note events of other servers, by their verdict (`storage.events`)."""
        verdicts = ("accepted", "soft-failed", "rejected", "rejected")
        self.received_events.labels(verdicts[status] if status >= 0 else "missing").inc(count)

    def checked(self, way: str, count: int) -> None:
        """For `federation.client.pdus.PduChecker`."""
        self.checked_events.labels(way).inc(count)

    def made_searchable(self, at_once: bool, count: int) -> None:
        """Note new events with texts, and whether these are findable already."""
        self.texts.labels("at_once" if at_once else "later").inc(count)

    def fetched(self, kind: str, went_well: bool) -> None:
        """Count a request to another server for events; `kind` is a name of ours."""
        outcome = "answered" if went_well else "failed"
        self.federation_fetches.labels(kind, outcome).inc()

    def pushed(self, kind: str, outcome: str) -> None:
        """Count an attempt to tell somebody something; both are names of ours."""
        self.pushes.labels(kind, outcome).inc()

    def synced(self, reason: str) -> None:
        """Count an answer of `/sync`. `reason`: a word of ours that says why it was not made from
        memory; empty: it was."""
        _count_way(self.sync_answers, self._sync_counts, reason)

    def slid(self, reason: str) -> None:
        """Count an answer of sliding sync, as `synced`."""
        _count_way(self.sliding_answers, self._sliding_counts, reason)

    def transaction(self, name: str, kind: str, seconds: float) -> None:
        """Count a database transaction; `kind` is read or write. Safe in any thread."""
        times = self._transaction_times.get((name, kind))
        if times is None:
            times = self.transactions.labels(name, kind)
            self._transaction_times[name, kind] = times
        times.observe(seconds)

    def rooms_shown(self, how: str, count: int) -> None:
        """Count rooms that were shown; `how` is a name of ours. Safe in any thread."""
        self.shown_rooms.labels(how).inc(count)

    def gauge(self, name: str, doc: str, value: Callable[[], float]) -> None:
        """Show what `value()` is whenever the metrics are asked for."""
        self.registry.register(_Computed(name, doc, value))

    def caches(self, caches: Caches) -> None:
        """Show what caches are good for whenever the metrics are asked for."""
        self.registry.register(_CacheFigures(caches))
        self.gauge(
            "hearth_caches_limit_bytes",
            "What all caches may take together now.",
            lambda: caches.limit,
        )

    def point_queries(self, direct: Mapping[str, int], thread: Mapping[str, int]) -> None:
        """Show how many small queries of each name ran without a thread, and how many in one."""
        self.registry.register(_QueryFigures({"direct": direct, "thread": thread}))

    def render(self) -> bytes:
        """The metrics in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def watch_loop(self, reactor: IReactorTime, interval: float = 1.0) -> LoopingCall:
        """Measure the event loop's lag each `interval` seconds until the result is stopped."""
        due = reactor.seconds() + interval

        def measure() -> None:
            nonlocal due
            now = reactor.seconds()
            self.loop_lag.observe(max(0.0, now - due))
            # LoopingCall skips ticks that it missed, on the grid of its start.
            due = now + interval - (now - (loop.starttime or due)) % interval

        loop = LoopingCall(measure)
        loop.clock = reactor
        start_ticking(loop, interval)
        return loop


def _count_way(counter: Counter, known: dict[str, Any], reason: str) -> None:
    count = known.get(reason)
    if count is None:
        count = known[reason] = counter.labels("general" if reason else "fast", reason)
    count.inc()


class _Computed(Collector):
    """A gauge whose value is asked for when it is shown."""

    def __init__(self, name: str, doc: str, value: Callable[[], float]) -> None:
        self._name = name
        self._doc = doc
        self._value = value

    def collect(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(self._name, self._doc, value=self._value())]

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(self._name, self._doc)]


class _QueryFigures(Collector):
    """Small queries to the database, which it counts itself."""

    def __init__(self, ways: Mapping[str, Mapping[str, int]]) -> None:
        self._ways = ways

    def collect(self) -> list[CounterMetricFamily]:
        (family,) = self.describe()
        for way, counts in self._ways.items():
            for name, count in counts.items():
                family.add_metric([name, way], count)
        return [family]

    def describe(self) -> list[CounterMetricFamily]:
        doc = "Small queries to the database: without a thread, or in one."
        return [CounterMetricFamily("hearth_database_queries", doc, labels=["name", "way"])]


class _CacheFigures(Collector):
    """The figures of caches, which they count themselves."""

    COUNTS = (
        ("hits", "hearth_cache_hits", "What was found in a cache."),
        ("misses", "hearth_cache_misses", "What was looked for in a cache and not found."),
        ("evictions", "hearth_cache_evictions", "What was pushed out of a cache, or not kept."),
    )

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def collect(self) -> Iterator[Metric]:
        for attribute, name, doc in self.COUNTS:
            count = CounterMetricFamily(name, doc, labels=["cache"])
            for cache in self._caches:
                count.add_metric([cache.name], getattr(cache, attribute))
            yield count
        taken = GaugeMetricFamily("hearth_cache_bytes", "What a cache takes.", labels=["cache"])
        entries = GaugeMetricFamily("hearth_cache_entries", "Entries of a cache.", labels=["cache"])
        for cache in self._caches:
            taken.add_metric([cache.name], cache.bytes)
            entries.add_metric([cache.name], len(cache))
        yield from (taken, entries)

    def describe(self) -> Iterator[Metric]:
        return iter(())
