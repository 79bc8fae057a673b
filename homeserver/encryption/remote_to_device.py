"""Messages that other servers send to devices of this one (Server-Server API, "Send-to-device
messaging").

A server repeats what it does not know to have arrived: messages of one `message_id` of a sender
are taken once. Rows of `to_device_transactions` without a device remember them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError
from homeserver.core.ids import domain_of
from homeserver.core.types import JsonObject
from homeserver.encryption.to_device import ToDevice, encode_message
from storage import to_device
from storage.database import Database
from storage.transaction import Transaction

REMEMBERED_MS = 14 * 24 * 3_600_000
"""For so long at least a message that is repeated is recognised."""


class RemoteMessages(NamedTuple):
    """Messages of one type: user IDs to device IDs, or `*`, to the content."""

    sender: str
    event_type: str
    message_id: str
    contents: Mapping[str, Mapping[str, JsonObject]]


class RemoteToDevice:
    """Takes messages of other servers for devices of this server."""

    def __init__(
        self, db: Database, to_devices: ToDevice, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._to_devices = to_devices
        self._clock = clock
        self._server_name = server_name

    async def receive(self, origin: str, told: Sequence[RemoteMessages]) -> None:
        """Put messages of a server's users into the queues of devices.

        Passed over: senders of any other server, users who are not local, devices that do not
        exist, contents that cannot be kept. Raises StorageError.
        """
        batches = []
        for item in told:
            if domain_of(item.sender) != origin:
                continue
            messages = self._encoded(item)
            if messages:
                batches.append((item, messages))
        if batches:
            now_ms = int(self._clock.seconds() * 1000)
            await self._db.write(self._deliver, batches, now_ms)

    def _encoded(self, item: RemoteMessages) -> dict[str, dict[str, str]]:
        messages: dict[str, dict[str, str]] = {}
        for user_id, devices in item.contents.items():
            if domain_of(user_id) != self._server_name:
                continue
            for device_id, content in devices.items():
                try:
                    text = encode_message(item.sender, item.event_type, content)
                except MatrixError:
                    continue
                messages.setdefault(user_id, {})[device_id] = text
        return messages

    def _deliver(
        self,
        txn: Transaction,
        batches: Sequence[tuple[RemoteMessages, dict[str, dict[str, str]]]],
        now_ms: int,
    ) -> None:
        new = []
        for item, messages in batches:
            if to_device.begin_transaction(
                txn, item.sender, "", item.event_type, item.message_id, now_ms
            ):
                new.append(messages)
        for sender in {item.sender for item, _ in batches}:
            to_device.forget_transactions(txn, sender, "", now_ms - REMEMBERED_MS)
        # Last, because it advances the clock.
        for messages in new:
            self._to_devices.deliver(txn, messages)
