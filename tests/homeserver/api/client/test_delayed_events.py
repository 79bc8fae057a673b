"""Delayed events."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor

from homeserver.core.ids import UserID
from homeserver.users.accounts import Accounts
from storage import delayed_events
from storage.database import sleep
from tests.support.client import Answer
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.room_case import TEXT, q
from tests.support.server import User, make_server

reactor: Any = installed_reactor
UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140"
PATH = f"{UNSTABLE}/delayed_events"
HOUR = 3_600_000


@on_each_database
class DelayedEventsTest(DatabaseTestCase):
    """Shows XC-2."""

    timeout = 60

    async def prepare(self) -> None:
        self.url = self.database_url()
        self.server = await make_server(
            self,
            database_url=self.url,
            presence={"enabled": False},
            delayed_events={"longest_delay": "1h", "per_user": 5},
        )
        self.alice = await self.server.register("alice")
        self.room_id = await self.alice.create_room(preset="public_chat")

    async def request(
        self, delay: Any, kind: str = "send/m.room.message", end: str = "t1", body: Any = TEXT
    ) -> Answer:
        query = {"org.matrix.msc4140.delay": delay}
        path = f"/rooms/{q(self.room_id)}/{kind}/{end}"
        return await self.alice.call("PUT", path, body, query=query)

    async def schedule(self, delay: int, *args: Any, **options: Any) -> str:
        status, body = await self.request(delay, *args, **options)
        self.assertEqual((status, list(body)), (200, ["delay_id"]), body)
        delay_id: str = body["delay_id"]
        return delay_id

    async def act(self, action: str, delay_id: str) -> int:
        answer = await self.server.client.post(f"{PATH}/{delay_id}/{action}")
        if answer.status != 200:
            self.assertEqual(answer.body["errcode"], "M_NOT_FOUND")
        return answer.status

    async def waiting(self) -> list[Any]:
        found: list[Any] = (await self.alice.ok("GET", PATH))["delayed_events"]
        return found

    async def over(self, delay_id: str, user: User | None = None) -> Any:
        """The delayed event when it does not wait any more."""
        while True:
            event = await (user or self.alice).ok("GET", f"{PATH}/{delay_id}")
            if "finalised_ts" in event:
                return event
            await sleep(reactor, 0.01)

    async def messages(self) -> list[str]:
        answer = await self.alice.ok(
            "GET", f"/rooms/{q(self.room_id)}/messages", query={"dir": "b", "limit": 50}
        )
        return [event["event_id"] for event in answer["chunk"] if event["type"] == "m.room.message"]

    async def test_sent_when_due(self) -> None:
        """A message and a state event, each once; then they are known as sent."""
        message = await self.schedule(50)
        state = await self.schedule(50, "state/m.room.topic", "", {"topic": "later"})
        sent = await self.over(message)
        self.assertEqual(await self.messages(), [sent["event_id"]])
        event = await self.alice.ok("GET", f"/rooms/{q(self.room_id)}/event/{q(sent['event_id'])}")
        self.assertEqual((event["content"], event["sender"]), (TEXT, self.alice.user_id))
        sent = await self.over(state)
        self.assertEqual((sent["state_key"], sent["type"]), ("", "m.room.topic"))
        topic = await self.alice.ok("GET", f"/rooms/{q(self.room_id)}/state/m.room.topic")
        self.assertEqual(topic, {"topic": "later"})
        self.assertEqual(await self.waiting(), [])
        done = await self.alice.ok("GET", PATH, query={"status": "finalised"})
        self.assertEqual({each["delay_id"] for each in done["delayed_events"]}, {message, state})

    async def test_listed(self) -> None:
        """Waiting events are shown to their sender alone."""
        delay_id = await self.schedule(HOUR, "state/m.x", "key", {"a": 1})
        (event,) = await self.waiting()
        started = event.pop("running_since")
        self.assertGreater(started, 0)
        self.assertEqual(
            event,
            {
                "delay_id": delay_id,
                "room_id": self.room_id,
                "type": "m.x",
                "state_key": "key",
                "delay": HOUR,
                "content": {"a": 1},
            },
        )
        bob = await self.server.register("bob")
        self.assertEqual((await bob.ok("GET", PATH))["delayed_events"], [])
        self.assertEqual((await bob.call("GET", f"{PATH}/{delay_id}")).status, 404)

    async def test_same_transaction(self) -> None:
        """Repeating the request schedules nothing more; also by the newest path."""
        first = await self.schedule(HOUR)
        self.assertEqual(await self.schedule(HOUR), first)
        self.assertNotEqual(await self.schedule(HOUR, end="t2"), first)
        self.assertEqual(len(await self.waiting()), 2)
        path = (
            "/_matrix/client/unstable/org.matrix.msc4140"
            f"/rooms/{q(self.room_id)}/delayed_event/m.call/t3"
        )
        body = {"delay": HOUR, "content": {"x": 1}, "state_key": "s"}
        one = await self.alice.ok("PUT", path, body)
        self.assertEqual(await self.alice.ok("PUT", path, body), one)
        found = {event["delay_id"]: event for event in await self.waiting()}
        self.assertEqual(found[one["delay_id"]]["state_key"], "s")

    async def test_send_now(self) -> None:
        """At once by request, without a token; a second time changes nothing."""
        delay_id = await self.schedule(HOUR)
        for _ in range(2):
            self.assertEqual(await self.act("send", delay_id), 200)
        self.assertEqual(len(await self.messages()), 1)
        self.assertEqual(await self.act("restart", delay_id), 404)
        self.assertEqual(await self.act("cancel", delay_id), 404)

    async def test_cancel(self) -> None:
        """A cancelled event is never sent."""
        delay_id = await self.schedule(HOUR)
        for _ in range(2):
            self.assertEqual(await self.act("cancel", delay_id), 200)
        self.assertEqual(await self.act("send", delay_id), 404)
        self.assertEqual(await self.messages(), [])
        event = await self.over(delay_id)
        self.assertNotIn("event_id", event)
        self.assertNotIn("error", event)

    async def test_restart(self) -> None:
        """The time begins anew, by both forms of the request."""
        delay_id = await self.schedule(HOUR)
        db = self.server.homeserver.db

        def age(txn: Any) -> None:
            txn.execute(
                "UPDATE delayed_events SET running_since = running_since - 1000,"
                " send_ts = send_ts - 1000"
            )

        for old in (False, True):
            before = (await self.waiting())[0]["running_since"]
            await db.write(age)
            if old:
                answer = await self.server.client.post(f"{PATH}/{delay_id}", {"action": "restart"})
                self.assertEqual(answer.status, 200)
            else:
                self.assertEqual(await self.act("restart", delay_id), 200)
            self.assertGreaterEqual((await self.waiting())[0]["running_since"], before)
        due = await db.read(delayed_events.next_due)
        self.assertEqual(due, (await self.waiting())[0]["running_since"] + HOUR)
        for body, errcode in (({}, "M_MISSING_PARAM"), ({"action": "x"}, "M_INVALID_PARAM")):
            answer = await self.server.client.post(f"{PATH}/{delay_id}", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode))
        for action in ("restart", "send", "cancel"):
            self.assertEqual(await self.act(action, "unknown"), 404)

    async def test_refused_when_due(self) -> None:
        """Whether it may be sent is judged then; why not is told."""
        bob = await self.server.register("bob")
        await bob.join(self.room_id)
        query = {"org.matrix.msc4140.delay": HOUR}
        path = f"/rooms/{q(self.room_id)}/send/m.room.message/x"
        delay_id = (await bob.ok("PUT", path, TEXT, query=query))["delay_id"]
        await bob.leave(self.room_id)
        answer = await self.server.client.post(f"{PATH}/{delay_id}/send")
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        event = await self.over(delay_id, bob)
        self.assertEqual(event["error"]["errcode"], "M_FORBIDDEN")
        self.assertEqual(await self.messages(), [])

    async def test_newer_state_does_not_cancel(self) -> None:
        """The leave of a call stays scheduled behind the join that follows it."""
        delay_id = await self.schedule(HOUR, "state/m.call", "me", {})
        await self.alice.set_state(self.room_id, "m.call", {"joined": True}, "me")
        self.assertEqual([each["delay_id"] for each in await self.waiting()], [delay_id])
        self.assertEqual(await self.act("send", delay_id), 200)
        left = await self.alice.ok("GET", f"/rooms/{q(self.room_id)}/state/m.call/me")
        self.assertEqual(left, {})

    async def test_bounds(self) -> None:
        """The length of the delay, the number of events, the size of content; capabilities."""
        status, body = await self.request(HOUR + 1)
        self.assertEqual(
            (status, body["org.matrix.msc4140.errcode"]), (400, "M_MAX_DELAY_EXCEEDED")
        )
        self.assertEqual(body["org.matrix.msc4140.max_delay"], HOUR)
        for bad in (-1, "x", "1.5"):
            status, body = await self.request(bad)
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))
        status, body = await self.request(1, body={"body": "x" * 65_536})
        self.assertEqual((status, body["errcode"]), (413, "M_TOO_LARGE"))
        path = f"{UNSTABLE}/rooms/{q(self.room_id)}/delayed_event/m.call/nul"
        nul = {"delay": 1, "content": {}, "state_key": "\x00"}
        status, body = await self.alice.call("PUT", path, nul)
        self.assertEqual((status, body["errcode"]), (400, "M_BAD_JSON"))
        for number in range(5):
            await self.schedule(HOUR, end=f"n{number}")
        status, body = await self.request(HOUR, end="more")
        self.assertEqual((status, body["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        self.assertGreater(body["retry_after_ms"], HOUR - 60_000)
        await self.schedule(HOUR, end="n0")
        capabilities = (await self.alice.ok("GET", "/capabilities"))["capabilities"]
        self.assertEqual(
            capabilities["org.matrix.msc4140.delayed_events"],
            {"max_delay_ms": HOUR, "max_scheduled": 5},
        )

    async def test_restart_of_the_server(self) -> None:
        """What was scheduled outlives the process; another process sends it, once."""
        delay_id = await self.schedule(300)
        await self.server.homeserver.stop()
        others = [
            await make_server(self, database_url=self.url, presence={"enabled": False})
            for _ in range(2)
        ]
        self.alice.server = self.server = others[0]
        sent = await self.over(delay_id)
        self.assertEqual(await self.messages(), [sent["event_id"]])

    async def test_died_while_sending(self) -> None:
        """What was sent and not noted is not sent again."""
        delay_id = await self.schedule(HOUR)
        self.assertEqual(await self.act("send", delay_id), 200)
        first = await self.over(delay_id)
        await self.server.homeserver.db.write(
            lambda txn: txn.execute(
                "UPDATE delayed_events SET finalised_ts = NULL, event_id = NULL, claimed_until = 0"
            )
        )
        self.assertEqual(await self.act("send", delay_id), 200)
        self.assertEqual((await self.over(delay_id))["event_id"], first["event_id"])
        self.assertEqual(await self.messages(), [first["event_id"]])

    async def test_closed_account(self) -> None:
        """Nothing is sent for a deactivated user."""
        delay_id = await self.schedule(HOUR)
        accounts = self.server.homeserver.services[Accounts]
        await accounts.deactivate(UserID(self.alice.user_id))
        self.assertEqual(await self.act("send", delay_id), 404)


class DisabledTest(DatabaseTestCase):
    async def test_disabled(self) -> None:
        """A server that sends none says so."""
        server = await make_server(self, delayed_events={"per_user": 0})
        alice = await server.register("alice")
        room_id = await alice.create_room()
        query = {"org.matrix.msc4140.delay": 5}
        path = f"/rooms/{q(room_id)}/send/m.room.message/x"
        status, body = await alice.call("PUT", path, TEXT, query=query)
        self.assertEqual((status, body["errcode"]), (403, "M_FORBIDDEN"))
