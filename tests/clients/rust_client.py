"""The Rust SDK that is told what to do: see `lines`. Arguments: URL, user, device, directory."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import matrix_sdk_python as sdk  # type: ignore[import-not-found, unused-ignore]
from lines import serve, until  # type: ignore[import-not-found, unused-ignore]
from matrix_sdk_python._generated.matrix_sdk import (  # type: ignore[import-not-found, unused-ignore]
    BackupDownloadStrategy,
)


def apply(items: list[Any], changes: list[Any]) -> None:
    """Do to a list what the SDK says was done to its own."""
    for change in changes:
        if change.is_append():
            items.extend(change.values)
        elif change.is_reset():
            items[:] = change.values
        elif change.is_clear():
            items.clear()
        elif change.is_push_front():
            items.insert(0, change.value)
        elif change.is_push_back():
            items.append(change.value)
        elif change.is_pop_front():
            items.pop(0)
        elif change.is_pop_back():
            items.pop()
        elif change.is_insert():
            items.insert(change.index, change.value)
        elif change.is_set():
            items[change.index] = change.value
        elif change.is_remove():
            items.pop(change.index)
        elif change.is_truncate():
            del items[change.length :]


class RoomEntries(sdk.RoomListEntriesListener):  # type: ignore[misc]
    """The room list, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: list[Any] = []

    def on_update(self, room_entries_update: list[Any]) -> None:
        apply(self.rooms, room_entries_update)


