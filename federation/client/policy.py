"""Asking policy servers (Server-Server API, "Asking for a Policy Server signature on an event")."""

from __future__ import annotations

from federation.client.errors import RemoteError, RemoteHttpError
from federation.client.requests import FederationClient
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.policy import PolicyServer, is_recommended, with_signature

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
            answer = await self._client.post_json(
                server.name,
                "/_matrix/policy/v1/sign",
                event.pdu,
                timeout_s=TIMEOUT_S,
                max_bytes=MAX_ANSWER,
            )
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


def _unreachable(server: PolicyServer) -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", f"The policy server {server.name} cannot be asked.")
