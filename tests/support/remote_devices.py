"""Users of a scripted server who have devices, and their server, which tells of them."""

from __future__ import annotations

from typing import Any

from tests.support.keys import ALGORITHM, CrossSigner, Device, Named
from tests.support.peer import Peer, Received, Reply


class RemoteUser:
    """A user of a peer with devices; the peer answers for its one user with them."""

    def __init__(self, peer: Peer, localpart: str = "mallory") -> None:
        self.peer = peer
        self.user_id = peer.user(localpart)
        self.devices: dict[str, Device] = {}
        self.names: dict[str, str] = {}
        self.signer = CrossSigner(Named(self.user_id, ""))
        self.has_signing_keys = False
        self.stream_id = 10
        self.claimed = 0
        peer.on["devices"] = self.answer_devices
        peer.on["keys_query"] = self.answer_query
        peer.on["keys_claim"] = self.answer_claim

    def add(self, device_id: str, name: str | None = None) -> Device:
        """A new device, of which nobody is told yet."""
        device = self.devices[device_id] = Device(Named(self.user_id, device_id))
        if name is not None:
            self.names[device_id] = name
        return device

    def signing_keys(self) -> dict[str, Any]:
        return self.signer.body(["master", "self_signing"]) if self.has_signing_keys else {}

    def described(self, device_id: str) -> dict[str, Any]:
        """A device as it is told of."""
        told: dict[str, Any] = {"device_id": device_id, "keys": self.devices[device_id].keys()}
        if device_id in self.names:
            told["device_display_name"] = self.names[device_id]
        return told

    def answer_devices(self, request: Received) -> Any:
        if request.parts != [self.user_id]:
            return None
        return {
            "user_id": self.user_id,
            "stream_id": self.stream_id,
            "devices": [self.described(device_id) for device_id in self.devices],
            **self.signing_keys(),
        }

    def answer_query(self, request: Received) -> Any:
        found = {}
        for device_id, device in self.devices.items():
            name = self.names.get(device_id)
            unsigned = {} if name is None else {"device_display_name": name}
            found[device_id] = {**device.keys(), "unsigned": unsigned}
        keys = {f"{usage}s": {self.user_id: key} for usage, key in self.signing_keys().items()}
        return {"device_keys": {self.user_id: found}, **keys}

    def answer_claim(self, request: Received) -> Any:
        self.claimed += 1
        return {
            "one_time_keys": {
                self.user_id: {
                    device_id: {f"{ALGORITHM}:K{self.claimed}": device.one_time_key()}
                    for device_id, device in self.devices.items()
                }
            }
        }

    def update(self, device_id: str, **changes: Any) -> dict[str, Any]:
        """The content of the next `m.device_list_update`."""
        previous, self.stream_id = self.stream_id, self.stream_id + 1
        content = {
            "user_id": self.user_id,
            "stream_id": self.stream_id,
            "prev_id": [previous],
        }
        if device_id in self.devices:
            content |= self.described(device_id)
        else:
            content |= {"device_id": device_id, "deleted": True}
        return {**content, **changes}

    async def tell(
        self, destination: str, *contents: dict[str, Any], edu_type: str = "m.device_list_update"
    ) -> None:
        """Send EDUs."""
        edus = [{"edu_type": edu_type, "content": content} for content in contents]
        status, answer = await self.peer.send(destination, edus=edus)
        assert status == 200, (status, answer)


def refused(request: Received) -> Reply:
    """A server that answers nothing useful."""
    return Reply({"errcode": "M_UNKNOWN", "error": "out of order"}, 500)