class Items(sdk.TimelineListener):  # type: ignore[misc]
    """A timeline."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def on_update(self, diff: list[Any]) -> None:
        apply(self.items, diff)


class Progress(sdk.EnableRecoveryProgressListener):  # type: ignore[misc]
    """How far making a key backup is: not asked."""

    def on_update(self, status: Any) -> None:
        pass


class RustClient:
    """A device."""

    def __init__(self, url: str, user: str, device: str, directory: str) -> None:
        self._arguments = url, user, device, directory
        self._timelines: dict[str, tuple[Any, Items, Any]] = {}

    async def login(self, password: str) -> str:
        url, user, device, directory = self._arguments
        builder = sdk.ClientBuilder().homeserver_url(url)
        builder = builder.sqlite_store(
            sdk.SqliteStoreBuilder(f"{directory}/data", f"{directory}/cache")
        )
        builder = builder.sliding_sync_version_builder(
            sdk.SlidingSyncVersionBuilder.DISCOVER_NATIVE
        )
        builder = builder.auto_enable_cross_signing(True).threads_enabled(True, True)
        strategy = BackupDownloadStrategy.AFTER_DECRYPTION_FAILURE
        builder = builder.backup_download_strategy(strategy)
        self.client = await builder.build()
        await self.client.login(user, password, device, device)
        self.encryption = self.client.encryption()
        await self.encryption.wait_for_e2ee_initialization_tasks()
        # While there is no server it looks for one, as apps have it.
        self.service = await self.client.sync_service().with_offline_mode().finish()
        await self.service.start()
        self.rooms_service = self.service.room_list_service()
        self.list = await self.rooms_service.all_rooms()
        self.entries = RoomEntries()
        self._adapters = self.list.entries_with_dynamic_adapters(20, self.entries)
        self._stream = self._adapters.entries_stream()
        self._adapters.controller().set_filter(sdk.RoomListEntriesDynamicFilterKind.NON_LEFT())
        return str(self.client.user_id())

    async def sliding_sync(self) -> str:
        return str(self.client.sliding_sync_version().name)

    async def create_room(self, name: str, invite: list[str], encrypted: bool) -> str:
        return str(
            await self.client.create_room(
                sdk.CreateRoomParameters(
                    name=name,
                    is_encrypted=encrypted,
                    visibility=sdk.RoomVisibility.PRIVATE(),
                    preset=sdk.RoomPreset.PRIVATE_CHAT,
                    invite=invite,
                )
            )
        )

    async def wait_list(self, names: list[str]) -> list[str]:
        """Wait until the room list has these rooms first, in this order."""

        def shown() -> list[str]:
            return [room.display_name() or "" for room in self.entries.rooms]

        for _ in range(500):
            if shown()[: len(names)] == names:
                return shown()
            await asyncio.sleep(0.05)
        raise AssertionError(f"{shown()} instead of {names}")

    async def list_now(self) -> list[str]:
        return [room.display_name() or "" for room in self.entries.rooms]

    async def more(self, count: int) -> bool:
        """Show further pages, as far as rooms are known, until there are so many rooms."""
        for _ in range(250):
            if len(self.entries.rooms) >= count:
                return True
            self._adapters.controller().add_one_page()
            await asyncio.sleep(0.1)
        raise AssertionError(f"{len(self.entries.rooms)}, {len(self.client.rooms())} known")

    async def join(self, room: str) -> bool:
        def invited() -> Any:
            return self._room(room, sdk.Membership.INVITED)

        await (await until(invited)).join()
        await until(lambda: self._room(room, sdk.Membership.JOINED))
        return True

    def _room(self, room_id: str, membership: Any) -> Any:
        room = self.client.get_room(room_id)
        return room if room is not None and room.membership() == membership else None

    async def open(self, room: str) -> bool:
        """Show a room: subscribe to it and follow its timeline."""
        await self._timeline(room)
        return True

    async def _timeline(self, room: str) -> tuple[Any, Items]:
        if room not in self._timelines:
            found = await until(lambda: self._room(room, sdk.Membership.JOINED))
            await self.rooms_service.subscribe_to_rooms([room])
            timeline, items = await found.timeline(), Items()
            self._timelines[room] = timeline, items, await timeline.add_listener(items)
        return self._timelines[room][:2]

    async def send(self, room: str, body: str) -> str:
        timeline, items = await self._timeline(room)
        await timeline.send(sdk.message_event_content_from_markdown(body))
        return str(
            await until(
                lambda: next(
                    (
                        event.event_or_transaction_id.event_id
                        for event in self._events(items)
                        if event.is_own
                        and self._body(event) == body
                        and event.event_or_transaction_id.is_event_id()
                    ),
                    None,
                )
            )
        )

    async def change_key(self, room: str) -> bool:
        """Encrypt what follows with a new key, which others have to be sent."""
        await (await until(lambda: self._room(room, sdk.Membership.JOINED))).discard_room_key()
        return True

    async def reply(self, room: str, event: str, body: str) -> bool:
        timeline, _ = await self._timeline(room)
        await timeline.send_reply(sdk.message_event_content_from_markdown(body), event)
        return True

    async def react(self, room: str, event: str, key: str) -> bool:
        timeline, _ = await self._timeline(room)
        return bool(await timeline.toggle_reaction(sdk.EventOrTransactionId.EVENT_ID(event), key))

    async def wait_reaction(self, room: str, event: str, key: str) -> bool:
        _, items = await self._timeline(room)

        def seen() -> bool:
            return any(
                found.event_or_transaction_id.is_event_id()
                and found.event_or_transaction_id.event_id == event
                and any(reaction.key == key for reaction in found.content.content.reactions)
                for found in self._events(items)
                if found.content.is_msg_like()
            )

        return bool(await until(seen))

    async def wait_message(self, room: str, body: str) -> str:
        _, items = await self._timeline(room)

        def found() -> Any:
            return next((e for e in self._events(items) if self._body(e) == body), None)

        return str((await until(found)).sender)

    async def wait_decrypted(self, room: str, body: str) -> str:
        return await self.wait_message(room, body)

    async def wait_member(self, room: str, user: str) -> bool:
        found = await until(lambda: self._room(room, sdk.Membership.JOINED))
        while True:
            member = await found.members()
            chunk = member.next_chunk(100) or []
            if any(each.user_id == user and each.membership.is_join() for each in chunk):
                return True
            await asyncio.sleep(0.1)

    async def wait_bodies(self, room: str, bodies: list[str]) -> list[str | None]:
        """Wait, not for ever, until the timeline shows these messages; what it shows."""
        for _ in range(200):
            found = await self.bodies(room)
            if found == bodies:
                break
            await asyncio.sleep(0.05)
        return found

    async def bodies(self, room: str) -> list[str | None]:
        """What a timeline shows of messages; None for one that cannot be decrypted."""
        _, items = await self._timeline(room)
        return [
            self._body(event)
            for event in self._events(items)
            if event.content.is_msg_like()
            and (self._body(event) or event.content.content.kind.is_unable_to_decrypt())
        ]

    async def page_back(self, room: str, count: int) -> int:
        """Read back to the room's beginning; how many pages."""
        timeline, _ = await self._timeline(room)
        pages = 1
        while not await timeline.paginate_backwards(count):
            pages += 1
        return pages

    def _events(self, items: Items) -> list[Any]:
        found = [item.as_event() for item in items.items]
        return [event for event in found if event is not None]

    def _body(self, event: Any) -> str | None:
        if not event.content.is_msg_like():
            return None
        kind = event.content.content.kind
        return str(kind.content.body) if kind.is_message() else None

    async def threads(self, room: str) -> list[dict[str, Any]]:
        """The threads of a room, as its list of threads shows them."""
        found = await until(lambda: self._room(room, sdk.Membership.JOINED))
        service = found.thread_list_service()
        await service.paginate()
        return [
            {"root": item.root_event.event_id, "length": item.num_replies}
            for item in service.items()
        ]

    async def wait_thread(self, room: str, root: str, length: int) -> bool:
        """Wait until a timeline says how many replies a message in it has."""
        _, items = await self._timeline(room)

        def shown() -> bool:
            return any(
                event.event_or_transaction_id.is_event_id()
                and event.event_or_transaction_id.event_id == root
                and event.content.content.thread_summary is not None
                and event.content.content.thread_summary.num_replies() == length
                for event in self._events(items)
                if event.content.is_msg_like()
            )

        return bool(await until(shown))

    async def follow_thread(self, room: str, root: str, follow: bool) -> bool:
        found = await until(lambda: self._room(room, sdk.Membership.JOINED))
        await found.set_thread_subscription(root, follow)
        return True

    async def wait_following(self, room: str, root: str, follow: bool) -> bool:
        found = await until(lambda: self._room(room, sdk.Membership.JOINED))
        while (await found.fetch_thread_subscription(root) is not None) != follow:
            await asyncio.sleep(0.05)
        return follow

    async def leave(self, room: str) -> bool:
        found = await until(lambda: self._room(room, sdk.Membership.JOINED))
        await found.leave()
        return True

    async def mark_read(self, room: str) -> bool:
        timeline, _ = await self._timeline(room)
        await timeline.mark_as_read(sdk.ReceiptType.READ)
        return True

    async def wait_unread(self, room: str, count: int) -> int:
        found = self._room(room, sdk.Membership.JOINED)
        while (await found.room_info()).num_unread_messages != count:
            await asyncio.sleep(0.05)
        return count

    async def enable_recovery(self) -> str:
        return str(await self.encryption.enable_recovery(True, None, Progress()))

    async def recover(self, key: str) -> bool:
        await self.encryption.recover(key)
        return True

    async def wait_verified(self) -> bool:
        verified = sdk.VerificationState.VERIFIED
        return bool(await until(lambda: self.encryption.verification_state() == verified))


async def main() -> None:
    await serve(RustClient(*sys.argv[1:]))


if __name__ == "__main__":
    asyncio.run(main())
