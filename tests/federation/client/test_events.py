"""Tests of the reading endpoints' calls: what is asked, and which answers are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.trial.unittest import TestCase

from federation.client import events
from federation.client.errors import BadAnswer, RemoteError, RemoteHttpError
from federation.client.events import EventsClient
from homeserver.core import canonical
from homeserver.core.canonical import NotJSON

ROOM = "!room/with:a.example"
EVENT = "$event+x/y"


class Answering:
    """A federation client that gives one answer, and remembers the request."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    async def get_json(
        self,
        destination: str,
        path: str,
        *,
        query: Any = None,
        timeout_s: float = 0,
        max_bytes: int = 0,
        read: Any = None,
    ) -> Any:
        self.asked.append(("GET", destination, path, query, max_bytes))
        return self._answer()

    async def post_json(
        self, destination: str, path: str, body: Any, *, timeout_s: float = 0, max_bytes: int = 0
    ) -> Any:
        self.asked.append(("POST", destination, path, body, max_bytes))
        return self._answer()

    def _answer(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


RUBBISH: tuple[Any, ...] = (None, {}, "x", 1, True)
WRONG_IDS: tuple[Any, ...] = (1, None, "", "x", ["$a"], {}, "$" + "x" * 255, "$a\0b")

Call = Callable[[EventsClient], Awaitable[Any]]

CALLS: dict[str, tuple[Call, Any, Any]] = {
    # name: the call, a good answer, what it gives
    "get_event": (lambda c: c.get_event("b", EVENT), {"pdus": [{"a": 1}]}, {"a": 1}),
    "get_state_ids": (
        lambda c: c.get_state_ids("b", ROOM, EVENT),
        {"pdu_ids": ["$1", "$2", "$1"], "auth_chain_ids": ["$3"]},
        (("$1", "$2"), ("$3",)),
    ),
    "get_state": (
        lambda c: c.get_state("b", ROOM, EVENT),
        {"pdus": [{}], "auth_chain": [{}, {}]},
        ([{}], [{}, {}]),
    ),
    "get_event_auth": (lambda c: c.get_event_auth("b", ROOM, EVENT), {"auth_chain": [1]}, [1]),
    "backfill": (lambda c: c.backfill("b", ROOM, [EVENT], 5), {"pdus": [{}]}, [{}]),
    "get_missing_events": (
        lambda c: c.get_missing_events(
            "b", ROOM, earliest=["$e"], latest=["$l"], limit=3, min_depth=7
        ),
        {"events": [{}]},
        [{}],
    ),
    "timestamp_to_event": (
        lambda c: c.timestamp_to_event("b", ROOM, 12, backwards=True),
        {"event_id": "$1", "origin_server_ts": 11},
        ("$1", 11),
    ),
}

PATHS = {
    "get_event": "/_matrix/federation/v1/event/%24event%2Bx%2Fy",
    "get_state_ids": "/_matrix/federation/v1/state_ids/%21room%2Fwith%3Aa.example",
    "get_state": "/_matrix/federation/v1/state/%21room%2Fwith%3Aa.example",
    "get_event_auth": (
        "/_matrix/federation/v1/event_auth/%21room%2Fwith%3Aa.example/%24event%2Bx%2Fy"
    ),
    "backfill": "/_matrix/federation/v1/backfill/%21room%2Fwith%3Aa.example",
    "get_missing_events": "/_matrix/federation/v1/get_missing_events/%21room%2Fwith%3Aa.example",
    "timestamp_to_event": "/_matrix/federation/v1/timestamp_to_event/%21room%2Fwith%3Aa.example",
}
ARGUMENTS: dict[str, Any] = {
    "get_event": None,
    "get_state_ids": {"event_id": EVENT},
    "get_state": {"event_id": EVENT},
    "get_event_auth": None,
    "backfill": {"v": [EVENT], "limit": "5"},
    "get_missing_events": {
        "earliest_events": ["$e"],
        "latest_events": ["$l"],
        "limit": 3,
        "min_depth": 7,
    },
    "timestamp_to_event": {"ts": "12", "dir": "b"},
}


class Calls(TestCase):
    async def test_requests_and_answers(self) -> None:
        """Each call asks what the specification says, and gives the answer."""
        for name, (call, answer, expected) in CALLS.items():
            client = Answering(answer)
            self.assertEqual(await call(EventsClient(client)), expected, name)
            method = "POST" if name == "get_missing_events" else "GET"
            asked = client.asked[0]
            self.assertEqual(asked[:4], (method, "b", PATHS[name], ARGUMENTS[name]), name)
            self.assertGreater(asked[4], 0, name)

    async def test_rubbish(self) -> None:
        """An answer of another form is a fault of the other server, never of this one."""
        for name, (call, answer, _) in CALLS.items():
            bad: list[Any] = [{}]
            for key in answer:
                bad += [{**answer, key: value} for value in RUBBISH]
            for wrong in bad:
                if name == "timestamp_to_event" and wrong.get("origin_server_ts") == 1:
                    continue
                with self.assertRaises(BadAnswer, msg=f"{name} {wrong}"):
                    await call(EventsClient(Answering(wrong)))

    async def test_wrong_ids(self) -> None:
        """Event IDs are short strings that begin with a dollar sign."""
        for wrong in WRONG_IDS:
            client = Answering({"pdu_ids": ["$1", wrong], "auth_chain_ids": []})
            with self.assertRaises(BadAnswer):
                await EventsClient(client).get_state_ids("b", ROOM, EVENT)
            client = Answering({"event_id": wrong, "origin_server_ts": 1})
            with self.assertRaises(BadAnswer):
                await EventsClient(client).timestamp_to_event("b", ROOM, 1, backwards=False)

    async def test_too_many(self) -> None:
        """An answer with more entries than anybody asked for is refused."""
        many: list[Any] = [{}] * (events.MAX_PDUS + 1)
        for name, key in (("backfill", "pdus"), ("get_missing_events", "events")):
            with self.assertRaises(BadAnswer):
                await CALLS[name][0](EventsClient(Answering({key: many})))
        nothing: list[Any] = []
        pdus: list[Any]
        for pdus in (nothing, [{}, {}]):
            with self.assertRaises(BadAnswer):
                await EventsClient(Answering({"pdus": pdus})).get_event("b", EVENT)

    async def test_requests_are_told(self) -> None:
        told: list[tuple[str, bool]] = []

        def note(kind: str, well: bool) -> None:
            told.append((kind, well))

        for name, (call, answer, _) in CALLS.items():
            await call(EventsClient(Answering(answer), note))
            with self.assertRaises(BadAnswer):
                await call(EventsClient(Answering({}), note))
            self.assertEqual(told, [(name, True), (name, False)])
            told.clear()

    async def test_names_are_capped(self) -> None:
        """No request names more events than fit."""
        client = Answering({"pdus": [], "events": []})
        names = [f"${number}" for number in range(500)]
        await EventsClient(client).backfill("b", ROOM, names, 10)
        await EventsClient(client).get_missing_events(
            "b", ROOM, earliest=names, latest=names, limit=10, min_depth=0
        )
        self.assertEqual(len(client.asked[0][3]["v"]), events.MAX_NAMES)
        self.assertEqual(len(client.asked[1][3]["earliest_events"]), events.MAX_NAMES)

    async def test_faults_go_through(self) -> None:
        """What the client says about the other server is not changed."""
        for call, _, _ in CALLS.values():
            with self.assertRaises(RemoteError):
                await call(EventsClient(Answering(RemoteHttpError("b", 403))))

    async def test_states_are_read_as_far_as_needed(self) -> None:
        """What is wrong with an answer is found as if all of it were parsed at once."""

        class Reading(Answering):
            async def get_json(self, *args: Any, read: Any = None, **options: Any) -> Any:
                return read(self.answer)

        async def read(text: bytes) -> Any:
            try:
                pdus, chain = await EventsClient(Reading(text)).get_state("b", ROOM, EVENT)
            except (NotJSON, BadAnswer, AttributeError) as error:
                return type(error)
            return [[canonical.parse(bytes(raw)) for raw in raws] for raws in (pdus, chain)]

        good = b'{"pdus":[{"a":1.5},2,"\\u00e4"],"other":{"x":null},"auth_chain":[{},{"b":[]}]}'
        self.assertEqual(await read(good), [[{"a": 1.5}, 2, "ä"], [{}, {"b": []}]])
        self.assertEqual(await read(b'{"pdus":[1],"pdus":[],"auth_chain":[]}'), [[], []])
        for bad in (b"", b"{", good + b"x", good[:-1], good.replace(b"1.5", b"1.")):
            self.assertEqual(await read(bad), NotJSON)
        for bad in (b"{}", b'{"pdus":[]}', b'{"pdus":{},"auth_chain":[]}'):
            self.assertEqual(await read(bad), BadAnswer)
