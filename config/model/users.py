"""Accounts, their sessions and how users prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import Duration, option


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
    refresh_token_lifetime: Duration | None = option(
        None, "After how long without use a refresh token ends. Without it: never.", example="60d"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Who is online."""

    enabled: bool = option(True, "Whether presence is kept and shown.")


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
class Email:
    """Sending e-mail."""

    smtp_host: str = option("localhost", "The mail server.")
    smtp_port: int = option(25, "Its port.", minimum=1, maximum=65535)
    smtp_user: str | None = option(None, "User name there.", example="hearth")
    smtp_password: str | None = option(None, "Password there.", secret=True, example='"a password"')
    # `from` is a word of the language; the loader drops the underscore.
    from_: str = option(doc="The sender's address.", example="Hearth <noreply@example.org>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaptcha:
    """A captcha at registration."""

    verify_url: str = option(
        "https://www.google.com/recaptcha/api/siteverify", "Where answers are verified."
    )
    public_key: str = option(doc="The site's public key.", example='"a key"')
    private_key: str = option(doc="The site's private key.", secret=True, example='"a key"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Cas:
    """Single sign-on with a CAS server."""

    server_url: str = option(doc="The CAS server.", example="https://cas.example.org")
