"""Accounts, their sessions and how users prove who they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from config.types import Duration, option

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_NAME = re.compile(r"[0-9A-Za-z._~-]{1,255}")

_TERMS_EXAMPLE = """\
- name: privacy_policy
  version: "1.2"
  texts:
    - {language: en, title: Privacy policy, url: "https://example.org/privacy-1.2.html"}
    - {language: de, title: Datenschutz, url: "https://example.org/privacy-1.2-de.html"}
"""


def _check_language(language: str) -> str | None:
    return None if _LANGUAGE.fullmatch(language) else "is not a language code such as en or de"


def _check_terms_name(name: str) -> str | None:
    return None if _NAME.fullmatch(name) else "may hold A-Z a-z 0-9 . _ ~ - only"


def _check_url(url: str) -> str | None:
    return None if url.startswith(("https://", "http://")) else "must start with https://"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsText:
    """A document in one language."""

    language: str = option(doc="Its language, such as en.", check=_check_language)
    title: str = option(doc="What it is called in that language.")
    url: str = option(doc="Where it can be read.", check=_check_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A document that people accept."""

    name: str = option(doc="What clients know it by.", check=_check_terms_name)
    version: str = option(doc="Its version; a new one gets a new version.")
    texts: tuple[TermsText, ...] = option(doc="It in one or more languages.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who can make an account."""

    enabled: bool = option(False, "Whether people can register accounts themselves.")
    without_verification: bool = option(
        False,
        "Whether they can do so without e-mail, captcha or token. Spammers will: "
        "not for servers on the public network.",
    )
    require_token: bool = option(False, "Whether a registration token is asked for.")
    require_email: bool = option(
        False,
        "Whether an e-mail address is asked for and proved; with an email section and without "
        "this it can be given.",
    )
    terms: tuple[Terms, ...] = option(
        (),
        "Documents that people accept when they register. Who accepted which version is kept.",
        example=_TERMS_EXAMPLE,
    )
    guests: bool = option(False, "Whether guests can look around without an account.")
    shared_secret: str | None = option(
        None,
        "With this secret, administrators' scripts register accounts at "
        "/_synapse/admin/v1/register, even where registration is off.",
        secret=True,
        example='"a long random text"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """Passwords."""

    cost: Literal["default", "low"] = option(
        "default", "What hashing a password costs: default, or low for tests."
    )
    minimum_length: int = option(1, "Fewest characters of a new password.", minimum=1, maximum=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Login sessions."""

    access_token_lifetime: Duration = option(
        Duration(300_000), "How long access tokens last that come with a refresh token."
    )
    unrefreshed_token_lifetime: Duration | None = option(
        None,
        "How long access tokens last that come without a refresh token; clients then log in "
        "again and keep their keys. Without it: as long as the session.",
        example="365d",
    )
    login_token_lifetime: Duration = option(
        Duration(120_000),
        "How long a token lasts with which one client of a user lets another one log in.",
    )
    refresh_token_lifetime: Duration | None = option(
        None, "After how long without use a refresh token ends. Without it: never.", example="60d"
    )
    devices_per_user: int = option(
        1000, "Devices that one user can have; beyond that logging in is refused.", minimum=1
    )
    unused_devices_after: Duration | None = option(
        None,
        "After how long without use a device is logged out. Without it: never. What such a "
        "device has not yet decrypted, it cannot decrypt any more.",
        example="180d",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Who is online."""

    enabled: bool = option(True, "Whether presence is kept and shown.")
    federated: bool = option(
        True, "Whether other servers are told of it, and theirs is shown here."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """TURN servers, which carry calls between people who cannot reach each other."""

    uris: tuple[str, ...] = option(
        (), 'The TURN servers\' addresses, such as "turn:turn.example.org?transport=udp".'
    )
    shared_secret: str | None = option(
        None,
        "The secret that the TURN servers share with this server.",
        secret=True,
        example='"a long random text"',
    )
    lifetime: Duration = option(Duration(86_400_000), "How long clients may use a TURN server.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRtc:
    """Servers that carry calls of many people."""

    livekit_service_urls: tuple[str, ...] = option(
        (),
        "The services that let clients into LiveKit servers, such as "
        '"https://livekit-jwt.example.org"; clients prefer the first.',
    )
