"""Requests to application services (Application Service API, "Homeserver -> Application Service
API").

Services are the operator's: they may be on the operator's own network, and speak plain HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from federation.client.errors import RemoteError
from homeserver.core import canonical
from homeserver.core.appservices import AppserviceRegistration
from homeserver.outbound.http import OutgoingHttpClient

if TYPE_CHECKING:
    from federation.client.https import HttpAnswer

PREFIX = "/_matrix/app/v1"
MAX_BYTES = 1024 * 1024
TIMEOUT_S = 60.0
QUERY_TIMEOUT_S = 10.0

_PLAIN = {"Accept": "application/json"}
_NO_ROUTE = frozenset({404, 405})


class AppserviceCalls:
    """Asks application services. All methods raise RemoteError where there is no answer."""

    def __init__(self, http: OutgoingHttpClient) -> None:
        self._http = http

    async def request(
        self,
        service: AppserviceRegistration,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: dict[str, str] | None = None,
        old: str | None = "",
        timeout_s: float | None = None,
    ) -> HttpAnswer:
        """The answer of a service, whatever its status.

        `path` is below /_matrix/app/v1; `old`: what the path begins with at services of old
        versions, which are asked there if they do not know the new one; None if they know none.
        """
        assert service.url is not None
        timeout_s = QUERY_TIMEOUT_S if timeout_s is None else timeout_s
        fields = dict(query or {})
        answer = await self._ask(service, method, PREFIX + path, body, fields, timeout_s)
        if old is None or not _is_unknown_route(answer):
            return answer
        fields["access_token"] = service.hs_token
        return await self._ask(service, method, old + path, body, fields, timeout_s)

    async def _ask(
        self,
        service: AppserviceRegistration,
        method: str,
        path: str,
        body: bytes | None,
        fields: dict[str, str],
        timeout_s: float,
    ) -> HttpAnswer:
        url = f"{service.url}{path}"
        if fields:
            url += f"?{urlencode(fields)}"
        headers = {**_PLAIN, "Authorization": f"Bearer {service.hs_token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self._http.request(
            method, url, headers, body, max_bytes=MAX_BYTES, timeout_s=timeout_s
        )

    async def has_user(self, service: AppserviceRegistration, user_id: str) -> bool:
        """Whether the service has such a user, whom it then has registered."""
        return await self._exists(service, f"/users/{quote(user_id, safe='')}")

    async def has_alias(self, service: AppserviceRegistration, alias: str) -> bool:
        """Whether the service has such an alias, which it then has made."""
        return await self._exists(service, f"/rooms/{quote(alias, safe='')}")

    async def _exists(self, service: AppserviceRegistration, path: str) -> bool:
        if service.url is None:
            return False
        try:
            answer = await self.request(service, "GET", path)
        except RemoteError:
            return False
        return answer.status == 200


def answered_json(answer: HttpAnswer) -> Any:
    """The JSON of an answer, None if there is none."""
    try:
        return canonical.parse(answer.body)
    except canonical.NotJSON:
        return None


def _is_unknown_route(answer: HttpAnswer) -> bool:
    """Whether it is the path that a service does not know."""
    if answer.status not in _NO_ROUTE:
        return False
    found = answered_json(answer)
    errcode = found.get("errcode") if isinstance(found, dict) else None
    return errcode in (None, "M_UNRECOGNIZED")
