"""Which IP addresses may be connected to.

By default the private and special ranges are refused, so that a server name or a redirect
cannot make this server ask its own network. What is judged is the address that the connection
is then opened to, never a name: a name can change its address between question and use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from config.types import IPNetwork

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LAST_32_BITS = (
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # translated without state (RFC 2765)
    ipaddress.IPv6Network("::/96"),  # "IPv4-compatible" (RFC 4291)
)


class AddressGuard:
    """Permits addresses outside the `denied` ranges, and those inside the `allowed` ones."""

    def __init__(self, allowed: Sequence[IPNetwork], denied: Sequence[IPNetwork]) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)

    def permits(self, address: str) -> bool:
        """May this address be connected to? False for what is not an address.

        An IPv6 address that stands for an IPv4 one (mapped, compatible, translated, 6to4, NAT64,
        Teredo) must be permitted as that too.
        """
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address):
            if ip.scope_id is not None:
                return False
            if ip.ipv4_mapped is not None:
                return self._permits(ip.ipv4_mapped)
            return self._permits(ip) and all(map(self._permits, _embedded(ip)))
        return self._permits(ip)

    def _permits(self, ip: _IPAddress) -> bool:
        if any(ip in network for network in self._allowed):
            return True
        return not any(ip in network for network in self._denied)


def _embedded(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that packets to this address may end at."""
    found = []
    if ip.sixtofour is not None:
        found.append(ip.sixtofour)
    if ip.teredo is not None:
        found += ip.teredo
    if int(ip) > 1 and any(ip in network for network in _LAST_32_BITS):  # not :: and ::1
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return found
