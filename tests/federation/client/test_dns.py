"""Addresses of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import TestCase

from federation.client.dns import Dns
from federation.client.names import LookupFailed
from tests.federation.client.network import FakeDns


class AddressTests(TestCase):
    def setUp(self) -> None:
        self.fake = FakeDns()
        hosts = Path(self.mktemp())
        hosts.write_text("10.9.8.7 inside.example\n")
        self.dns = Dns(Clock(), self.fake, str(hosts))

    def addresses(self, name: str, follow_aliases: bool = True) -> list[str]:
        asking = self.dns.addresses(name, follow_aliases=follow_aliases)
        return self.successResultOf(Deferred.fromCoroutine(asking))

    def test_both_families_in_turns(self) -> None:
        for address in ("1.2.3.4", "1.2.3.5", "2a01::1", "2a01::2"):
            self.fake.address("a.example", address)
        found = self.addresses("A.example.")
        self.assertEqual(found, ["1.2.3.4", "2a01::1", "1.2.3.5", "2a01::2"])

    def test_aliases(self) -> None:
        """Shows KEY-4."""
        self.fake.add("a.example", dns.Record_CNAME("b.example"))
        self.fake.address("b.example", "1.2.3.4", question="a.example")
        self.assertEqual(self.addresses("a.example"), ["1.2.3.4"])
        self.assertEqual(self.addresses("a.example", follow_aliases=False), [])

    def test_no_such_name(self) -> None:
        self.assertEqual(self.addresses("a.example"), [])

    def test_name_servers_that_fail(self) -> None:
        self.fake.failing.add("a.example")
        asking = self.dns.addresses("a.example", follow_aliases=True)
        self.failureResultOf(Deferred.fromCoroutine(asking), LookupFailed)

    def test_faults_of_this_machine(self) -> None:
        """They are no answers, whether they come at once or later."""

        def fails(name: str) -> Deferred[Any]:
            raise CannotListenError("", 0, OSError("too many open files"))

        def fails_later(name: str) -> Deferred[Any]:
            return fail(CannotListenError("", 0, OSError("too many open files")))

        for failing in (fails, fails_later):
            for method in ("lookupAddress", "lookupIPV6Address", "lookupService"):
                self.patch(self.fake, method, failing)
            asking = self.dns.addresses("a.example", follow_aliases=True)
            self.failureResultOf(Deferred.fromCoroutine(asking), LookupFailed)
            services = self.dns.services("_matrix._tcp.a.example")
            self.failureResultOf(Deferred.fromCoroutine(services), LookupFailed)

    def test_the_hosts_file_comes_first(self) -> None:
        self.fake.address("inside.example", "1.2.3.4")
        self.assertEqual(self.addresses("inside.example"), ["10.9.8.7"])
        self.assertEqual(self.fake.asked, [])

    def test_localhost_is_never_asked_about(self) -> None:
        self.assertEqual(self.addresses("localhost"), ["127.0.0.1", "::1"])
        self.assertEqual(self.fake.asked, [])
