"""One-time keys are given out (client-server API, `POST /keys/claim`): each of them once."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from federation.client.requests import FederationClient
from homeserver.core import key_objects
from homeserver.core.errors import invalid_param
from homeserver.core.types import JsonObject
from homeserver.encryption import remote_answers, servers
from storage import one_time_keys
from storage.database import Database

MAX_CLAIMS = 20_000
"""Keys that are claimed in one request."""

Claims = Mapping[str, Mapping[str, str]]
"""User IDs to device IDs to algorithms."""


class KeyClaims:
    """Gives out one-time keys of this server's devices, and asks other servers for theirs."""

    def __init__(
        self, db: Database, client: FederationClient, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._server_name = server_name

    async def claim(
        self, wanted: Claims, timeout_ms: int | None = None
    ) -> tuple[JsonObject, dict[str, JsonObject]]:
        """Keys by user and device, and failures by server. `timeout_ms`: for other servers.

        Raises MatrixError 400 M_INVALID_PARAM.
        """
        end = f":{self._server_name}"
        local = {user_id: each for user_id, each in wanted.items() if user_id.endswith(end)}
        remote = {user_id: each for user_id, each in wanted.items() if user_id not in local}
        found = await self.local(local)
        if not remote:
            return found, {}

        async def ask(server_name: str, users: Claims, timeout_s: float) -> JsonObject:
            answer = await self._client.post_json(
                server_name,
                "/_matrix/federation/v1/user/keys/claim",
                {"one_time_keys": {user: dict(devices) for user, devices in users.items()}},
                timeout_s=timeout_s,
                max_bytes=servers.MAX_ANSWER_BYTES,
            )
            return remote_answers.parse_claim(answer, users)

        answers, failures = await servers.ask_all(
            servers.by_server(remote), ask, timeout_ms, self._clock
        )
        for answered in answers.values():
            found |= answered
        return found, failures

    async def local(self, wanted: Claims) -> JsonObject:
        """Claim keys of this server's devices: users to devices to keys.

        Raises MatrixError 400 M_INVALID_PARAM.
        """
        claims = [
            (user_id, device_id, algorithm)
            for user_id, devices in wanted.items()
            for device_id, algorithm in devices.items()
        ]
        if len(claims) > MAX_CLAIMS:
            raise invalid_param(f"At most {MAX_CLAIMS} keys are claimed at once.")
        if not all(key_objects.is_name(part) for claim in claims for part in claim):
            raise invalid_param("A device ID or algorithm is not valid.")
        found: JsonObject = {}
        if not claims:
            return found
        claimed = await self._db.write(one_time_keys.claim, claims)
        for (user_id, device_id, algorithm), key in claimed.items():
            named = {f"{algorithm}:{key.key_id}": json.loads(key.key)}
            found.setdefault(user_id, {})[device_id] = named
        return found
