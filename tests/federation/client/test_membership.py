"""The calls by which users of this server get into rooms elsewhere, and out of them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from federation.client.errors import BadAnswer, RemoteHttpError
from federation.client.membership import MAX_JOIN_ANSWER, MembershipCalls
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject

ROOM, USER, EVENT = "!r/1:b.example", "@a:a.example", "$e"
UNRECOGNIZED = RemoteHttpError("b.example", 404, {"errcode": "M_UNRECOGNIZED"})
OLD_SERVER = RemoteHttpError("b.example", 404, {})
JOIN: JsonObject = {"state": [], "auth_chain": [], "members_omitted": False}


class FakeClient:
    """Gives answers in turn, exceptions are raised; remembers what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.options: list[Any] = []

    async def request(self, method: str, destination: str, path: str, **options: Any) -> Any:
        assert destination == "b.example"
        self.asked.append((method, path))
        self.options.append(options)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get_json(self, destination: str, path: str, **options: Any) -> Any:
        return await self.request("GET", destination, path, **options)

    async def put_json(self, destination: str, path: str, body: Any, **options: Any) -> Any:
        return await self.request("PUT", destination, path, body=body, **options)


def calls(*answers: Any) -> tuple[MembershipCalls, FakeClient]:
    client: Any = FakeClient(*answers)
    return MembershipCalls(client), client


class MakeTest(TestCase):
    async def test_templates(self) -> None:
        found, client = calls({"event": {"a": 1}, "room_version": "10"}, {"event": {}})
        template = await found.make_join("b.example", ROOM, USER, ["1", "10"])
        self.assertEqual((template.event, template.room_version), ({"a": 1}, "10"))
        template = await found.make_leave("b.example", ROOM, USER)
        self.assertEqual(template.room_version, "1")
        path = "/_matrix/federation/v1/make_{}/%21r%2F1%3Ab.example/%40a%3Aa.example"
        self.assertEqual(
            client.asked, [("GET", path.format("join")), ("GET", path.format("leave"))]
        )
        self.assertEqual([o["query"] for o in client.options], [{"ver": ["1", "10"]}, None])

    async def test_rubbish(self) -> None:
        answers: list[Any] = [{}, {"event": []}, {"event": {}, "room_version": 10}]
        for answer in answers:
            found, _ = calls(answer)
            with self.assertRaises(BadAnswer):
                await found.make_knock("b.example", ROOM, USER, ["10"])


