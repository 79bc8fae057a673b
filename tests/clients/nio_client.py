"""matrix-nio that is told what to do: see `lines`. Arguments: URL, user, device, directory."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nio
from lines import serve, until  # type: ignore[import-not-found, unused-ignore]


class NioClient:
    """A device."""

    def __init__(self, url: str, user: str, device: str, directory: str) -> None:
        self._device = device
        config = nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        self.client = nio.AsyncClient(
            url, user, device_id=device, store_path=directory, config=config
        )
        self._heard: list[Any] = []
        self._requests: list[nio.RoomKeyRequest] = []
        self._secret: dict[str, nio.MegolmEvent] = {}

    async def login(self, password: str) -> str:
        answer = await self.client.login(password, device_name=self._device)
        assert isinstance(answer, nio.LoginResponse), answer
        self.client.add_event_callback(self._hear, nio.RoomMessageText)
        self.client.add_event_callback(self._fail, nio.MegolmEvent)
        self.client.add_to_device_callback(self._asked, nio.RoomKeyRequest)
        # Keys that come by answer to a request show only when what they decrypt is tried again.
        self.client.add_to_device_callback(self._forwarded, nio.ForwardedRoomKeyEvent)
        self._task = asyncio.create_task(self.client.sync_forever(timeout=10_000, full_state=True))
        await self.client.synced.wait()
        await until(lambda: not self.client.should_upload_keys)
        return str(answer.user_id)

    async def _hear(self, room: nio.MatrixRoom, event: nio.RoomMessageText) -> None:
        self._heard.append((room.room_id, event.sender, event.body, event.decrypted))

    async def _fail(self, room: nio.MatrixRoom, event: nio.MegolmEvent) -> None:
        self._secret[event.event_id] = event

    async def _asked(self, event: nio.RoomKeyRequest) -> None:
        self._requests.append(event)

    async def _forwarded(self, event: nio.ForwardedRoomKeyEvent) -> None:
        for event_id, secret in list(self._secret.items()):
            if secret.session_id == event.session_id:
                found = self.client.decrypt_event(secret)
                room = self.client.rooms[secret.room_id]
                del self._secret[event_id]
                await self._hear(room, found)

    async def create_room(self, name: str, invite: list[str]) -> str:
        encrypted = nio.EnableEncryptionBuilder().as_dict()
        answer = await self.client.room_create(name=name, invite=invite, initial_state=[encrypted])
        assert isinstance(answer, nio.RoomCreateResponse), answer
        await until(lambda: answer.room_id in self.client.rooms)
        await until(lambda: self.client.rooms[answer.room_id].encrypted)
        return str(answer.room_id)

    async def join(self, room: str) -> bool:
        await until(lambda: room in self.client.invited_rooms)
        answer = await self.client.join(room)
        assert isinstance(answer, nio.JoinResponse), answer
        await until(lambda: room in self.client.rooms and self.client.rooms[room].encrypted)
        return True

    async def wait_devices(self, room: str, devices: dict[str, list[str]]) -> bool:
        """Wait until these are the devices known of users in a room, besides the own one."""

        def shown() -> bool:
            if room not in self.client.rooms or not self.client.rooms[room].members_synced:
                return False
            if set(self.client.rooms[room].users) != set(devices):
                return False
            return all(
                sorted(
                    device.id
                    for device in self.client.device_store.active_user_devices(user)
                    if device.id != self._device
                )
                == sorted(each for each in known if each != self._device)
                for user, known in devices.items()
            )

        return bool(await until(shown))

    async def load_members(self, room: str) -> bool:
        answer = await self.client.joined_members(room)
        assert isinstance(answer, nio.JoinedMembersResponse), answer
        return True

    async def send(self, room: str, body: str) -> str:
        content = {"msgtype": "m.text", "body": body}
        answer = await self.client.room_send(
            room, "m.room.message", content, ignore_unverified_devices=True
        )
        assert isinstance(answer, nio.RoomSendResponse), answer
        return str(answer.event_id)

    async def wait_message(self, room: str, body: str) -> dict[str, Any]:
        """Wait for a message that could be read."""

        def found() -> Any:
            return next((each for each in self._heard if each[0] == room and each[2] == body), None)

        _, sender, _, decrypted = await until(found)
        return {"sender": sender, "decrypted": decrypted}

    async def wait_decrypted(self, room: str, body: str) -> bool:
        assert (await self.wait_message(room, body))["decrypted"]
        return True

    async def request_key(self, room: str, event: str) -> bool:
        """Ask the user's other devices for the key of an event, found in the room's past."""
        if event not in self._secret:
            answer = await self.client.room_get_event(room, event)
            assert isinstance(answer, nio.RoomGetEventResponse), answer
            assert isinstance(answer.event, nio.MegolmEvent), answer.event
            answer.event.room_id = room
            self._secret[event] = answer.event
        sent = await self.client.request_room_key(self._secret[event])
        assert isinstance(sent, nio.RoomKeyRequestResponse), sent
        return True

    async def share_key(self, device: str) -> bool:
        """Wait for a request of one's other device; trust that and answer it."""
        request = await until(
            lambda: next((e for e in self._requests if e.requesting_device_id == device), None)
        )
        user = self.client.user_id
        self.client.verify_device(self.client.device_store[user][device])
        if not self.client.olm.is_device_verified(self.client.device_store[user][device]):
            raise AssertionError("The device is not trusted")
        # Trusted now: what waited goes.
        self.client.continue_key_share(request)
        await self.client.send_to_device_messages()
        return True

    async def trust(self, user: str, device: str) -> bool:
        await until(lambda: device in self.client.device_store[user])
        return bool(self.client.verify_device(self.client.device_store[user][device]))

    async def undecrypted(self) -> int:
        return len(self._secret)


if __name__ == "__main__":
    url, user, device, directory = sys.argv[1:]

    async def main() -> None:
        await serve(NioClient(url, user, device, directory))

    asyncio.run(main())
