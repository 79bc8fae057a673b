"""One device: matrix-nio with encryption, held to what good clients do.

Where nio loses keys by itself, so that nothing could be said of the server, its behaviour is
replaced here; each place says why. Everything that the ledger needs is told to `report`.
Runs where Hearth's own packages are not: it imports nothing of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import nio
from device_http import Asking  # type: ignore[import-not-found, unused-ignore]
from nio.store import SqliteStore
from peewee import SqliteDatabase  # type: ignore

SHARE = "hearth.chaos.share"
"""The field, beside the ciphertext of a message to a device, that names it."""
FILTER = {
    "presence": {"not_types": ["*"]},
    "room": {"timeline": {"limit": 40}, "ephemeral": {"not_types": ["*"]}},
}
SYNC_MS = 10_000
CLAIM_AGAIN_S = 5.0
"""When a one-time key is asked for again that could not be had."""
QUERY_AGAIN_S = 2.0
CHUNK = 20
"""Devices that one request sends keys to."""
MAX_SHARINGS = 5

Report = Callable[..., None]


class Store(SqliteStore):  # type: ignore[misc, unused-ignore]
    """nio's store, which need not outlive the machine: it never waits for the disk."""

    def _create_database(self) -> Any:
        pragmas = {"foreign_keys": 1, "journal_mode": "wal", "synchronous": 0}
        return SqliteDatabase(self.database_path, pragmas=pragmas)


