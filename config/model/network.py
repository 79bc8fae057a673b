"""Talking to other servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.types import Duration, IPNetwork, Size, ip_ranges, option

PRIVATE_RANGES = ip_ranges(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)

_ALLOWED = "IP ranges that are asked even though a denied range holds them."
_DENIED = "IP ranges that are never asked; by default the private and special ones."
_CA_FILES = "PEM files of certificate authorities trusted besides the system's."


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Federation with other homeservers."""

    verify_certificates: bool = option(True, "Whether other servers' certificates are verified.")
    ca_files: tuple[Path, ...] = option((), _CA_FILES)
    allowed_ip_ranges: tuple[IPNetwork, ...] = option((), _ALLOWED)
    denied_ip_ranges: tuple[IPNetwork, ...] = option(PRIVATE_RANGES, _DENIED)
    trusted_key_servers: tuple[str, ...] = option(
        (), "Servers asked for the keys of servers that do not answer."
    )
    public_rooms: bool = option(False, "Whether other servers can list this server's public rooms.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingHttp:
    """Requests to servers that are not homeservers: push gateways, previews, identity servers."""

    verify_tls: bool = option(True, "Whether their certificates are verified.")
    ca_files: tuple[Path, ...] = option((), _CA_FILES)
    allowed_ip_ranges: tuple[IPNetwork, ...] = option((), _ALLOWED)
    denied_ip_ranges: tuple[IPNetwork, ...] = option(PRIVATE_RANGES, _DENIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPreviews:
    """Previews of pages that people link to."""

    enabled: bool = option(
        False, "Whether the server fetches pages for previews. The pages learn its address."
    )
    allowed_ip_ranges: tuple[IPNetwork, ...] = option((), _ALLOWED)
    denied_ip_ranges: tuple[IPNetwork, ...] = option(PRIVATE_RANGES, _DENIED)
    denied_hosts: tuple[str, ...] = option(
        (), "Hosts whose pages are not previewed; * stands for anything.", example='["*.internal"]'
    )
    max_size: Size = option(
        Size(5 << 20), "How much of a page, and the largest picture, that is fetched.", minimum=1024
    )
    timeout: Duration = option(Duration(15_000), "How long a page, or its picture, may take.")
    keep: Duration = option(
        Duration(3_600_000), "For how long a page is not asked again.", minimum=Duration(60_000)
    )
    languages: tuple[str, ...] = option(
        ("en",), "The languages in which pages are asked for, the best first."
    )
