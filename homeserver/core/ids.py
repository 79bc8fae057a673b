"""Identifiers: user IDs, room IDs, event IDs, room aliases and server names.

Rules (Appendices, "Identifier Grammar"):

- every identifier is at most 255 bytes of UTF-8, sigil and domain included;
- NUL and lone surrogates never appear;
- user IDs of other servers may hold any other code point but the colon (historical user IDs),
  new local ones only ``a-z 0-9 . _ = - / +``;
- room IDs are opaque: from room version 12 on they have no domain;
- comparison is byte by byte, case matters everywhere.

The types are `str` subclasses, so that they go wherever a string goes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Self

MAX_ID_BYTES = 255

_SERVER_NAME = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[0-9A-Za-z.-]{1,255}))(?::(?P<port>[0-9]{1,5}))?"
)
_IPV4_SHAPE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_NEW_LOCALPART = re.compile(r"[a-z0-9._=\-/+]+")
_COMPLIANT_LOCALPART = re.compile(r"[!-9;-~]+")
_MAPPED_AS_IS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-/+")


class InvalidIdentifier(ValueError):
    """A text is not an identifier of the wanted `kind`; `reason` says why, for people."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"Not a valid {kind}: {reason}")
        self.kind = kind
        self.reason = reason


class ServerName(str):
    """The name of a homeserver: DNS name, IPv4 or bracketed IPv6 address, optional port."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The server name in `text`; raises `InvalidIdentifier`."""
        reason = _server_name_fault(text)
        if reason is not None:
            raise InvalidIdentifier("server name", reason)
        return cls(text)

    @property
    def host(self) -> str:
        """The name without the port; an IPv6 address keeps its brackets."""
        return self.partition("]")[0] + "]" if self.startswith("[") else self.partition(":")[0]

    @property
    def port(self) -> int | None:
        """The explicit port, if there is one."""
        rest = self[len(self.host) :]
        return int(rest[1:]) if rest else None

    @property
    def is_ip_address(self) -> bool:
        """Is the host an IPv4 or IPv6 literal?"""
        return self.startswith("[") or _IPV4_SHAPE.fullmatch(self.host) is not None


class _Identifier(str):
    __slots__ = ()
    KIND = ""
    SIGIL = ""

    @classmethod
    def _check(cls, text: str) -> None:
        """What all identifiers share: sigil, length in bytes, forbidden characters."""
        if not text.startswith(cls.SIGIL):
            raise InvalidIdentifier(cls.KIND, f"it must start with {cls.SIGIL!r}")
        if "\x00" in text:
            raise InvalidIdentifier(cls.KIND, "it holds a NUL")
        try:
            size = len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError:
            raise InvalidIdentifier(cls.KIND, "it holds a lone surrogate") from None
        if size > MAX_ID_BYTES:
            raise InvalidIdentifier(cls.KIND, f"it is longer than {MAX_ID_BYTES} bytes")
        if size < 2:
            raise InvalidIdentifier(cls.KIND, "it is empty")

    @classmethod
    def _check_domain(cls, text: str) -> None:
        _, colon, domain = text.partition(":")
        if not colon:
            raise InvalidIdentifier(cls.KIND, "it has no domain")
        reason = _server_name_fault(domain)
        if reason is not None:
            raise InvalidIdentifier(cls.KIND, reason)


