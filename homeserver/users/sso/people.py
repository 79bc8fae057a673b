"""What a provider says of a person, and what is made of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from config.model import RequiredClaim
from homeserver.core.ids import InvalidIdentifier, map_localpart
from homeserver.core.threepids import EMAIL, InvalidAddress, canonical
from homeserver.core.types import JsonObject

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

MAX_SUBJECT_CHARACTERS = 255
MAX_NAME_CHARACTERS = 256
MAX_LOCALPART_CHARACTERS = 200

_log = structlog.get_logger(__name__)


class ProviderFailed(Exception):
    """A provider did not answer, or not as it should; the message is for operators."""


class SignOnRefused(Exception):
    """Somebody is not let in; the message is for them."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a provider knows: by what, and what it says of them."""

    subject: str
    claims: JsonObject


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a new account of a person would have; empty where nothing is known."""

    localpart: str = ""
    display_name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The secrets of one way to a provider and back. The provider gives `state` back, has
    `nonce` signed, and gives its answer only to whoever knows `verifier`."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Back:
    """With what somebody comes back from a provider: the fields of the query."""

    fields: dict[str, str]

    def get(self, name: str) -> str:
        """A field; "" if it is not there or cannot be meant."""
        value = self.fields.get(name, "")
        return value if value.isprintable() and len(value) <= 8192 else ""


class Provider(Protocol):
    """One way of signing on elsewhere."""

    async def address(self, ticket: Ticket, *, again: bool, register: bool) -> str:
        """Where a person is sent. `again`: to prove anew who they are; `register`: to make an
        account. Raises ProviderFailed."""

    async def person(self, ticket: Ticket, back: Back) -> Person:
        """Who it is that has come back. Raises ProviderFailed, SignOnRefused."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """How a provider's people become users.

    `accept_email(claims)`: whether the provider has verified the address.
    """

    localpart: str
    display_name: str
    email: str
    accept_email: Callable[[JsonObject], bool]
    required: Sequence[RequiredClaim] = ()

    def check(self, person: Person) -> None:
        """Raises SignOnRefused for people who lack what they must have."""
        for required in self.required:
            found = person.claims.get(required.claim)
            held = found if isinstance(found, list) else [found]
            told = {each if isinstance(each, str) else str(each) for each in held}
            if found is None or (required.values and not told & set(required.values)):
                raise SignOnRefused("Your account there does not entitle you to one here.")

    def suggestion(self, person: Person) -> Suggestion:
        """What a new account of a person would have."""
        email = ""
        if self.accept_email(person.claims):
            try:
                email = canonical(EMAIL, _rendered(self.email, person.claims))
            except InvalidAddress:
                email = ""
        name = "".join(c for c in _rendered(self.display_name, person.claims) if c.isprintable())
        return Suggestion(
            _localpart(_rendered(self.localpart, person.claims)),
            name[:MAX_NAME_CHARACTERS].strip(),
            email,
        )


def subject_of(value: Any) -> str:
    """The name that a provider knows a person by. Raises ProviderFailed."""
    usable = isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_CHARACTERS
    if not usable or not value.isprintable():
        raise ProviderFailed("it names nobody (sub)")
    subject: str = value
    return subject


@cache
def _templates() -> SandboxedEnvironment:
    # Most servers have no single sign-on, and the library takes more than a megabyte.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(finalize=lambda value: "" if value is None else value)


def _rendered(template: str, claims: JsonObject) -> str:
    from jinja2 import TemplateError

    try:
        return _templates().from_string(template).render(user=claims).strip()
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        _log.warning("A template of single sign-on failed", template=template, reason=str(error))
        return ""


def _localpart(text: str) -> str:
    """The localpart that is meant, or "": whoever has a name that cannot be one chooses."""
    if len(text) > MAX_LOCALPART_CHARACTERS:
        return ""
    try:
        return map_localpart(text)
    except InvalidIdentifier:
        return ""
