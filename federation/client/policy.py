"""Asking policy servers (Server-Server API, "Asking for a Policy Server signature on an event")."""

from __future__ import annotations

from federation.client.errors import RemoteError, RemoteHttpError
from federation.client.membership import is_unrecognized
from federation.client.requests import FederationClient
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.policy import PolicyServer, is_recommended, with_signature
from homeserver.core.types import JsonObject

TIMEOUT_S = 15.0
MAX_ANSWER = 64 * 1024


class PolicyCalls:
    """Asks policy servers for their signatures."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def signed(self, event: Event, server: PolicyServer) -> Event:
        """The event with the policy server's signature.

        Raises:
            MatrixError: the server's refusal, with its own error code; 502 `M_UNKNOWN` if it
                cannot be asked, or answers without a valid signature.
        """
        try:
            answer = await self._ask(event, server)
        except RemoteHttpError as refusal:
            if refusal.errcode is not None and 400 <= refusal.status < 500:
                raise MatrixError(refusal.status, refusal.errcode, refusal.error or "") from None
            raise _unreachable(server) from None
        except RemoteError:
            raise _unreachable(server) from None
        signed = with_signature(event, answer, server)
        if not is_recommended(signed, server):
            text = f"The policy server {server.name} did not sign the event."
            raise MatrixError(502, "M_UNKNOWN", text)
        return signed

    async def _ask(self, event: Event, server: PolicyServer) -> JsonObject:
        """The answer to the request, or to that of before version 1.18 of the specification."""
        try:
            return await self._post(event, server, "/_matrix/policy/v1/sign")
        except RemoteHttpError as refusal:
            if not is_unrecognized(refusal):
                raise
        return await self._post(event, server, "/_matrix/policy/unstable/org.matrix.msc4284/sign")

    async def _post(self, event: Event, server: PolicyServer, path: str) -> JsonObject:
        return await self._client.post_json(
            server.name, path, event.pdu, timeout_s=TIMEOUT_S, max_bytes=MAX_ANSWER
        )


def _unreachable(server: PolicyServer) -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", f"The policy server {server.name} cannot be asked.")