class UserID(_Identifier):
    """``@localpart:domain``."""

    __slots__ = ()
    KIND = "user ID"
    SIGIL = "@"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The user ID in `text`, historical ones included; raises `InvalidIdentifier`."""
        cls._check(text)
        cls._check_domain(text)
        return cls(text)

    @classmethod
    def is_valid(cls, text: str) -> bool:
        """Whether `parse` takes this; faster."""
        if text.isascii() and text[:1] == cls.SIGIL and len(text) <= MAX_ID_BYTES:
            _, colon, domain = text.partition(":")
            return bool(colon) and "\0" not in text and _server_name_fault(domain) is None
        try:
            cls.parse(text)
        except InvalidIdentifier:
            return False
        return True

    @classmethod
    def check_all(cls, texts: Iterable[str]) -> None:
        """Check many user IDs, of few domains; raises `InvalidIdentifier` as `parse` does."""
        domains: set[str] = set()
        for text in texts:
            localpart, _, domain = text.partition(":")
            if (
                domain not in domains
                or len(text) > MAX_ID_BYTES
                or localpart[:1] != "@"
                or "\0" in localpart
                or not localpart.isascii()
            ):
                cls.parse(text)
                domains.add(domain)

    @classmethod
    def of(cls, localpart: str, domain: str) -> Self:
        """Put together a user ID; raises `InvalidIdentifier`."""
        return cls.parse(f"@{localpart}:{domain}")

    @property
    def localpart(self) -> str:
        return self[1:].partition(":")[0]

    @property
    def domain(self) -> ServerName:
        return ServerName(self.partition(":")[2])

    @property
    def is_compliant(self) -> bool:
        """May clients be told of this user outside events (Appendices, "Historical User IDs")?

        The localpart must not be empty and hold only U+0021 to U+007E.
        """
        return _COMPLIANT_LOCALPART.fullmatch(self.localpart) is not None


class RoomAlias(_Identifier):
    """``#alias:domain``."""

    __slots__ = ()
    KIND = "room alias"
    SIGIL = "#"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The alias in `text`; raises `InvalidIdentifier`."""
        cls._check(text)
        cls._check_domain(text)
        return cls(text)

    @property
    def localpart(self) -> str:
        return self[1:].partition(":")[0]

    @property
    def domain(self) -> ServerName:
        return ServerName(self.partition(":")[2])


class RoomID(_Identifier):
    """``!opaque`` or, before room version 12, ``!opaque:domain``.

    There is no `domain`: nothing may be routed by a room ID.
    """

    __slots__ = ()
    KIND = "room ID"
    SIGIL = "!"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The room ID in `text`; raises `InvalidIdentifier`."""
        cls._check(text)
        if ":" in text:
            cls._check_domain(text)
        return cls(text)

    @property
    def legacy_domain(self) -> ServerName | None:
        """The domain of a room ID of versions 1 to 11; None if it has none.

        Its only use is the authorisation rule on create events of these versions.
        """
        domain = self.partition(":")[2]
        return ServerName(domain) if domain else None


class EventID(_Identifier):
    """``$opaque``, or ``$opaque:domain`` in room versions 1 and 2."""

    __slots__ = ()
    KIND = "event ID"
    SIGIL = "$"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The event ID in `text`; raises `InvalidIdentifier`."""
        cls._check(text)
        return cls(text)


def domain_of(user_id: str) -> str:
    """The part of a user ID (or alias) after the first colon, without checking it.

    For user IDs that an event format check has let through already; "" if there is no colon.
    """
    return user_id.partition(":")[2]


def valid_new_localpart(localpart: str) -> bool:
    """May a new account have this localpart? (Appendices, "User Identifiers")"""
    return _NEW_LOCALPART.fullmatch(localpart) is not None


def map_localpart(name: str) -> str:
    """The localpart for a user name given in a registration: ASCII upper case is lowered.

    Raises `InvalidIdentifier` if other characters remain that a new user ID may not hold
    (the API answers ``M_INVALID_USERNAME``).
    """
    # Not str.lower(): it would map letters such as the Kelvin sign into the permitted set.
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in name)
    if not lowered:
        raise InvalidIdentifier("localpart", "it is empty")
    if not valid_new_localpart(lowered):
        raise InvalidIdentifier(
            "localpart", "it may only hold the characters a-z, 0-9, '.', '_', '=', '-', '/', '+'"
        )
    return lowered


def escape_localpart(name: str) -> str:
    """Map any text to a permitted localpart (Appendices, "Mapping from other character sets").

    ASCII upper case is lowered, every other byte outside the permitted set, and ``=``, becomes
    ``=`` and two hexadecimal digits. For names from an identity provider.
    """
    lowered = name.encode("utf-8", "replace")
    return "".join(
        chr(byte + 32)
        if 65 <= byte <= 90
        else chr(byte)
        if byte in _MAPPED_AS_IS
        else f"={byte:02x}"
        for byte in lowered
    )


def _server_name_fault(text: str) -> str | None:
    # The same few names come again and again, in user IDs above all.
    return _fault_remembered(text) if len(text) <= MAX_ID_BYTES else _fault(text)


def _fault(text: str) -> str | None:
    match = _SERVER_NAME.fullmatch(text)
    if match is None:
        return "its server name is malformed"
    port = match["port"]
    if port is not None and int(port) > 65535:
        return "its port is out of range"
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            return "its IPv6 address is malformed"
    elif _IPV4_SHAPE.fullmatch(match["host"]) and any(
        int(octet) > 255 for octet in match["host"].split(".")
    ):
        return "its IPv4 address is out of range"
    return None


_fault_remembered = lru_cache(maxsize=4096)(_fault)
