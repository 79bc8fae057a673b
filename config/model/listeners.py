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
