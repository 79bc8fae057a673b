"""What application services are told, in which order, and what becomes of it."""

from __future__ import annotations

from typing import Any

from homeserver.appservices.delivery import AppserviceDelivery, lease_name
from tests.homeserver.appservices.bridge_case import ALICE, BOT, BridgeCase
from tests.support.appservices import Told
from tests.support.network import eventually

HELLO = {"msgtype": "m.text", "body": "hello"}


class InterestTest(BridgeCase):
    async def test_rooms_of_its_users(self) -> None:
        """Shows AS-2, AS-3: all events of rooms that its users are in, and none of others."""
        await self.prepare()
        user = await self.server.register("carol")
        other_room = await user.create_room()
        await user.send(other_room, "elsewhere")
        room_id = await self.room(preset="public_chat")
        await user.join(room_id)
        sent = await user.send(room_id, "hello")
        event = await self.came(event_id=sent)
        self.assertEqual(
            {key: event[key] for key in ("type", "sender", "room_id", "content")},
            {
                "type": "m.room.message",
                "sender": user.user_id,
                "room_id": room_id,
                "content": HELLO,
            },
        )
        self.assertEqual({each["room_id"] for each in self.bridge.events()}, {room_id})
        self.assertEqual(self.bridge.events()[0]["type"], "m.room.create")
        told = self.bridge.transactions()[0]
        self.assertEqual((told.method, told.token), ("PUT", "hs-token-of-irc"))
        self.assertTrue(told.path.startswith("/base/_matrix/app/v1/transactions/"))
        self.assertNotIn("access_token", told.query)

    async def test_order_and_state(self) -> None:
        """Shows AS-2: in the order of the log; state with what it replaced."""
        await self.prepare()
        room_id = await self.room(name="one", preset="public_chat")
        user = await self.server.register()
        await user.join(room_id)
        sent = [await user.send(room_id, str(number)) for number in range(30)]
        renamed = await self.irc.call(
            "PUT", f"/rooms/{room_id}/state/m.room.name", {"name": "two"}, user=ALICE
        )
        event = await self.came(event_id=renamed.body["event_id"])
        self.assertEqual(event["unsigned"]["prev_content"], {"name": "one"})
        got = [each["event_id"] for each in self.bridge.events()]
        self.assertEqual([each for each in got if each in sent], sent)
        self.assertEqual(len(got), len(set(got)))

    async def test_before_and_after(self) -> None:
        """What happened while its user was in the room, their leaving included."""
        await self.prepare()
        user = await self.server.register()
        room_id = await user.create_room(preset="public_chat")
        before = await user.send(room_id, "before")
        # Nobody listens while its user comes and goes.
        await self.bridge.stop()
        await self.irc.call("POST", f"/join/{room_id}", {}, user=ALICE)
        during = await user.send(room_id, "during")
        await self.irc.call("POST", f"/rooms/{room_id}/leave", {}, user=ALICE)
        after = await user.send(room_id, "after")
        self.bridge.come_back()
        await self.came(event_id=during)
        await self.came(type="m.room.member", state_key=ALICE, content={"membership": "leave"})
        marker = await self.room()
        await self.came(type="m.room.create", room_id=marker)
        got = {each["event_id"] for each in self.bridge.events()}
        self.assertFalse({before, after} & got)

    async def test_invites(self) -> None:
        """Invites of its users, with what the room is told of."""
        await self.prepare()
        user = await self.server.register()
        room_id = await user.create_room(name="Den")
        await user.invite(room_id, ALICE)
        event = await self.came(type="m.room.member", room_id=room_id, state_key=ALICE)
        self.assertEqual(event["content"]["membership"], "invite")
        names = [
            each["content"]
            for each in event["unsigned"]["invite_room_state"]
            if each["type"] == "m.room.name"
        ]
        self.assertEqual(names, [{"name": "Den"}])
        hidden = await user.send(room_id, "not yet")
        await self.irc.call("POST", f"/join/{room_id}", {}, user=ALICE)
        seen = await user.send(room_id, "now")
        await self.came(event_id=seen)
        self.assertNotIn(hidden, [each["event_id"] for each in self.bridge.events()])

    async def test_named_rooms(self) -> None:
        """Rooms of its namespaces, whoever is in them; its own user is as good as others."""
        await self.prepare(namespaces={"aliases": [{"regex": "#_irc_.*", "exclusive": False}]})
        user = await self.server.register()
        room_id = await user.create_room(room_alias_name="_irc_den")
        sent = await user.send(room_id, "hello")
        await self.came(event_id=sent)
        own = await self.room(user=None)
        await self.came(type="m.room.create", room_id=own, sender=BOT)