class Device(nio.AsyncClient):  # type: ignore[misc, unused-ignore]
    """A device that is logged in. `directory` keeps what it needs to go on after a crash."""

    def __init__(self, asking: Asking, directory: Path, report: Report, chance: Random) -> None:
        config = nio.AsyncClientConfig(
            store=Store, encryption_enabled=True, store_sync_tokens=False
        )
        super().__init__("", store_path=str(directory), config=config)
        self._asking = asking
        self._directory = directory
        self._report = report
        self._chance = chance
        self._handling = asyncio.Lock()
        self._querying = asyncio.Lock()
        self._speaking = asyncio.Lock()
        self._changed: set[str] = set()
        self._query_after = 0.0
        self._claim_after: dict[tuple[str, str], float] = {}
        self._pending: dict[str, nio.MegolmEvent] = {}
        self._told: set[str] = set()
        self._leaving = False
        self._password = ""
        self.commands: set[asyncio.Task[Any]] = set()
        """What it was told to do and is at."""
        self._tasks: list[asyncio.Task[None]] = []
        self._fills: set[asyncio.Task[None]] = set()
        self.add_event_callback(self._hear, (nio.RoomMessageText, nio.MegolmEvent))
        self.add_to_device_callback(self._key_came, nio.RoomKeyEvent)

    # Beginning and end.

    async def begin(self, user: str, password: str, device_id: str) -> dict[str, str]:
        """Log in, or go on from the store; returns when keys are uploaded and all is synced."""
        kept = self._directory / "login.json"
        if kept.exists():
            login = json.loads(kept.read_text())
        else:
            login = await self._log_in(user, password, device_id)
            kept.write_text(json.dumps(login))
        self._password = password
        self._asking.token = login["access_token"]
        self.restore_login(login["user_id"], login["device_id"], login["access_token"])
        assert self.store is not None
        self.loaded_sync_token = self.store.load_sync_token() or ""
        if not self.olm.account.shared:
            await self.keys_upload()
        await self.sync(SYNC_MS, FILTER, full_state=True)
        for each in (self._follow, self._maintain):
            self._tasks.append(asyncio.create_task(self._guarded(each)))
        async with self._speaking:
            for entry in self._outbox():
                await self._deliver(entry)
        return {"token": login["access_token"], "user_id": login["user_id"]}

    async def _log_in(self, user: str, password: str, device_id: str) -> dict[str, str]:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": password,
            "device_id": device_id,
        }
        status, login = await self._asking.ask("POST", "/_matrix/client/v3/login", body)
        assert status == 200, login
        found: dict[str, str] = login
        return found

    async def _log_in_again(self) -> None:
        """Get another token for the device.

        A login that was repeated for want of an answer may be carried out after the one that was
        answered, by a process that hung: it ends the token that the answer gave.
        """
        login = await self._log_in(self.user_id, self._password, self.device_id)
        (self._directory / "login.json").write_text(json.dumps(login))
        self._asking.token = self.access_token = login["access_token"]

    async def end(self) -> None:
        """Stop, between two answers."""
        own = {*self._tasks, *self._fills, *self.commands} - {asyncio.current_task()}
        async with self._handling:
            for task in own:
                task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        await self._asking.close()
        if self.store is not None:
            self.store.database.close()

    async def logout(self) -> bool:
        """Give the device up."""
        self._leaving = True
        status, answer = await self._asking.ask("POST", "/_matrix/client/v3/logout", {})
        # Unknown: the answer to the first request was lost.
        assert status in (200, 401), answer
        await self.end()
        return True

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception:
            self._report("trouble", what=f"the client broke: {traceback.format_exc()}")

    async def _follow(self) -> None:
        while True:
            answer = await self.sync(SYNC_MS, FILTER)
            if isinstance(answer, nio.SyncError) and not self._leaving:
                self._report("trouble", what=f"/sync: {answer}")
                await asyncio.sleep(1)
                if answer.status_code == "M_UNKNOWN_TOKEN" and not self._leaving:
                    await self._log_in_again()

    async def _maintain(self) -> None:
        """What nio does between syncs."""
        while True:
            await asyncio.sleep(0.25)
            # Keys have to come by themselves: to ask for them would hide that they did not.
            self.olm.outgoing_to_device_messages.clear()
            if self.should_upload_keys:
                await self.keys_upload()
            if self.should_query_keys and time.monotonic() >= self._query_after:
                await self._query()

    # Requests.

    async def _send(
        self,
        response_class: Any,
        method: str,
        path: str,
        data: Any = None,
        response_data: tuple[Any, ...] | None = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        """As nio's, which takes answers that were cut short for an end of all."""
        path = re.sub(r"[?&]access_token=[^&]*", "", path)
        if "?" not in path:
            path = path.replace("&", "?", 1)
        _, answer = await self._asking.ask(method, path, data)
        response = response_class.from_dict(answer, *(response_data or ()))
        async with self._handling:
            await self.receive_response(response)
        return response

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        found: tuple[int, Any] = await self._asking.ask(method, f"/_matrix/client/v3{path}", body)
        return found

    # What comes from the server.

    async def _handle_sync(self, response: Any) -> None:
        """As nio's, which notes the token before it has dealt with what came with it."""
        since = self.next_batch or self.loaded_sync_token
        with self.store.database.atomic():
            await super()._handle_sync(response)
            for room_id in response.rooms.leave:
                # nio keeps rooms that were left.
                self.rooms.pop(room_id, None)
                self.olm.outbound_group_sessions.pop(room_id, None)
            self.store.save_sync_token(response.next_batch)
        for room_id, info in response.rooms.join.items():
            self.rooms[room_id].members_synced = True
            if info.timeline.limited and since:
                fill = self._fill(room_id, info.timeline.prev_batch, since)
                self._fills.add(task := asyncio.create_task(fill))
                task.add_done_callback(self._fills.discard)

    def _handle_olm_events(self, response: Any) -> None:
        super()._handle_olm_events(response)
        self._changed.update(response.device_list.changed)

    async def _handle_to_device(self, response: Any) -> None:
        events = response.to_device_events
        named = [(n, e.source["content"].get(SHARE)) for n, e in enumerate(events)]
        await super()._handle_to_device(response)
        for number, share in named:
            if share is not None:
                ok = isinstance(events[number], nio.RoomKeyEvent)
                self._report("got", share=share, ok=ok)

    def _handle_decrypt_to_device(self, event: Any) -> Any:
        """As nio's, which lets an error of one message end all."""
        try:
            return super()._handle_decrypt_to_device(event)
        except Exception as error:
            self._report("trouble", what=f"message to the device: {error!r}")
            return None

    async def _key_came(self, event: Any) -> None:
        for event_id, secret in list(self._pending.items()):
            if secret.session_id == event.session_id:
                self._read(secret.room_id, event_id, secret)

    async def _hear(self, room: Any, event: Any) -> None:
        if isinstance(event, nio.MegolmEvent):
            self._pending[event.event_id] = event
        else:
            self._tell(event.event_id, event.body)

    def _tell(self, event_id: str, body: str) -> None:
        if event_id not in self._told:
            self._told.add(event_id)
            self._report("seen", event=event_id, body=body)

    def _read(self, room_id: str, event_id: str, secret: Any) -> str | None:
        """What an event says, which is reported; None if it cannot be told yet."""
        session = self.olm.inbound_group_store.get(room_id, secret.sender_key, secret.session_id)
        found = session and self.olm._decrypt_megolm_no_error(secret, room_id)
        if not isinstance(found, nio.RoomMessageText):
            self._pending[event_id] = secret
            return None
        self._pending.pop(event_id, None)
        self._tell(event_id, found.body)
        return str(found.body)

    def _read_source(self, room_id: str, source: dict[str, Any]) -> str | None:
        secret = nio.MegolmEvent.from_dict(source)
        if not isinstance(secret, nio.MegolmEvent):
            return None
        secret.room_id = room_id
        return self._read(room_id, secret.event_id, secret)

    async def _fill(self, room_id: str, prev_batch: str, since: str) -> None:
        """Read what a timeline left out."""
        start: str | None = prev_batch
        while start is not None:
            path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=100&from={quote(start)}"
            status, answer = await self._ask("GET", f"{path}&to={quote(since)}")
            if status != 200:
                return
            for source in answer["chunk"]:
                if source["type"] == "m.room.encrypted":
                    self._read_source(room_id, source)
            start = answer.get("end") if answer["chunk"] else None

    # Keys.

    async def keys_upload(self) -> Any:
        """As nio's, which forgets the private parts if it crashes before the answer."""
        keys = self.olm.share_keys()
        self.olm.save_account()
        return await self._send(
            nio.KeysUploadResponse, "POST", "/_matrix/client/v3/keys/upload", json.dumps(keys)
        )

    async def _query(self) -> None:
        async with self._querying:
            if not self.should_query_keys:
                return
            self._changed = set()
            await self.keys_query()
            # nio forgets that a list changed again while it was asked for.
            self.olm.users_for_key_query |= self._changed & self.olm.tracked_users
            self._query_after = time.monotonic() + QUERY_AGAIN_S

    async def _claim(self, wanted: dict[str, list[str]]) -> None:
        answer = await self.keys_claim(wanted)
        if isinstance(answer, nio.KeysClaimError):
            self._report("trouble", what=f"/keys/claim: {answer}")
            return
        for user, devices in answer.one_time_keys.items():
            for device, keys in devices.items():
                for name, key in keys.items():
                    self._report("otk", user=user, device_id=device, key=name, value=key["key"])
        later = time.monotonic() + CLAIM_AGAIN_S
        for user, devices in self.olm.get_missing_sessions(list(wanted)).items():
            self._claim_after.update({(user, device): later for device in devices})

    def _lacking(self, room: Any, session: Any) -> list[Any]:
        """Devices that have not been sent a session."""
        own = (self.user_id, self.device_id)
        return [
            device
            for user in room.users
            for device in self.device_store.active_user_devices(user)
            if (user, device.id) != own and (user, device.id) not in session.users_shared_with
        ]

    async def _share(self, room: Any) -> list[str]:
        """Send the room's session to all devices that lack it; those that could not be sent it.

        nio's own takes requests that failed for done, and shares with nobody later.
        """
        olm = self.olm
        for _ in range(MAX_SHARINGS):
            session = olm.outbound_group_sessions.get(room.room_id)
            if session is None or session.expired:
                olm.create_outbound_group_session(room.room_id)
                session = olm.outbound_group_sessions[room.room_id]
            # Not to be replaced while it is on its way.
            session.shared = False
            lacking = self._lacking(room, session)
            now = time.monotonic()
            strange: dict[str, list[str]] = {}
            for each in lacking:
                known = olm.session_store.get(each.curve25519)
                if not known and self._claim_after.get((each.user_id, each.id), 0) <= now:
                    strange.setdefault(each.user_id, []).append(each.id)
            if strange:
                await self._claim(strange)
            if not any(olm.session_store.get(each.curve25519) for each in lacking):
                break
            await self._send_session(room.room_id, session)
        session.shared = True
        return [f"{each.user_id}/{each.id}" for each in self._lacking(room, session)]

    async def _send_session(self, room_id: str, session: Any) -> None:
        if room_id not in self.rooms:
            return  # left meanwhile
        with self.store.database.atomic():
            users = list(self.rooms[room_id].users)
            parts = list(self.olm.share_group_session_parallel(room_id, users, True))
        for devices, body in parts:
            sent = []
            for user, device in sorted(devices):
                share = uuid4().hex
                body["messages"][user][device][SHARE] = share
                sent.append((user, device, share))
            path = f"/sendToDevice/m.room.encrypted/{uuid4().hex}"
            self._report("sharing", room=room_id, session=session.id, to=sent)
            status, answer = await self._ask("PUT", path, body)
            if status == 401 and self._leaving:
                return  # logged out meanwhile
            if status != 200:
                self._report("trouble", what=f"sendToDevice: {status} {answer}")
                return
            session.users_shared_with |= devices
            self._report("shared", shares=[share for _, _, share in sent])

    # What the user does.

    async def say(self, room_id: str, body: str, rotate: bool) -> str | None:
        """Send an encrypted message; its event ID, None if the room did not take it."""
        async with self._speaking:
            room = self.rooms.get(room_id)
            if room is None or not room.encrypted:
                return None
            if rotate:
                self.olm.outbound_group_sessions.pop(room_id, None)
            self.olm.update_tracked_users(room)
            if self.olm.users_for_key_query & set(room.users):
                await self._query()
            withheld = await self._share(room)
            session = self.olm.outbound_group_sessions.get(room_id)
            if session is None or room_id not in self.rooms:
                return None  # left meanwhile
            index = session.message_index
            content = {"msgtype": "m.text", "body": body}
            _, secret = self.encrypt(room_id, "m.room.message", content)
            entry = {"txn": uuid4().hex, "room": room_id, "content": secret}
            asked = sorted(self.olm.users_for_key_query & set(room.users))
            self._report(
                "said", txn=entry["txn"], room=room_id, session=session.id, index=index, body=body,
                withheld=withheld, asking=asked,
            )  # fmt: skip
            # Kept, so that it is sent with the same transaction ID after a crash.
            self._keep([*self._outbox(), entry])
            return await self._deliver(entry)

    def _outbox(self) -> list[dict[str, Any]]:
        path = self._directory / "outbox.json"
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return found

    def _keep(self, entries: list[dict[str, Any]]) -> None:
        new = self._directory / "outbox.new"
        new.write_text(json.dumps(entries))
        new.replace(self._directory / "outbox.json")

    async def _deliver(self, entry: dict[str, Any]) -> str | None:
        path = f"/rooms/{quote(entry['room'])}/send/m.room.encrypted/{entry['txn']}"
        status, answer = await self._ask("PUT", path, entry["content"])
        event_id = answer.get("event_id") if status == 200 else None
        if event_id is None:
            self._report("refused", txn=entry["txn"], why=f"{status} {answer}")
        else:
            self._report("acked", txn=entry["txn"], event=event_id)
        self._keep([each for each in self._outbox() if each["txn"] != entry["txn"]])
        return event_id

    async def create(self, name: str) -> str:
        """Create an encrypted room that anybody may enter."""
        encrypted = nio.EnableEncryptionBuilder().as_dict()
        body = {"preset": "public_chat", "name": name, "initial_state": [encrypted]}
        status, answer = await self._ask("POST", "/createRoom", body)
        assert status == 200, answer
        return str(answer["room_id"])

    async def join(self, room_id: str, via: list[str]) -> tuple[int, Any]:
        """Enter a room; status and answer."""
        names = "&".join(f"server_name={quote(each)}" for each in via)
        return await self._ask("POST", f"/join/{quote(room_id)}?{names}", {})

    async def leave(self, room_id: str) -> tuple[int, Any]:
        """Leave a room; status and answer."""
        return await self._ask("POST", f"/rooms/{quote(room_id)}/leave", {})

    async def view(self) -> dict[str, Any]:
        """Devices by room and user as this one knows them, and what is still to be done."""
        rooms = {}
        for room_id, room in self.rooms.items():
            rooms[room_id] = {
                user: sorted(
                    {device.id for device in self.device_store.active_user_devices(user)}
                    | ({self.device_id} if user == self.user_id else set())
                )
                for user in room.users
            }
        asking = sorted(self.olm.users_for_key_query)
        return {"rooms": rooms, "asking": asking, "outbox": len(self._outbox())}

    async def look(self, room_id: str, event_id: str) -> str | None:
        """Read one event again; what it says."""
        status, answer = await self._ask("GET", f"/rooms/{quote(room_id)}/event/{quote(event_id)}")
        return self._read_source(room_id, answer) if status == 200 else None

    async def audit(self, room_id: str) -> list[tuple[str, str, str | None]]:
        """A room's encrypted events, oldest first: ID, session, and what it says."""
        found: list[tuple[str, str, str | None]] = []
        start = ""
        while True:
            path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=500{start}"
            status, answer = await self._ask("GET", path)
            assert status == 200, answer
            for source in answer["chunk"]:
                if source["type"] == "m.room.encrypted":
                    body = self._read_source(room_id, source)
                    found.append((source["event_id"], source["content"]["session_id"], body))
            if "end" not in answer:
                return found[::-1]
            start = f"&from={quote(answer['end'])}"
            await asyncio.sleep(0)

    async def counts(self) -> dict[str, Any]:
        """What its requests came to."""
        return {"counted": dict(self._asking.counted), "failures": self._asking.failures}
