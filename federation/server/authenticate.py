"""Who makes a federation request (Server-Server API, "Request Authentication")."""

from __future__ import annotations

from collections.abc import Callable

from federation.client.keyring import Keyring
from homeserver.core import canonical
from homeserver.core.errors import MatrixError
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.signing import SignatureError, verify_json
from homeserver.core.types import JsonObject
from homeserver.core.x_matrix import MalformedAuthorization, XMatrix, parse
from homeserver.web.request import Request


class SignatureAuthenticator:
    """Checks `X-Matrix` signatures; a `homeserver.web.request.FederationAuthenticator`.

    `heard_from(server)` is called for each request that is signed as it should be;
    `before_asking(address)` before others are asked for the key of a request from there, and may
    raise MatrixError: anybody can claim to be a server of any name.
    """

    def __init__(
        self,
        keyring: Keyring,
        server_name: str,
        heard_from: Callable[[str], object] = lambda server: None,
        before_asking: Callable[[str], object] = lambda address: None,
    ) -> None:
        self._keyring = keyring
        self._server_name = server_name
        self._heard_from = heard_from
        self._before_asking = before_asking

    async def authenticate(self, request: Request) -> ServerName:
        """The server that signed a request.

        Of several signatures one must be right. Raises MatrixError: 401 M_UNAUTHORIZED, 400
        M_NOT_JSON, 429 M_LIMIT_EXCEEDED.
        """
        header = request.header("authorization")
        if header is None:
            raise _unauthorized("The request is not signed.")
        try:
            credentials = parse(header)
            origin = ServerName.parse(credentials[0].origin)
        except (MalformedAuthorization, InvalidIdentifier) as error:
            raise _unauthorized(str(error)) from None
        for credential in credentials:
            if credential.origin != origin:
                raise _unauthorized("The signatures are of different servers.")
            if credential.destination not in (None, self._server_name):
                raise _unauthorized("The request was meant for another server.")
        content = request.json() if request.body else None
        refusal = _unauthorized("The request is not signed.")
        for credential in credentials:
            signed = _signed_object(request, credential, content)
            try:
                await self._verify(signed, credential, request.remote_address)
                self._heard_from(origin)
                return origin
            except MatrixError as error:
                refusal = error
        raise refusal

    async def _verify(self, signed: JsonObject, credential: XMatrix, address: str) -> None:
        origin, key_id = credential.origin, credential.key_id
        key = await self._keyring.key_for_request(
            origin, key_id, lambda: self._before_asking(address)
        )
        if key is None:
            raise _unauthorized(f"There is no valid key {key_id} of {origin}.")
        try:
            # A transaction may hold events of room versions 1 to 5.
            verify_json(signed, origin, key_id, key.verify_key, lenient=True)
        except (SignatureError, canonical.CanonicalJSONError):
            raise _unauthorized(f"The signature of {origin} with {key_id} is wrong.") from None


def _unauthorized(error: str) -> MatrixError:
    return MatrixError(401, "M_UNAUTHORIZED", error)


def _signed_object(request: Request, credential: XMatrix, content: object) -> JsonObject:
    signed: JsonObject = {
        "method": request.method,
        "uri": request.target,
        "origin": credential.origin,
        "signatures": {credential.origin: {credential.key_id: credential.signature}},
    }
    if credential.destination is not None:
        signed["destination"] = credential.destination
    if content is not None:
        signed["content"] = content
    return signed