class RetryTest(BridgeCase):
    async def test_the_same_again(self) -> None:
        """Shows AS-2: a transaction that is not taken is repeated as it is, and then go on."""
        await self.prepare()
        failures: list[Any] = [(500, {}), (403, {"errcode": "M_FORBIDDEN", "error": ""}), (302, {})]
        self.bridge.answers.append(lambda told: failures.pop(0) if failures else None)
        room_id = await self.room()
        user_event = await self.irc.call(
            "PUT", f"/rooms/{room_id}/send/m.room.message/1", HELLO, user=ALICE
        )
        await self.came(event_id=user_event.body["event_id"])
        await eventually(lambda: len(self.bridge.transactions()) >= 4)
        first = self.bridge.transactions()[:4]
        self.assertEqual(len({each.path for each in first}), 1)
        self.assertEqual([each.body for each in first], [first[0].body] * 4)

    async def test_restart(self) -> None:
        """Shows AS-2: what was not taken before the server ended is sent by the next one."""
        await self.prepare()
        room_id = await self.room()
        await self.came(room_id=room_id, type="m.room.create")
        await eventually(self.nothing_waits)
        self.bridge.silent = True
        sent = await self.irc.call(
            "PUT", f"/rooms/{room_id}/send/m.room.message/1", HELLO, user=ALICE
        )
        before = len(self.bridge.transactions())
        await eventually(lambda: len(self.bridge.transactions()) > before)
        pending = self.bridge.transactions()[-1]
        await self.server.restart()
        self.bridge.silent = False
        await eventually(lambda: len(self.bridge.transactions()) > before + 1)
        again = self.bridge.transactions()[before + 1]
        self.assertEqual((again.path, again.body), (pending.path, pending.body))
        self.assertEqual(again.body["events"][0]["event_id"], sent.body["event_id"])
        await eventually(self.nothing_waits)
        count = len(self.bridge.transactions())
        await self.server.restart()
        await self.server.homeserver.db.read(lambda txn: None)
        self.assertEqual(len(self.bridge.transactions()), count)

    async def nothing_waits(self) -> bool:
        sql = "SELECT COUNT(*) FROM appservice_streams WHERE body IS NOT NULL"
        waiting: int = await self.server.homeserver.db.read(lambda txn: txn.value(sql))
        return waiting == 0

    async def test_another_process_has_it(self) -> None:
        """A service is told by the process that holds its lease, and by no other."""
        await self.prepare()
        await self.room()
        await eventually(self.bridge.transactions)
        await eventually(self.nothing_waits)
        db = self.server.homeserver.db
        name = lease_name("irc")

        def steal(txn: Any) -> None:
            txn.execute("UPDATE leases SET owner = 'another' WHERE name = ?", (name,))

        await db.write(steal)
        count = len(self.bridge.transactions())
        refused: list[bool] = []
        put = AppserviceDelivery._put

        def watched(*args: Any) -> bool:
            refused.append(not put(*args))
            return not refused[-1]

        self.patch(AppserviceDelivery, "_put", watched)
        await self.room()
        await eventually(lambda: refused)
        self.assertTrue(all(refused))
        self.assertEqual(len(self.bridge.transactions()), count)

    async def test_old_services(self) -> None:
        """Shows AS-3: services that know the old paths only."""
        await self.prepare()
        current: list[Any] = []

        def answer(told: Told) -> Any:
            return current[-1] if "/_matrix/" in told.path else None

        def came() -> Any:
            old = [each for each in self.bridge.told if each.path.startswith("/base/trans")]
            return next((each for each in old if each.body["events"]), None)

        self.bridge.answers.append(answer)
        for unknown in ((404, {}), (404, {"errcode": "M_UNRECOGNIZED", "error": "x"}), (405, b"")):
            current.append(unknown)
            self.bridge.told.clear()
            await self.room()
            told = await eventually(came)
            self.assertEqual(told.query, {"access_token": "hs-token-of-irc"})


class EphemeralTest(BridgeCase):
    async def test_all_kinds(self) -> None:
        """Shows AS-4: receipts, typing and presence in its rooms; private receipts are private."""
        await self.prepare(receive_ephemeral=True)
        room_id = await self.room(preset="public_chat")
        user = await self.server.register()
        await user.join(room_id)
        sent = await user.send(room_id, "hello")
        away = await user.create_room()
        away_event = await user.send(away, "x")
        await user.ok("POST", f"/rooms/{away}/receipt/m.read/{away_event}", {})
        await user.ok("POST", f"/rooms/{room_id}/receipt/m.read.private/{sent}", {})
        await user.ok("PUT", f"/rooms/{room_id}/typing/{user.user_id}", {"typing": True})
        await user.ok("PUT", f"/presence/{user.user_id}/status", {"presence": "online"})
        await self.irc.call(
            "POST", f"/rooms/{room_id}/receipt/m.read.private/{sent}", {}, user=ALICE
        )
        await user.ok("POST", f"/rooms/{room_id}/receipt/m.read/{sent}", {})
        path = f"/rooms/{room_id}/typing/{user.user_id}"

        def of_type(kind: str) -> list[Any]:
            return [each for each in self.bridge.ephemeral() if each["type"] == kind]

        def readers(kind: str) -> set[str]:
            return {
                reader
                for each in of_type("m.receipt")
                for by_kind in each["content"].values()
                for reader in by_kind.get(kind, {})
            }

        await eventually(lambda: readers("m.read") == {user.user_id})
        await eventually(lambda: readers("m.read.private") == {ALICE})
        self.assertEqual({each["room_id"] for each in of_type("m.receipt")}, {room_id})
        typing = {"type": "m.typing", "room_id": room_id, "content": {"user_ids": [user.user_id]}}
        await eventually(lambda: typing in of_type("m.typing"))
        await user.ok("PUT", path, {"typing": False})
        typing["content"] = {"user_ids": []}
        await eventually(lambda: typing in of_type("m.typing"))
        await eventually(
            lambda: any(each["sender"] == user.user_id for each in of_type("m.presence"))
        )

    async def test_not_wanted(self) -> None:
        """Shows AS-4: nothing of that without the flag."""
        await self.prepare()
        room_id = await self.room()
        sent = await self.irc.call(
            "PUT", f"/rooms/{room_id}/send/m.room.message/1", HELLO, user=ALICE
        )
        event_id = sent.body["event_id"]
        await self.irc.call("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {}, user=ALICE)
        await self.came(event_id=event_id)
        marker = await self.room()
        await self.came(room_id=marker, type="m.room.create")
        self.assertEqual(self.bridge.ephemeral(), [])
