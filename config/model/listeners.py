"""Addresses that the server listens on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from config.types import IPNetwork, option

Serves: TypeAlias = Literal["client", "federation", "media", "admin", "metrics", "health"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS of one listener."""

    certificate: Path = option(doc="PEM file: the certificate, then its chain.")
    private_key: Path = option(doc="PEM file: the private key.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address and port, and what is answered there."""

    address: str = option("127.0.0.1", "IP address to listen on; `::` and 0.0.0.0 mean all.")
    port: int = option(doc="TCP port.", minimum=0, maximum=65535)
    serves: tuple[Serves, ...] = option(
        ("client", "federation", "media", "admin"),
        "What is answered here: client, federation, media, admin, metrics, health.",
    )
    tls: Tls | None = option(None, "Certificate and key; without them the listener speaks HTTP.")
    trusted_proxies: tuple[IPNetwork, ...] = option(
        (), "Reverse proxies whose X-Forwarded-For header is believed, as IP ranges."
    )


DEFAULT_LISTENERS = (Listener(port=8008),)

LISTENERS_EXAMPLE = """\
- {address: 127.0.0.1, port: 8008, serves: [client, federation, media, admin]}
# With TLS, for other homeservers:
# - {address: 0.0.0.0, port: 8448, serves: [federation],
#    tls: {certificate: c.pem, private_key: k.pem}}
# For monitoring; a load balancer asks /health:
# - {address: 127.0.0.1, port: 9100, serves: [metrics, health]}
# Behind a reverse proxy on the same machine:
# - {address: 127.0.0.1, port: 8009, serves: [client], trusted_proxies: [127.0.0.0/8]}
"""
