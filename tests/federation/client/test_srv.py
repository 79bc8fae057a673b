"""SRV records: order, memory."""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import TestCase

from federation.client.dns import Dns
from federation.client.names import LookupFailed, SrvRecord
from federation.client.route import Endpoint
from federation.client.srv import SrvLookup, ordered
from tests.federation.client.network import FakeDns

NAME = "_matrix-fed._tcp.a.example"


class OrderTests(TestCase):
    def test_priorities(self) -> None:
        """Shows KEY-4."""
        endpoints = [Endpoint(str(n), 1, priority=n, weight=n) for n in (30, 10, 20)]
        for seed in range(20):
            order = ordered(endpoints, Random(seed))
            self.assertEqual([endpoint.host for endpoint in order], ["10", "20", "30"])

    def test_weights(self) -> None:
        """Shows KEY-4."""
        endpoints = [Endpoint(str(weight), 1, weight=weight) for weight in (0, 25, 75)]
        random = Random(1)
        first = Counter(ordered(endpoints, random)[0].host for _ in range(10_000))
        self.assertTrue(7200 < first["75"] < 7700, first)
        self.assertTrue(2200 < first["25"] < 2700, first)
        self.assertTrue(0 < first["0"] < 300)

    def test_every_endpoint_once(self) -> None:
        """Shows KEY-4."""
        endpoints = [Endpoint(str(n), 1, n % 2, n % 3) for n in range(12)]
        order = ordered(endpoints, Random(1))
        self.assertEqual(sorted(order), sorted(endpoints))
        self.assertEqual(len(order), 12)


class LookupTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fake = FakeDns()
        self.srv = SrvLookup(Dns(self.clock, self.fake).services, self.clock)

    def find(self) -> list[SrvRecord]:
        return self.successResultOf(Deferred.fromCoroutine(self.srv.find(NAME)))

    def test_records(self) -> None:
        """Shows KEY-4."""
        self.fake.srv(NAME, "B.example", 80, priority=10, weight=5)
        self.assertEqual(self.find(), [SrvRecord(10, 5, 80, "b.example", 300)])

    def test_records_are_kept_for_their_time_to_live(self) -> None:
        self.fake.add(NAME, dns.Record_SRV(0, 0, 80, "b.example"), ttl=600)
        self.find()
        self.clock.advance(599)
        self.find()
        self.assertEqual(len(self.fake.asked), 1)
        self.clock.advance(2)
        self.find()
        self.assertEqual(len(self.fake.asked), 2)

    def test_absence_is_kept(self) -> None:
        self.assertEqual(self.find(), [])
        self.clock.advance(299)
        self.assertEqual(self.find(), [])
        self.assertEqual(len(self.fake.asked), 1)
        self.clock.advance(2)
        self.find()
        self.assertEqual(len(self.fake.asked), 2)

    def test_failure_is_no_absence_and_not_kept(self) -> None:
        self.fake.failing.add(NAME)
        self.failureResultOf(Deferred.fromCoroutine(self.srv.find(NAME)), LookupFailed)
        self.fake.failing.clear()
        self.fake.srv(NAME, "b.example", 80)
        self.assertEqual(len(self.find()), 1)
