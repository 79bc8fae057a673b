"""Events and states for other servers."""

from __future__ import annotations

from typing import Any

from homeserver.core.event import Event
from homeserver.core.ids import RoomID, UserID
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from storage import events, partial_rooms
from storage.partial_rooms import PartialRoom
from storage.transaction import Transaction
from tests.federation.server.served import (
    AUTH,
    BACKFILL,
    BY_TIME,
    EVENT,
    MISSING,
    STATE,
    STATE_IDS,
    ServedCase,
)
from tests.support.stored import event_row, put_event


class AccessTest(ServedCase):
    async def test_a_server_in_the_room_is_answered(self) -> None:
        """Shows BF-4."""
        await self.begin()
        event_id = await self.alice.send(self.room_id)
        for status, answer in await self.everything(event_id):
            self.assertEqual(status, 200, answer)

    async def test_a_server_outside_the_room_is_refused(self) -> None:
        """Shows BF-4."""
        await self.begin(join=False)
        event_id = await self.alice.send(self.room_id)
        for answer in await self.everything(event_id):
            self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_a_server_that_left_is_refused(self) -> None:
        """Shows BF-4."""
        await self.begin()
        await self.other.membership(self.room_id, "leave")
        event_id = await self.alice.send(self.room_id)
        for answer in await self.everything(event_id):
            self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_a_server_that_the_acl_denies_is_refused(self) -> None:
        """Shows ACL-3, BF-4."""
        await self.begin()
        event_id = await self.alice.send(self.room_id)
        acl: dict[str, Any] = {"allow": ["*"], "deny": ["203.0.*"]}
        await self.alice.set_state(self.room_id, "m.room.server_acl", acl)
        for answer in await self.everything(event_id):
            self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.alice.set_state(self.room_id, "m.room.server_acl", {"allow": ["*"]})
        for status, answer in await self.everything(event_id):
            self.assertEqual(status, 200, answer)

    async def test_a_malformed_acl_denies(self) -> None:
        """Shows ACL-2, ACL-3."""
        await self.begin()
        event_id = await self.alice.send(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.server_acl", {"allow": "*"})
        for answer in await self.everything(event_id):
            self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_unknown_rooms_and_events(self) -> None:
        """Shows BF-4, BF-5."""
        await self.begin()
        known = await self.alice.send(self.room_id)
        for answer in (await self.everything("$unknown"))[:4]:
            self.assert_error(answer, 404, "M_NOT_FOUND")
        self.assertEqual(await self.backfill("$unknown"), [])
        self.assertEqual(await self.missing(["$unknown"]), [])
        self.room_id = "!unknown:hearth.test"
        for answer in (await self.everything(known))[1:]:
            self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_events_of_other_rooms(self) -> None:
        """Shows BF-1, BF-10."""
        await self.begin()
        secret = await self.alice.create_room(preset="private_chat")
        event_id = await self.alice.send(secret)
        one, *of_this_room = (await self.everything(event_id))[:4]
        self.assert_error(one, 403, "M_FORBIDDEN")
        for answer in of_this_room:
            self.assert_error(answer, 404, "M_NOT_FOUND")
        self.assertEqual(await self.backfill(event_id), [])
        self.assertEqual(await self.missing([event_id]), [])

    async def test_predecessors_in_other_rooms(self) -> None:
        """Shows BF-10."""
        await self.begin()
        secret = await self.alice.create_room(preset="private_chat")
        there = await self.alice.send(secret)
        bad = await self.put_made(self.made([there], 50, await self.auth()))
        self.assertEqual(await self.backfill(bad), [bad])
        self.assertEqual(await self.missing([bad]), [])

    async def test_hostile_parameters(self) -> None:
        await self.begin()
        ask, room_id = self.other.get, self.room_id
        for path, query, errcode in (
            (STATE, {}, "M_MISSING_PARAM"),
            (STATE_IDS, {}, "M_MISSING_PARAM"),
            (STATE, {"event_id": "no event"}, "M_INVALID_PARAM"),
            (STATE, {"event_id": "$" + "x" * 300}, "M_INVALID_PARAM"),
            (STATE, {"event_id": "$\0"}, "M_INVALID_PARAM"),
            (BACKFILL, {"limit": 5}, "M_MISSING_PARAM"),
            (BACKFILL, {"v": "$a"}, "M_MISSING_PARAM"),
            (BACKFILL, {"v": "$a", "limit": 0}, "M_INVALID_PARAM"),
            (BACKFILL, {"v": "$a", "limit": -1}, "M_INVALID_PARAM"),
            (BACKFILL, {"v": "$a", "limit": "many"}, "M_INVALID_PARAM"),
            (BACKFILL, {"v": ["$a"] * 101, "limit": 5}, "M_INVALID_PARAM"),
            (BY_TIME, {"ts": "soon", "dir": "f"}, "M_INVALID_PARAM"),
            (BY_TIME, {"ts": 1, "dir": "up"}, "M_INVALID_PARAM"),
            (BY_TIME, {"dir": "f"}, "M_MISSING_PARAM"),
        ):
            self.assert_error(await ask(path, room_id, query=query), 400, errcode)
        bodies: list[Any] = [
            {},
            {"latest_events": []},
            {"latest_events": "$a", "earliest_events": []},
            {"latest_events": ["a"], "earliest_events": []},
            {"latest_events": [1], "earliest_events": []},
            {"latest_events": ["$a"] * 501, "earliest_events": []},
            {"latest_events": [], "earliest_events": [], "limit": -1},
            {"latest_events": [], "earliest_events": [], "limit": True},
            {"latest_events": [], "earliest_events": [], "min_depth": 2**63},
        ]
        for body in bodies:
            status, answer = await self.other.post(MISSING, room_id, json=body)
            self.assertEqual(status, 400, (body, answer))
        for bad in ("room", "!", "!" + "x" * 300):
            answers = await ask(STATE, bad, query={"event_id": "$a"})
            self.assert_error(answers, 400, "M_INVALID_PARAM")


class OneEventTest(ServedCase):
    async def test_a_transaction_of_one(self) -> None:
        """Shows BF-7."""
        await self.begin()
        event_id = await self.alice.send(self.room_id)
        status, answer = await self.other.get(EVENT, event_id)
        self.assertEqual(status, 200)
        self.assertEqual(set(answer), {"origin", "origin_server_ts", "pdus"})
        self.assertEqual(answer["origin"], self.server.homeserver.config.server_name)
        self.assertGreater(answer["origin_server_ts"], 1_600_000_000_000)
        self.assertEqual(answer["pdus"], [(await self.stored(event_id)).pdu])

    async def test_rejected_events(self) -> None:
        """Shows RECV-3, BF-5."""
        await self.begin()
        (head,) = (await self.row()).extremities
        for status in (events.REJECTED, events.MISPLACED):
            event = self.made([head], 50, await self.auth(), content={"status": status})
            bad = await self.put_made(event, status=status)
            above = await self.put_made(self.made([bad], 51, await self.auth()))
            for answer in (await self.everything(bad))[:4]:
                self.assert_error(answer, 404, "M_NOT_FOUND")
            # What is before it is, though.
            self.assertEqual(await self.backfill(above, limit=2), [above, head])
            self.assertEqual(await self.missing([above], limit=1), [head])

    async def test_soft_failed_events(self) -> None:
        """They are kept from clients, not from servers. Shows RECV-5."""
        await self.begin()
        (head,) = (await self.row()).extremities
        event = self.made([head], 50, await self.auth())
        soft = await self.put_made(event, status=events.SOFT_FAILED)
        await self.served(soft)
        self.assertEqual(await self.backfill(soft, limit=2), [soft, head])

    async def test_outliers(self) -> None:
        """They are served as events; where they belong is not known. Shows RECV-10."""
        await self.begin()
        event = self.made(["$somewhere"], 50, await self.auth())
        row = event_row(event, (await self.row()).room_nid)
        await self.db.write(events.insert, [row])
        await self.served(event.event_id)
        query = {"event_id": event.event_id}
        for path in (STATE, STATE_IDS):
            answer = await self.other.get(path, self.room_id, query=query)
            self.assert_error(answer, 404, "M_NOT_FOUND")
        status, answer = await self.other.get(AUTH, self.room_id, event.event_id)
        self.assertEqual(status, 200)
        self.assertGreater(len(answer["auth_chain"]), 2)
        self.assertEqual(await self.backfill(event.event_id), [])


class StateTest(ServedCase):
    async def test_the_state_before_the_event(self) -> None:
        """Shows BF-5."""
        await self.begin(name="Before")
        before = await self.current()
        event_id = await self.alice.set_state(self.room_id, "m.room.name", {"name": "After"})
        for at in (event_id, await self.alice.send(self.room_id)):
            query = {"event_id": at}
            status, answer = await self.other.get(STATE_IDS, self.room_id, query=query)
            self.assertEqual(status, 200)
            self.assertEqual(set(answer["pdu_ids"]), set(before.values()))
            status, full = await self.other.get(STATE, self.room_id, query=query)
            self.assertEqual({self.id_of(pdu) for pdu in full["pdus"]}, set(before.values()))
            chain = {self.id_of(pdu) for pdu in full["auth_chain"]}
            self.assertEqual(chain, set(answer["auth_chain_ids"]))
            self.assertEqual(chain, await self.chain_of(before.values()))
            before["m.room.name", ""] = event_id

    async def test_a_large_state(self) -> None:
        """Shows BF-5."""
        await self.begin()
        room, state = await self.row(), await self.current()
        joined = await self.stored(self.joined)
        rows = []
        for number in range(2500):
            user_id = f"@u{number}:{self.other.name}"
            pdu = {**joined.pdu, "state_key": user_id, "sender": user_id}
            event = Event.from_pdu(pdu, ROOM_VERSIONS["12"])
            rows.append(event_row(event, room.room_nid))
            state[event.key] = event.event_id
        await self.db.write(events.insert, rows)
        at = self.made([self.joined], 50, await self.auth())
        await self.db.write(put_event, self.states, self.room_id, at, state)
        query = {"event_id": at.event_id}
        _, answer = await self.other.get(STATE, self.room_id, query=query)
        self.assertEqual({self.id_of(pdu) for pdu in answer["pdus"]}, set(state.values()))
        _, ids = await self.other.get(STATE_IDS, self.room_id, query=query)
        self.assertEqual(set(ids["pdu_ids"]), set(state.values()))
        chain = {self.id_of(pdu) for pdu in answer["auth_chain"]}
        self.assertEqual(chain, set(ids["auth_chain_ids"]))

    async def test_rooms_whose_members_are_not_all_known(self) -> None:
        """Shows BF-5."""
        await self.begin()
        event_id = await self.alice.send(self.room_id)
        room = PartialRoom((await self.row()).room_nid, event_id, 0)
        await self.db.write(partial_rooms.put, room)
        for path in (STATE, STATE_IDS):
            answer = await self.other.get(path, self.room_id, query={"event_id": event_id})
            self.assert_error(answer, 404, "M_NOT_FOUND")
        await self.served(event_id)

    async def test_the_first_event(self) -> None:
        """Shows BF-5."""
        await self.begin()
        query = {"event_id": (await self.current())["m.room.create", ""]}
        status, answer = await self.other.get(STATE_IDS, self.room_id, query=query)
        self.assertEqual((status, answer), (200, {"pdu_ids": [], "auth_chain_ids": []}))
        status, answer = await self.other.get(STATE, self.room_id, query=query)
        self.assertEqual((status, answer), (200, {"pdus": [], "auth_chain": []}))

    async def test_the_auth_chain(self) -> None:
        """Shows BF-6."""
        await self.begin()
        await self.alice.set_state(
            self.room_id, "m.room.power_levels", {"events": {"m.room.name": 0}}
        )
        event_id = await self.alice.send(self.room_id)
        status, answer = await self.other.get(AUTH, self.room_id, event_id)
        self.assertEqual((status, set(answer)), (200, {"auth_chain"}))
        chain = [self.id_of(pdu) for pdu in answer["auth_chain"]]
        self.assertEqual(len(chain), len(set(chain)))
        self.assertEqual(set(chain), await self.chain_of([event_id]))
        self.assertEqual(chain[0], (await self.current())["m.room.create", ""])
        self.assertNotIn(event_id, chain)

    async def chain_of(self, event_ids: Any) -> set[str]:
        create = (await self.current())["m.room.create", ""]
        found: set[str] = set()
        waiting = list(event_ids)
        while waiting:
            event = await self.stored(waiting.pop())
            names = {*event.auth_event_ids, *([create] if event.event_id != create else [])}
            waiting += names - found
            found |= names
        return found


class HistoryTest(ServedCase):
    async def test_backfill_is_newest_first(self) -> None:
        """Shows BF-1."""
        await self.begin()
        sent = [await self.alice.send(self.room_id, f"{n}") for n in range(5)]
        self.assertEqual(await self.backfill(sent[3], limit=3), [sent[3], sent[2], sent[1]])
        everything = await self.backfill(sent[4], limit=100)
        self.assertEqual(everything[:5], sent[::-1])
        self.assertEqual(everything[-1], (await self.current())["m.room.create", ""])

    async def test_backfill_from_several(self) -> None:
        """Shows BF-1."""
        await self.begin()
        sent = [await self.alice.send(self.room_id, f"{n}") for n in range(4)]
        found = await self.backfill(sent[0], sent[3], "$unknown", sent[0], limit=3)
        self.assertEqual(found, [sent[3], sent[2], sent[1]])

    async def test_backfill_over_a_fork(self) -> None:
        """Shows BF-1."""
        await self.begin()
        base = await self.alice.send(self.room_id)
        depth = (await self.stored(base)).depth
        auth = await self.auth()
        left = await self.put_made(self.made([base], depth + 1, auth))
        right = await self.put_made(self.made([base], depth + 1, auth, content={}))
        merged = await self.put_made(self.made([left, right], depth + 2, auth))
        found = await self.backfill(merged, limit=4)
        self.assertEqual((found[0], set(found[1:3]), found[3]), (merged, {left, right}, base))

    async def test_backfill_of_at_most_a_hundred(self) -> None:
        """Shows BF-1."""
        await self.begin()
        (head,) = (await self.row()).extremities
        auth = await self.auth()
        for depth in range(100, 230):
            head = await self.put_made(self.made([head], depth, auth))
        self.assertEqual(len(await self.backfill(head, limit=100_000)), 100)

    async def test_missing_events_are_oldest_first(self) -> None:
        """Shows BF-2."""
        await self.begin()
        sent = [await self.alice.send(self.room_id, f"{n}") for n in range(15)]
        self.assertEqual(await self.missing([sent[4]], [sent[0]]), sent[1:4])
        self.assertEqual(await self.missing([sent[4]], [sent[0]], limit=2), sent[2:4])
        self.assertEqual(await self.missing([sent[14]]), sent[4:14])
        depth = (await self.stored(sent[2])).depth
        self.assertEqual(await self.missing([sent[4]], min_depth=depth), sent[2:4])
        self.assertEqual(await self.missing([sent[4]], [sent[4]]), [])
        self.assertEqual(await self.missing([sent[4]], limit=0), [])

    async def test_missing_events_breadth_first(self) -> None:
        """Shows BF-2."""
        await self.begin()
        base = await self.alice.send(self.room_id)
        depth, auth = (await self.stored(base)).depth, await self.auth()
        left = await self.put_made(self.made([base], depth + 1, auth))
        # A branch whose server lies about depths is not walked before the others.
        right = await self.put_made(self.made([base], depth + 500, auth, content={}))
        merged = await self.put_made(self.made([left, right], depth + 501, auth))
        self.assertEqual(await self.missing([merged], limit=2), [left, right])
        self.assertEqual(await self.missing([merged], limit=3), [base, left, right])
        self.assertEqual(await self.missing([merged], [right, base]), [left])

    async def test_cycles(self) -> None:
        """Shows BF-1, BF-2."""
        await self.begin()
        auth = await self.auth()
        ids = [f"$cycle{number}" for number in range(3)]
        now = await self.current()
        for number, name in enumerate(ids):
            event = self.made([ids[number - 1]], 50 + number, auth)
            await self.db.write(put_event, self.states, self.room_id, event, now)
            await self.db.write(_rename, event.event_id, name)
        query = {"v": ids[2], "limit": 10}
        status, answer = await self.other.get(BACKFILL, self.room_id, query=query)
        self.assertEqual((status, [pdu["depth"] for pdu in answer["pdus"]]), (200, [52, 51, 50]))
        status, answer = await self.ask_missing([ids[2]])
        self.assertEqual((status, [pdu["depth"] for pdu in answer["events"]]), (200, [50, 51]))

    async def test_the_event_nearest_to_a_time(self) -> None:
        """Shows BF-12."""
        await self.begin()
        sending = self.server.homeserver.services[Sending]
        bridge = Requester(UserID(self.alice.user_id), "D", appservice_id="bridge")
        room_id = RoomID(self.room_id)

        async def send_at(ts: int, name: str) -> str:
            return await sending.send_event(bridge, room_id, "custom", {}, name, ts=ts)

        future = 10**13
        first, second, later = [
            await send_at(future + n, f"t{name}") for name, n in enumerate((0, 0, 10))
        ]
        for ts, direction, found in (
            (future, "f", first),
            (future + 5, "b", second),
            (future + 5, "f", later),
            (future + 10, "b", later),
        ):
            query = {"ts": ts, "dir": direction}
            status, answer = await self.other.get(BY_TIME, self.room_id, query=query)
            self.assertEqual((status, answer["event_id"]), (200, found), query)
        self.assertEqual(answer["origin_server_ts"], future + 10)
        for query in ({"ts": future + 11, "dir": "f"}, {"ts": 0, "dir": "b"}):
            answer = await self.other.get(BY_TIME, self.room_id, query=query)
            self.assert_error(answer, 404, "M_NOT_FOUND")


def _rename(txn: Transaction, event_id: str, name: str) -> None:
    """Give an event another ID: real ones are hashes, which cannot form a cycle."""
    txn.execute("UPDATE events SET event_id = ? WHERE event_id = ?", (name, event_id))
