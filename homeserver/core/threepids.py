"""Third-party identifiers in canonical form (Appendices, "3PID Types")."""

from __future__ import annotations

import re

import idna

EMAIL = "email"
MSISDN = "msisdn"
MAX_ADDRESS_CHARACTERS = 254
"""RFC 5321: longer addresses cannot be used in SMTP."""

_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAX_LOCAL = 64
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9-]{1,63})*")
_NOT_DIALLED = re.compile(r"[\s()./\-]+")
_MSISDN = re.compile(r"[1-9][0-9]{3,14}")
_OPAQUE = re.compile(r"[0-9a-zA-Z.=_\-]{1,255}")


class InvalidAddress(ValueError):
    """A text is no e-mail address or telephone number that could be reached."""


def canonical_email(text: str) -> str:
    """An address as it is stored and compared: case-folded, its domain in the form of DNS.

    Quoted local parts, comments, display names and what is not ASCII before the @ are refused,
    so that an address can stand in a header and in a command of SMTP as it is.
    Raises InvalidAddress.
    """
    if len(text) > MAX_ADDRESS_CHARACTERS:
        raise InvalidAddress("it is too long")
    local, at, domain = text.casefold().rpartition("@")
    if not at or len(local) > _MAX_LOCAL or _LOCAL.fullmatch(local) is None:
        raise InvalidAddress("what is before the @ is not valid")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            raise InvalidAddress("the domain is not valid") from None
    if _DOMAIN.fullmatch(domain) is None:
        raise InvalidAddress("the domain is not valid")
    return f"{local}@{domain}"


def canonical_msisdn(text: str) -> str:
    """A number in international form as digits. Raises InvalidAddress."""
    digits = _NOT_DIALLED.sub("", text)
    digits = digits.removeprefix("+").removeprefix("00")
    if not digits.isascii() or _MSISDN.fullmatch(digits) is None:
        raise InvalidAddress("it is no telephone number in international form")
    return digits


def canonical(medium: str, address: str) -> str:
    """The canonical form of an address of a known medium. Raises InvalidAddress."""
    if medium == EMAIL:
        return canonical_email(address)
    if medium == MSISDN:
        return canonical_msisdn(address)
    raise InvalidAddress("its medium is unknown")


def is_client_secret(text: str) -> bool:
    """Whether a text can be a client secret or the ID of a validation session."""
    return _OPAQUE.fullmatch(text) is not None
