"""Registrations of application services (Application Service API, "Registration")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.types import JsonObject

MAX_TOKEN = 4096

_KINDS = ("users", "rooms", "aliases")


class BadRegistration(ValueError):
    """A registration cannot be used; `problems` are sentences for operators."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Namespace:
    """Identifiers that begin as the expression says; the service's alone if it is exclusive.

    Expressions are matched in time linear to the identifier (RE2).
    """

    regex: str
    exclusive: bool
    _pattern: Any = field(repr=False, compare=False)

    def matches(self, identifier: str) -> bool:
        return self._pattern.match(identifier) is not None


@dataclass(frozen=True, slots=True)
class AppserviceRegistration:
    """One application service. `sender` is its own user; `url` is where it is told of events."""

    appservice_id: str
    url: str | None
    as_token: str = field(repr=False)
    hs_token: str = field(repr=False)
    sender: UserID
    users: tuple[Namespace, ...] = ()
    rooms: tuple[Namespace, ...] = ()
    aliases: tuple[Namespace, ...] = ()
    rate_limited: bool = True
    protocols: tuple[str, ...] = ()
    receive_ephemeral: bool = False
    server_name: str = ""

    def owns_user(self, user_id: str) -> bool:
        """Whether a user is of this server, and the service's own or in its namespace."""
        if user_id == self.sender:
            return True
        return user_id.endswith(f":{self.server_name}") and _any(self.users, user_id)

    def owns_alias(self, alias: str) -> bool:
        """Whether an alias is in its namespace."""
        return _any(self.aliases, alias)

    def has_room(self, room_id: str) -> bool:
        """Whether a room's ID is in its namespace."""
        return _any(self.rooms, room_id)

    def claims_user(self, user_id: str) -> bool:
        """Whether a user is the service's alone."""
        return user_id == self.sender or _any_exclusive(self.users, user_id)

    def claims_alias(self, alias: str) -> bool:
        """Whether an alias is the service's alone."""
        return _any_exclusive(self.aliases, alias)


def _any(namespaces: Iterable[Namespace], identifier: str) -> bool:
    return any(each.matches(identifier) for each in namespaces)


def _any_exclusive(namespaces: Iterable[Namespace], identifier: str) -> bool:
    return any(each.exclusive and each.matches(identifier) for each in namespaces)


class _Reader:
    """Reads one registration and collects what is wrong with it."""

    def __init__(self, content: JsonObject) -> None:
        self.content = content
        self.problems: list[str] = []

    def text(self, key: str, *, needed: bool = True) -> str:
        value = self.content.get(key)
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or not value or not value.isprintable():
            self.problems.append(f"{key}: expected text, found {_found(value)}")
            return ""
        return value

    def token(self, key: str) -> str:
        value = self.text(key)
        if len(value) > MAX_TOKEN or not value.isascii() or " " in value:
            self.problems.append(f"{key}: may hold ASCII characters only, and no space")
        return value

    def flag(self, default: bool, *keys: str) -> bool:
        for key in keys:
            value = self.content.get(key)
            if value is None:
                continue
            if isinstance(value, bool):
                return value
            self.problems.append(f"{key}: expected true or false, found {_found(value)}")
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.content.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.problems.append(f"{key}: expected a list of texts")
            return ()
        return tuple(value)

    def url(self) -> str | None:
        if "url" not in self.content:
            self.problems.append("url: is missing; null if the service is to be told nothing")
        value = self.content.get("url")
        if value is None or value == "":
            return None
        usable = isinstance(value, str) and value.isascii() and value.isprintable()
        if not usable or not value.startswith(("http://", "https://")) or " " in value:
            self.problems.append(f"url: expected http://... or https://..., found {_found(value)}")
            return None
        return str(value).rstrip("/")

    def sender(self, server_name: str) -> UserID:
        try:
            return UserID.of(self.text("sender_localpart"), server_name)
        except InvalidIdentifier as error:
            if self.content.get("sender_localpart"):
                self.problems.append(f"sender_localpart: {error.reason}")
            return UserID(f"@:{server_name}")

    def namespaces(self) -> dict[str, tuple[Namespace, ...]]:
        content = self.content.get("namespaces")
        if not isinstance(content, dict):
            self.problems.append("namespaces: expected users, rooms and aliases")
            return dict.fromkeys(_KINDS, ())
        for key in content:
            if key not in _KINDS:
                self.problems.append(f"namespaces.{key}: expected users, rooms or aliases")
        return {kind: self._namespaces(kind, content.get(kind)) for kind in _KINDS}

    def _namespaces(self, kind: str, listed: Any) -> tuple[Namespace, ...]:
        # Few servers have application services, and the library takes two megabytes.
        import re2

        quiet = re2.Options()
        quiet.log_errors = False
        if listed is None:
            return ()
        if not isinstance(listed, list):
            self.problems.append(f"namespaces.{kind}: expected a list")
            return ()
        found = []
        for index, each in enumerate(listed):
            where = f"namespaces.{kind}[{index}]"
            if not isinstance(each, dict) or not isinstance(each.get("regex"), str):
                self.problems.append(f"{where}: expected exclusive and regex")
                continue
            exclusive = each.get("exclusive", False)
            if not isinstance(exclusive, bool):
                self.problems.append(f"{where}.exclusive: expected true or false")
                continue
            try:
                pattern = re2.compile(each["regex"], quiet)
            except re2.error as error:
                self.problems.append(f"{where}.regex: {_text(error)}")
                continue
            found.append(Namespace(each["regex"], exclusive, pattern))
        return tuple(found)


def parse_registration(content: Any, server_name: str) -> AppserviceRegistration:
    """The registration in a parsed file. Raises BadRegistration."""
    if not isinstance(content, dict):
        raise BadRegistration(["expected keys and values"])
    reader = _Reader(content)
    appservice_id = reader.text("id")
    url = reader.url()
    as_token, hs_token = reader.token("as_token"), reader.token("hs_token")
    sender = reader.sender(server_name)
    namespaces = reader.namespaces()
    rate_limited = reader.flag(True, "rate_limited")
    receive_ephemeral = reader.flag(
        False, "receive_ephemeral", "de.sorunome.msc2409.push_ephemeral"
    )
    protocols = reader.texts("protocols")
    if reader.problems:
        raise BadRegistration(reader.problems)
    return AppserviceRegistration(
        appservice_id=appservice_id,
        url=url,
        as_token=as_token,
        hs_token=hs_token,
        sender=sender,
        **namespaces,
        rate_limited=rate_limited,
        protocols=protocols,
        receive_ephemeral=receive_ephemeral,
        server_name=server_name,
    )


def check_together(registrations: Sequence[AppserviceRegistration]) -> list[str]:
    """What is wrong with registrations that are each right: IDs and tokens belong to one."""
    problems = []
    columns: tuple[tuple[str, list[str]], ...] = (
        ("id", [each.appservice_id for each in registrations]),
        ("as_token", [each.as_token for each in registrations]),
        ("hs_token", [each.hs_token for each in registrations]),
        ("sender_localpart", [str(each.sender) for each in registrations]),
    )
    for name, values in columns:
        for index, value in enumerate(values):
            if value in values[:index]:
                first = registrations[values.index(value)].appservice_id
                other = registrations[index].appservice_id
                problems.append(f"{name}: {first!r} and {other!r} have the same")
    return problems


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    return f'the text "{value[:100]}"' if isinstance(value, str) else f"a {type(value).__name__}"


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