class SendTest(TestCase):
    async def test_join(self) -> None:
        """Shows FJ-6."""
        servers = ["b.example", "b.example", "not a name", 5, "c.example:1"]
        partial = {**JOIN, "members_omitted": True, "servers_in_room": servers, "event": {"a": 1}}
        found, client = calls(JOIN, partial)
        answer = await found.send_join("b.example", ROOM, EVENT, {})
        self.assertEqual((answer.event, answer.servers), (None, None))
        self.assertIsNone(client.options[0]["query"])
        answer = await found.send_join("b.example", ROOM, EVENT, {}, omit_members=True)
        self.assertEqual(answer.servers, ("b.example", "c.example:1"))
        self.assertEqual(answer.event, {"a": 1})
        self.assertEqual(client.options[1]["query"], {"omit_members": "true"})
        self.assertEqual(client.options[1]["max_bytes"], MAX_JOIN_ANSWER)

    async def test_join_with_servers_that_are_old(self) -> None:
        for refusal in (UNRECOGNIZED, OLD_SERVER):
            found, client = calls(refusal, [200, JOIN])
            answer = await found.send_join("b.example", ROOM, EVENT, {})
            self.assertEqual(answer.state, [])
            self.assertIn("/v1/send_join/", client.asked[1][1])

    async def test_refusals_are_no_reason_for_another_version(self) -> None:
        for status, errcode in ((404, "M_NOT_FOUND"), (403, "M_FORBIDDEN"), (500, "M_UNKNOWN")):
            refusal = RemoteHttpError("b.example", status, {"errcode": errcode})
            for send in ("send_join", "send_leave"):
                found, client = calls(refusal)
                with self.assertRaises(RemoteHttpError):
                    await getattr(found, send)("b.example", ROOM, EVENT, {})
                self.assertEqual(len(client.asked), 1)

    async def test_rubbish(self) -> None:
        changes: list[JsonObject] = [
            {"state": None},
            {"state": {}},
            {"auth_chain": 5},
            {"event": "x"},
            {"members_omitted": 1},
            {"members_omitted": True},
            {"members_omitted": True, "servers_in_room": {}},
        ]
        for change in changes:
            found, _ = calls({**JOIN, **change})
            with self.assertRaises(BadAnswer):
                await found.send_join("b.example", ROOM, EVENT, {}, omit_members=True)
        olds: list[Any] = [[200], [200, []], {}, None, 7]
        for old in olds:
            found, _ = calls(UNRECOGNIZED, old)
            with self.assertRaises(BadAnswer):
                await found.send_join("b.example", ROOM, EVENT, {})

    async def test_leave_and_knock(self) -> None:
        found, client = calls({}, UNRECOGNIZED, [200, {}], {"knock_room_state": [1]}, {})
        await found.send_leave("b.example", ROOM, EVENT, {})
        await found.send_leave("b.example", ROOM, EVENT, {})
        self.assertIn("/v1/send_leave/", client.asked[2][1])
        self.assertEqual(await found.send_knock("b.example", ROOM, EVENT, {}), [1])
        self.assertEqual(await found.send_knock("b.example", ROOM, EVENT, {}), [])
        found, _ = calls({"knock_room_state": "x"})
        with self.assertRaises(BadAnswer):
            await found.send_knock("b.example", ROOM, EVENT, {})

    async def test_third_party_invite(self) -> None:
        found, client = calls({})
        await found.exchange_third_party_invite("b.example", ROOM, {"a": 1})
        path = "/_matrix/federation/v1/exchange_third_party_invite/%21r%2F1%3Ab.example"
        self.assertEqual(client.asked, [("PUT", path)])


class InviteTest(TestCase):
    async def test_versions_of_the_call(self) -> None:
        """Shows FJ-11, FJ-14."""
        for name, version in ROOM_VERSIONS.items():
            found, client = calls({"event": {"b": 2}})
            event = await found.invite("b.example", ROOM, EVENT, {"a": 1}, version, [{"c": 3}])
            self.assertEqual(event, {"b": 2})
            self.assertEqual(
                client.options[0]["body"],
                {"event": {"a": 1}, "invite_room_state": [{"c": 3}], "room_version": name},
            )
            for refusal in (UNRECOGNIZED, OLD_SERVER):
                found, client = calls(refusal, [200, {"event": {"b": 2}}])
                asking = found.invite("b.example", ROOM, EVENT, {"a": 1}, version, [])
                if name in ("1", "2"):
                    self.assertEqual(await asking, {"b": 2})
                    self.assertIn("/v1/invite/", client.asked[1][1])
                    body = {"a": 1, "unsigned": {"invite_room_state": []}}
                    self.assertEqual(client.options[1]["body"], body)
                    continue
                with self.assertRaises(RemoteHttpError):
                    await asking
                self.assertEqual(len(client.asked), 1)

    async def test_refusals_are_no_reason_for_version_1(self) -> None:
        """Shows FJ-14."""
        for status, errcode in ((403, "M_FORBIDDEN"), (400, "M_INCOMPATIBLE_ROOM_VERSION")):
            found, client = calls(RemoteHttpError("b.example", status, {"errcode": errcode}))
            with self.assertRaises(RemoteHttpError):
                await found.invite("b.example", ROOM, EVENT, {}, ROOM_VERSIONS["1"], [])
            self.assertEqual(len(client.asked), 1)
