"""Messages from device to device (client-server API, "Send-to-Device messaging").

They wait in a queue for each device until the device has shown, with the token of its next sync,
that it got them. A queue that is full loses its oldest messages.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from homeserver.core import canonical, errors
from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.types import JsonObject
from storage import outgoing_to_device, to_device
from storage.database import Database
from storage.to_device import Message
from storage.transaction import Transaction

ALL_DEVICES = "*"
MAX_WAITING = 10_000
"""Messages that wait for one device. Requests at the same moment may exceed it by a few."""
MAX_MESSAGE_BYTES = 65_536
"""Of the JSON of one message, sender and type included."""
MAX_TYPE_BYTES = 255
TRANSACTION_LIFETIME_MS = 24 * 60 * 60 * 1000
"""For so long at least a repeated transaction is recognised."""

MESSAGE_ID_BYTES = 10

Messages = Mapping[str, Mapping[str, str]]
"""User IDs to device IDs, or `ALL_DEVICES`, to the JSON text of the message."""


class ToDevice:
    """Takes messages for devices, of users here and elsewhere.

    `max_waiting`: see `MAX_WAITING`.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        server_name: str,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._max_waiting = max_waiting

    async def send(
        self,
        sender: UserID,
        sending_device: str | None,
        event_type: str,
        txn_id: str,
        contents: Mapping[str, Mapping[str, JsonObject]],
    ) -> None:
        """Send messages of one type; a transaction that the device had before sends nothing.

        `contents`: user IDs to device IDs, or `ALL_DEVICES`, to the content. Devices that do not
        exist are passed over.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for a user ID or type that is not valid, 400
                `M_BAD_JSON` for a content that cannot be kept, 413 `M_TOO_LARGE`.
        """
        if not 0 < len(event_type.encode()) <= MAX_TYPE_BYTES:
            raise errors.invalid_param("The type of an event has 1 to 255 bytes.")
        messages: dict[str, dict[str, str]] = {}
        remote: dict[str, dict[str, dict[str, str]]] = {}
        for name, devices in contents.items():
            user_id = _user_id(name)
            encoded = {
                device_id: encode_message(sender, event_type, content)
                for device_id, content in devices.items()
            }
            if user_id.domain == self._server_name:
                messages[user_id] = encoded
            elif devices:
                remote.setdefault(user_id.domain, {})[user_id] = {
                    device_id: canonical.encode_plain(content).decode()
                    for device_id, content in devices.items()
                }
        now_ms = int(self._clock.seconds() * 1000)
        await self._db.write(
            self._send, sender, sending_device or "", event_type, txn_id, messages, remote, now_ms
        )

    def _send(
        self,
        txn: Transaction,
        sender: str,
        device_id: str,
        event_type: str,
        txn_id: str,
        messages: Messages,
        remote: Mapping[str, Messages],
        now_ms: int,
    ) -> None:
        if not to_device.begin_transaction(txn, sender, device_id, event_type, txn_id, now_ms):
            return
        to_device.forget_transactions(txn, sender, device_id, now_ms - TRANSACTION_LIFETIME_MS)
        self.deliver(txn, messages)
        for destination, theirs in sorted(remote.items()):
            message_id = secrets.token_hex(MESSAGE_ID_BYTES)
            outgoing_to_device.add(txn, destination, sender, event_type, message_id, theirs)

    def deliver(self, txn: Transaction, messages: Messages) -> None:
        """Put messages into the queues of local users' devices.

        Advances the clock: to be called last in a transaction.
        """
        wanted = {user_id: devices for user_id, devices in messages.items() if devices}
        if not wanted:
            return
        named = {device_id for devices in wanted.values() for device_id in devices}
        queues = to_device.queues(txn, wanted, None if ALL_DEVICES in named else named)
        added = []
        for queue in queues:
            devices = wanted[queue.user_id]
            message = devices.get(queue.device_id, devices.get(ALL_DEVICES))
            if message is None:
                continue
            seq = 1 if queue.last is None else queue.last + 1
            excess = seq + 1 - (queue.first or seq) - self._max_waiting
            if excess > 0:
                to_device.drop_oldest(txn, queue.user_id, queue.device_id, excess)
            added.append(Message(queue.user_id, queue.device_id, 0, seq, message))
        if not added:
            return
        pos = txn.next_pos()
        to_device.add(txn, (each._replace(pos=pos) for each in added))
        txn.notify(*(f"user:{each.user_id}" for each in added))


def _user_id(name: str) -> UserID:
    try:
        return UserID.parse(name)
    except InvalidIdentifier as problem:
        raise errors.invalid_param(str(problem))


def encode_message(sender: str, event_type: str, content: JsonObject) -> str:
    """The JSON text of a message as a device gets it. Raises MatrixError (400, 413)."""
    message = {"content": content, "sender": sender, "type": event_type}
    try:
        canonical.check(message, strict=False)
        encoded = canonical.encode_plain(message)
    except canonical.CanonicalJSONError as problem:
        raise errors.bad_json(str(problem))
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise errors.too_large("A message to a device is too large.")
    return encoded.decode()
