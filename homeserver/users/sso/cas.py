"""CAS: asking a server of the protocol's version 3 who somebody is (CAS Protocol, section 2.8)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from federation.client.errors import RemoteError
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.users.sso.people import (
    Back,
    Person,
    ProviderFailed,
    SignOnRefused,
    Ticket,
    subject_of,
)

TIMEOUT_S = 10.0

_NAMESPACE = "{http://www.yale.edu/tp/cas}"
_MAX_ATTRIBUTES = 1_000


class CasProvider:
    """One CAS server; people come back to `callback`. See `Provider`."""

    def __init__(self, server_url: str, http: OutgoingHttpClient, callback: str) -> None:
        self._server_url = server_url.rstrip("/")
        self._http = http
        self._callback = callback

    async def address(self, ticket: Ticket, *, again: bool, register: bool) -> str:
        """Where a person is sent. CAS gives nothing back but a ticket for the whole address, so
        that the state is part of it."""
        fields = {"service": self._service(ticket)}
        if again:
            fields["renew"] = "true"
        return f"{self._server_url}/login?{urlencode(fields, quote_via=quote)}"

    async def person(self, ticket: Ticket, back: Back) -> Person:
        """Who it is that has come back."""
        given = back.get("ticket")
        if not given:
            raise SignOnRefused("You were not logged in there.")
        fields = {"service": self._service(ticket), "ticket": given}
        url = f"{self._server_url}/p3/serviceValidate?{urlencode(fields, quote_via=quote)}"
        try:
            answer = await self._http.request("GET", url, {}, timeout_s=TIMEOUT_S)
        except RemoteError as error:
            raise ProviderFailed(f"{self._server_url}: {error.reason}") from None
        if answer.status != 200:
            raise ProviderFailed(f"serviceValidate answered {answer.status}")
        return _person(_parsed(answer.body))

    def _service(self, ticket: Ticket) -> str:
        return f"{self._callback}?{urlencode({'state': ticket.state})}"


def _parsed(body: bytes) -> Any:
    # Entities can be made to grow without end, and CAS has no use for them.
    if b"<!" in body.replace(b"<!--", b"").replace(b"<![CDATA[", b"") or b"\x00" in body:
        raise ProviderFailed("its answer declares types or entities")
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise ProviderFailed("its answer is not XML") from None
    if root.tag != f"{_NAMESPACE}serviceResponse":
        raise ProviderFailed("its answer is no serviceResponse")
    return root


def _person(root: Any) -> Person:
    failure = root.find(f"{_NAMESPACE}authenticationFailure")
    success = root.find(f"{_NAMESPACE}authenticationSuccess")
    if failure is not None and success is None:
        code = str(failure.get("code", ""))[:100]
        raise SignOnRefused(f"Your login there is over, or is not accepted ({code}). Begin again.")
    user = None if success is None else success.find(f"{_NAMESPACE}user")
    if success is None or user is None or failure is not None:
        raise ProviderFailed("its answer names nobody")
    subject = subject_of((user.text or "").strip())
    return Person(subject, {**_attributes(success), "user": subject})


def _attributes(success: Any) -> JsonObject:
    """The attributes: texts, or lists of texts for those that are there several times."""
    found: JsonObject = {}
    listed = success.find(f"{_NAMESPACE}attributes")
    for each in list(listed)[:_MAX_ATTRIBUTES] if listed is not None else []:
        name, value = each.tag.removeprefix(_NAMESPACE), (each.text or "").strip()
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
