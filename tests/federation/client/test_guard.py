"""Which addresses may be connected to."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import TestCase

from config.model.network import PRIVATE_RANGES
from federation.client.guard import AddressGuard


class GuardTests(TestCase):
    def check(self, guard: AddressGuard, permitted: tuple[str, ...], *refused: str) -> None:
        for address in permitted:
            self.assertTrue(guard.permits(address), address)
        for address in refused:
            self.assertFalse(guard.permits(address), address)

    def test_defaults(self) -> None:
        """Shows KEY-5."""
        self.check(
            AddressGuard((), PRIVATE_RANGES),
            ("1.2.3.4", "2a01::1", "::ffff:1.2.3.4", "2002:102:304::1", "64:ff9b::102:304"),
            "127.0.0.1",
            "10.255.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "2a01::1%eth0",
            "fd00::1",
            "a.example",
            "",
        )

    def test_private_addresses_in_the_form_of_ipv6(self) -> None:
        """Shows KEY-5."""
        self.check(
            AddressGuard((), PRIVATE_RANGES),
            (),
            "::ffff:127.0.0.1",
            "::ffff:c0a8:101",
            "2002:7f00:1::1",
            "64:ff9b::7f00:1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            # Teredo: a server in a private range, and a client (inverted) there.
            "2001:0:a00:1:0:0:fefd:fcfb",
            "2001:0:102:304:0:0:80ff:fffe",
        )
        self.check(
            AddressGuard((ip_network("::1/128"),), PRIVATE_RANGES),
            ("::1", "::1.2.3.4", "2001:0:102:304:0:0:fefd:fcfb"),
            "::",
        )

    def test_allowed_ranges_go_before_denied_ones(self) -> None:
        """Shows KEY-5."""
        guard = AddressGuard((ip_network("10.1.0.0/16"),), PRIVATE_RANGES)
        self.check(guard, ("10.1.2.3", "::ffff:10.1.2.3", "1.2.3.4"), "10.2.0.1", "127.0.0.1")

    def test_denied_ranges_as_configured(self) -> None:
        """Shows KEY-5."""
        guard = AddressGuard((), (ip_network("1.2.3.0/24"),))
        self.check(guard, ("127.0.0.1", "1.2.4.1"), "1.2.3.4")
