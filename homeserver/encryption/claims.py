"""One-time keys are given out (client-server API, `POST /keys/claim`): each of them once.

Of one device, keys of several algorithms or several of one can be wanted (MSC3983).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteHttpError
from federation.client.membership import is_unrecognized
from federation.client.requests import FederationClient
from homeserver.core import key_objects
from homeserver.core.errors import invalid_param
from homeserver.core.types import JsonObject
from homeserver.encryption import remote_answers, servers
from storage import one_time_keys
from storage.database import Database
from storage.one_time_keys import ClaimedKey, Wanted
from storage.transaction import Transaction

MAX_CLAIMS = 20_000
"""Keys that are claimed in one request."""

MAX_EACH = 50
"""Keys of one device and algorithm that are claimed in one request."""

Claims = Mapping[str, Mapping[str, Sequence[str]]]
"""User IDs to device IDs to algorithms, each as often as keys of it are wanted."""

_V1 = "/_matrix/federation/v1/user/keys/claim"
_UNSTABLE = "/_matrix/federation/unstable/user/keys/claim"


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
            return remote_answers.parse_claim(await self._ask(server_name, users, timeout_s), users)

        answers, failures = await servers.ask_all(
            servers.by_server(remote), ask, timeout_ms, self._clock
        )
        for answered in answers.values():
            found |= answered
        return found, failures

    async def _ask(self, server_name: str, users: Claims, timeout_s: float) -> JsonObject:
        """The answer of another server. One that does not know MSC3983 gives one key of each
        device, of the first algorithm."""

        async def ask(path: str, wanted: JsonObject) -> JsonObject:
            return await self._client.post_json(
                server_name,
                path,
                {"one_time_keys": wanted},
                timeout_s=timeout_s,
                max_bytes=servers.MAX_ANSWER_BYTES,
            )

        if any(len(each) > 1 for devices in users.values() for each in devices.values()):
            try:
                wanted = {user: dict(devices) for user, devices in users.items()}
                return await ask(_UNSTABLE, wanted)
            except RemoteHttpError as error:
                if not is_unrecognized(error):
                    raise
        first = {
            user: {device_id: each[0] for device_id, each in devices.items() if each}
            for user, devices in users.items()
        }
        return await ask(_V1, first)

    async def local(self, wanted: Claims) -> JsonObject:
        """Claim keys of this server's devices: users to devices to keys, as they are stored.

        Raises MatrixError 400 M_INVALID_PARAM.
        """
        listed = [
            (user_id, device_id, algorithm)
            for user_id, devices in wanted.items()
            for device_id, algorithms in devices.items()
            for algorithm in algorithms
        ]
        if len(listed) > MAX_CLAIMS:
            raise invalid_param(f"At most {MAX_CLAIMS} keys are claimed at once.")
        claims = Counter(listed)
        if claims and max(claims.values()) > MAX_EACH:
            raise invalid_param(f"At most {MAX_EACH} keys of a device are claimed at once.")
        if not all(map(key_objects.is_name, set(chain.from_iterable(claims)))):
            raise invalid_param("A device ID or algorithm is not valid.")
        found: JsonObject = {}
        if not claims:
            return found
        for claimed in await self._db.write(_claim, claims):
            for (user_id, device_id, algorithm), key in claimed.items():
                named = found.setdefault(user_id, {}).setdefault(device_id, {})
                named[f"{algorithm}:{key.key_id}"] = msgspec.Raw(key.key)
        return found


def _claim(txn: Transaction, claims: Mapping[Wanted, int]) -> list[dict[Wanted, ClaimedKey]]:
    """Take keys in rounds: one for each claim, then one for each that wants another."""
    rounds = []
    left = dict(claims)
    while left:
        rounds.append(one_time_keys.claim(txn, left))
        left = {each: more - 1 for each, more in left.items() if more > 1 and each in rounds[-1]}
    return rounds
