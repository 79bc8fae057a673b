"""Single sign-on: people log in with accounts that they have elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from config.types import Duration, option

_ID = re.compile(r"[0-9A-Za-z._~-]{1,255}")
_BRAND = re.compile(r"[a-z][a-z0-9._-]{0,254}")
_ICON = re.compile(r"mxc://[0-9A-Za-z.:\[\]-]+/[0-9A-Za-z_-]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_PROVIDERS_EXAMPLE = """\
- id: work
  name: Example Ltd
  issuer: "https://accounts.example.org/realms/staff"
  client_id: hearth
  client_secret: "the secret that was agreed on"
"""


def _check_id(text: str) -> str | None:
    return None if _ID.fullmatch(text) else "may hold A-Z a-z 0-9 . _ ~ - only"


def _check_brand(text: str | None) -> str | None:
    fits = text is None or _BRAND.fullmatch(text)
    return None if fits else "may hold a-z 0-9 . _ - only, and starts with a letter"


def _check_icon(text: str | None) -> str | None:
    fits = text is None or _ICON.fullmatch(text)
    return None if fits else "is not the address of a file on a homeserver, mxc://SERVER/ID"


def check_https(url: str) -> str | None:
    """What is wrong with the address of a web server that is asked."""
    try:
        parts = urlsplit(url)
        usable = url.isascii() and url.isprintable() and " " not in url and parts.hostname
    except ValueError:
        usable = None
    if not usable or parts.scheme != "https" or parts.query or parts.fragment or "@" in url:
        return "must be the address of a web server, https://..., without ? and #"
    return None


def _check_template(text: str) -> str | None:
    # Most configurations have none, and the library takes more than a megabyte.
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        ImmutableSandboxedEnvironment().from_string(text)
    except TemplateSyntaxError as error:
        return f"is not a template: {error.message}"
    return None


def _check_prefix(prefixes: tuple[str, ...]) -> str | None:
    for prefix in prefixes:
        if not _SCHEME.match(prefix):
            return f'holds "{prefix}", which is no address such as https://app.example.org/'
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredClaim:
    """What a provider must say of a person."""

    claim: str = option(doc="The name of the claim.")
    values: tuple[str, ...] = option(
        (), "One of these it must be, or hold if it is a list; without any, it must be there."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOn:
    """What all kinds of providers have."""

    id: str = option(
        doc="What clients and stored accounts know it by; not to be changed.", check=_check_id
    )
    name: str = option(doc="What people know it by.")
    icon: str | None = option(None, "Its picture: mxc://SERVER/ID.", check=_check_icon)
    brand: str | None = option(
        None, "What clients may know to draw, such as google, github.", check=_check_brand
    )
    localpart: str = option(
        "{{ user.preferred_username }}",
        "The first part of a new user ID, made of what the provider says of the person (Jinja). "
        "Where nothing comes of it, or it is taken, people choose one.",
        check=_check_template,
    )
    display_name: str = option(
        "{{ user.name }}", "A new user's display name.", check=_check_template
    )
    email: str = option(
        "{{ user.email }}",
        "A new user's e-mail address; used where the provider says that it has verified it.",
        check=_check_template,
    )
    trust_email: bool = option(
        False, "Whether addresses are used even if the provider does not say so."
    )
    choose_localpart: bool = option(
        False, "Whether people may change the suggested user name when their account is made."
    )
    registration: bool = option(True, "Whether people who have no account here get one.")
    existing_users: bool = option(
        False,
        "Whether people are let into the account that has their localpart already, once and for "
        "all. Only for providers whose user names are those of this server.",
    )
    required_claims: tuple[RequiredClaim, ...] = option(
        (),
        "What people must have to be let in.",
        example="[{claim: groups, values: [staff]}]",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SsoProvider(SignOn):
    """A provider that speaks OpenID Connect."""

    issuer: str = option(
        doc="Its address; what else is to be known is found below it.", check=check_https
    )
    client_id: str = option(doc="What the provider knows this server by.")
    client_secret: str | None = option(
        None, "The secret that was agreed on with the provider.", secret=True
    )
    client_auth: Literal["basic", "post"] = option(
        "basic", "How the secret is handed in: in the header, or in the form."
    )
    scopes: tuple[str, ...] = option(
        ("openid", "profile", "email"), "What the provider is asked for; openid must be there."
    )
    userinfo: bool = option(
        True, "Whether the provider is asked for more about a person than the ID token says."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cas(SignOn):
    """Single sign-on with a CAS server."""

    id: str = option(
        "cas", "What clients and stored accounts know it by; not to be changed.", check=_check_id
    )
    name: str = option("CAS", "What people know it by.")
    server_url: str = option(
        doc="The CAS server.", check=check_https, example="https://cas.example.org/cas"
    )
    localpart: str = option(
        "{{ user.user }}",
        "The first part of a new user ID, made of the user name there (user.user) and the "
        "attributes (Jinja). Where nothing comes of it, or it is taken, people choose one.",
        check=_check_template,
    )
    display_name: str = option(
        "{{ user.displayName }}", "A new user's display name.", check=_check_template
    )
    email: str = option(
        "{{ user.mail }}",
        "A new user's e-mail address, used with trust_email.",
        check=_check_template,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sso:
    """Single sign-on. Providers need public_base_url: they send people back there, to
    _matrix/static/client/sso/callback below it."""

    providers: tuple[SsoProvider, ...] = option(
        (),
        "Providers that speak OpenID Connect. Each is to be told where people are sent back: "
        "_matrix/static/client/sso/callback below public_base_url.",
        example=_PROVIDERS_EXAMPLE,
    )
    known_clients: tuple[str, ...] = option(
        (),
        "Clients to which people are sent back without being asked, by how their addresses begin.",
        check=_check_prefix,
        example='["https://app.example.org/"]',
    )
    login_token_lifetime: Duration = option(
        Duration(30_000), "How long a client can take to log in after that."
    )
    session_lifetime: Duration = option(
        Duration(900_000), "How long people can take at the provider."
    )
