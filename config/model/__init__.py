"""The configuration as frozen dataclasses, a module for each group of sections.

The schema, the sample and the messages about mistakes are all derived from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.model.history import MessageRetention, Redactions
from config.model.listeners import DEFAULT_LISTENERS, LISTENERS_EXAMPLE, Listener, Serves, Tls
from config.model.log import Log
from config.model.mail import Email, Recaptcha
from config.model.media import (
    S3,
    Media,
    MediaRetention,
    MediaScan,
    MediaSpace,
    MediaStore,
    Thumbnails,
)
from config.model.network import PRIVATE_RANGES, Federation, OutgoingHttp, UrlPreviews
from config.model.push import Push, PushMail
from config.model.rates import Rate, RateLimits, ReadOnly
from config.model.rooms import (
    DelayedEvents,
    Experimental,
    PolicyServer,
    PublicRooms,
    RoomAliases,
    ServerNotices,
)
from config.model.sso import Cas, RequiredClaim, SignOn, Sso, SsoProvider
from config.model.storage import Caches, Database, Redis
from config.model.users import (
    MatrixRtc,
    Passwords,
    Presence,
    Registration,
    Sessions,
    Terms,
    TermsText,
    Turn,
)
from config.types import Duration, option
from homeserver.core.ids import InvalidIdentifier, ServerName

__all__ = [
    "PRIVATE_RANGES",
    "S3",
    "Caches",
    "Cas",
    "Config",
    "Database",
    "DelayedEvents",
    "Email",
    "Experimental",
    "Federation",
    "Listener",
    "Log",
    "MatrixRtc",
    "Media",
    "MediaRetention",
    "MediaScan",
    "MediaSpace",
    "MediaStore",
    "OutgoingHttp",
    "Passwords",
    "PolicyServer",
    "Presence",
    "PublicRooms",
    "Push",
    "PushMail",
    "Rate",
    "RateLimits",
    "ReadOnly",
    "Recaptcha",
    "Redis",
    "Registration",
    "RequiredClaim",
    "RoomAliases",
    "ServerNotices",
    "Serves",
    "Sessions",
    "SignOn",
    "Sso",
    "SsoProvider",
    "Terms",
    "TermsText",
    "Thumbnails",
    "Tls",
    "Turn",
    "UrlPreviews",
]


def _check_server_name(name: str) -> str | None:
    try:
        ServerName.parse(name)
    except InvalidIdentifier as error:
        return f"is not a server name: {error.reason}"
    return None


def _check_base_url(url: str | None) -> str | None:
    if url is None or url.startswith(("http://", "https://")):
        return None
    return "must start with https:// or http://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that an operator decides."""

    server_name: str = option(
        doc="The name of this server: the part after the colon in its users' IDs. "
        "It cannot be changed later.",
        check=_check_server_name,
        example="example.org",
    )
    public_base_url: str | None = option(
        None,
        "Where clients reach the server from outside.",
        check=_check_base_url,
        example="https://matrix.example.org/",
    )
    data_directory: Path = option(
        Path("data"),
        "Database, signing key and media; made if absent. Relative paths in this file are "
        "relative to the file.",
        example="./data",
    )
    database: Database = option(Database, "The database.")
    redis: Redis | None = option(
        None,
        "Redis, needed when several processes serve one database.",
        example='{url: "redis://localhost:6379/0"}',
    )
    caches: Caches = option(Caches, "Memory.")
    listeners: tuple[Listener, ...] = option(
        DEFAULT_LISTENERS,
        "Addresses that the server listens on, and what is answered at each. Listeners that serve "
        "only metrics and health are each process's own: with several processes, process N "
        "(from 0) listens on port + N.",
        example=LISTENERS_EXAMPLE,
    )
    stop_timeout: Duration = option(
        Duration(10_000), "How long a stopping server goes on with requests it has begun."
    )
    log: Log = option(Log, "Logs.")
    registration: Registration = option(Registration, "Who can make an account.")
    passwords: Passwords = option(Passwords, "Passwords.")
    sessions: Sessions = option(Sessions, "Login sessions.")
    rate_limits: RateLimits = option(
        RateLimits, "Limits for each user, or for each address where no user is known yet."
    )
    read_only: ReadOnly = option(
        ReadOnly, "A pause for writing, say while a disk is full or the server moves."
    )
    default_room_version: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] = (
        option("12", "The version of new rooms.")
    )
    presence: Presence = option(Presence, "Who is online.")
    turn: Turn = option(Turn, "TURN servers, which carry calls.")
    matrix_rtc: MatrixRtc = option(MatrixRtc, "Servers that carry calls of many people.")
    federation: Federation = option(Federation, "Federation with other homeservers.")
    outgoing_http: OutgoingHttp = option(
        OutgoingHttp, "Requests to push gateways, previewed pages and identity servers."
    )
    push: Push = option(Push, "Notifications to devices, browsers and by e-mail.")
    application_service_files: tuple[Path, ...] = option(
        (), "Registration files of application services (bridges, bots)."
    )
    email: Email | None = option(None, "Sending e-mail. It needs public_base_url, for the links.")
    recaptcha: Recaptcha | None = option(None, "A captcha at registration.")
    identity_servers: tuple[str, ...] = option(
        ("matrix.org", "vector.im"),
        "Identity servers at which people may have their addresses published and withdrawn.",
    )
    sso: Sso = option(Sso, "Single sign-on: people log in with accounts that they have elsewhere.")
    cas: Cas | None = option(None, "Single sign-on with a CAS server.")
    url_previews: UrlPreviews = option(UrlPreviews, "Previews of pages that people link to.")
    media: Media = option(Media, "Files that people send.")
    public_rooms: PublicRooms = option(PublicRooms, "The list of public rooms.")
    room_aliases: RoomAliases = option(RoomAliases, "Room aliases.")
    policy_server: PolicyServer | None = option(
        None,
        "A policy server that runs under this server's name.",
        example="{ed25519: 6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s}",
    )
    server_notices: ServerNotices = option(
        ServerNotices, "What the server itself tells its users, see `hearth notice`."
    )
    redactions: Redactions = option(Redactions, "Redacted events.")
    message_retention: MessageRetention = option(
        MessageRetention, "Messages that are not kept for ever."
    )
    delayed_events: DelayedEvents = option(
        DelayedEvents, "Events that clients have sent later, as calls need it."
    )
    experimental: Experimental = option(
        Experimental, "A switch for each proposal that few clients use and that costs something."
    )
