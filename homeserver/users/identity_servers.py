"""Identity servers: publishing and withdrawing users' addresses (Identity Service API).

Only servers that the operator named are asked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from federation.client.errors import RemoteError
from federation.client.signer import RequestSigner, encode_content
from homeserver.core.errors import MatrixError
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient, json_object

if TYPE_CHECKING:
    from federation.client.https import HttpAnswer

_BIND = "/_matrix/identity/v2/3pid/bind"
_UNBIND = "/_matrix/identity/v2/3pid/unbind"
_NO_SUPPORT = (400, 403, 404, 501)


class IdentityServers:
    """Asks the trusted identity servers."""

    def __init__(
        self, http: OutgoingHttpClient, signer: RequestSigner, trusted: Collection[str]
    ) -> None:
        self._http = http
        self._signer = signer
        self._trusted = frozenset(trusted)

    def check_trusted(self, id_server: str) -> None:
        """Raises MatrixError 400 M_SERVER_NOT_TRUSTED."""
        if id_server not in self._trusted:
            raise MatrixError(
                400, "M_SERVER_NOT_TRUSTED", "This identity server is not trusted here."
            )

    async def bind(
        self, id_server: str, id_access_token: str, sid: str, client_secret: str, user_id: str
    ) -> JsonObject:
        """Have an address published that the server has validated; the association.

        Raises MatrixError: 400 M_SERVER_NOT_TRUSTED, 502 M_UNKNOWN, the server's own errors.
        """
        self.check_trusted(id_server)
        content = {"sid": sid, "client_secret": client_secret, "mxid": user_id}
        # A line break would begin another header.
        if not (id_access_token.isascii() and id_access_token.isprintable()):
            raise MatrixError(400, "M_INVALID_PARAM", "id_access_token is not valid.")
        headers = {"Authorization": f"Bearer {id_access_token}"}
        answer = await self._post(id_server, _BIND, content, headers)
        body = json_object(answer)
        if not 200 <= answer.status < 300:
            raise _passed_on(answer, body)
        if body is None:
            raise _unusable()
        return body

    async def unbind(self, id_server: str, medium: str, address: str, user_id: str) -> bool:
        """Have an address withdrawn; False if the server does not support that.

        Raises MatrixError: 400 M_SERVER_NOT_TRUSTED, 502 M_UNKNOWN, the server's own errors.
        """
        self.check_trusted(id_server)
        content = {"mxid": user_id, "threepid": {"medium": medium, "address": address}}
        authorization = self._signer.authorization(
            "POST", _UNBIND, id_server, encode_content(content)
        )
        answer = await self._post(id_server, _UNBIND, content, {"Authorization": authorization})
        if 200 <= answer.status < 300:
            return True
        body = json_object(answer)
        if isinstance((body or {}).get("errcode"), str):
            raise _passed_on(answer, body)
        if answer.status in _NO_SUPPORT:
            return False
        raise _unusable()

    async def _post(
        self, id_server: str, path: str, content: JsonObject, headers: dict[str, str]
    ) -> HttpAnswer:
        try:
            return await self._http.post_json(f"https://{id_server}{path}", content, headers)
        except RemoteError as error:
            raise _unusable() from error


def _passed_on(answer: HttpAnswer, body: JsonObject | None) -> MatrixError:
    """The server's error as our own; a 401 would log the client out, and a 5xx is not ours."""
    errcode, error = (body or {}).get("errcode"), (body or {}).get("error")
    if not isinstance(errcode, str) or not 400 <= answer.status < 500:
        return _unusable()
    status = 403 if answer.status == 401 else answer.status
    if errcode in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_LOCKED"):
        errcode = "M_FORBIDDEN"
    return MatrixError(status, errcode[:255], error[:1000] if isinstance(error, str) else "")


def _unusable() -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", "The identity server gave no usable answer.")
