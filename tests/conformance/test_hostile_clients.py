"""What users do to others and to the server through the client-server API.

Requests malformed by themselves are in `test_hostile`, guests in `test_guests`, the reuse of
sessions of the user-interactive authentication in `test_uia`, 50,000 devices in
`test_device_pruning`, HTML in mail in `test_mail` and `test_auth_pages`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from homeserver.web.endpoint import Auth, EndpointDeclaration
from homeserver.web.signature import read_signature
from tests.conformance.hostile import example
from tests.support.keys import ALGORITHM, Device
from tests.support.server import make_server

_PARAMETER = re.compile(r"\{(\w+)\}")
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
_OF_OTHERS = frozenset(
    {
        "/_matrix/client/v3/profile/{user_id}",
        "/_matrix/client/v3/profile/{user_id}/{key_name}",
        "/_matrix/client/v3/presence/{user_id}/status",
        "/_matrix/client/v3/users/{user_id}/report",
        "/_matrix/client/v3/rooms/{room_id}/report",
    }
)
"""Paths with a user ID that may be another's, when reading or reporting."""
_TRAVERSALS = (
    "../../../../etc/passwd",
    "..\\..\\boot.ini",
    "/etc/passwd",
    "file:///etc/passwd",
    "....//....//etc/passwd",
    "a/../../b",
    "%2e%2e%2f",
    "..",
    ".",
    "~root",
    "$(id)",
    "a\nb",
    "CON",
)
"""Names that mean something to a file system or a shell."""
_PATTERNS = ("(a+)+$", "((a*)*)*b", "a{1,99999}", "[", "(?:", "\\", "^(([a-z])+.)+[A-Z]([a-z])+$")
"""Regular expressions that take forever, or are none."""


class HostileClientTest(TestCase):
    timeout = 240

    async def prepare(self) -> None:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def test_what_is_another_users_is_closed(self) -> None:
        """No endpoint below a user's ID lets another user read or change anything."""
        await self.prepare()
        room_id = await self.bob.create_room()
        before = await self._all_of(room_id)
        tried = 0
        for declaration in self.server.homeserver.router.declarations:
            if (
                "{user_id}" not in declaration.path
                or declaration.auth not in (Auth.ACCESS_TOKEN, Auth.GUEST_OK)
                or declaration.stream_body
                or (declaration.path in _OF_OTHERS and declaration.method != "PUT")
                or "/report" in declaration.path
            ):
                continue
            status, answer = await self._ask(declaration, self.bob.user_id, room_id)
            where = f"{declaration.method} {declaration.path} -> {status} {answer}"
            self.assertIn(status, (403, 404), where)
            tried += 1
        self.assertGreater(tried, 12)
        self.assertEqual(await self._all_of(room_id), before)

    async def _ask(self, declaration: EndpointDeclaration, user_id: str, room_id: str) -> Any:
        values = {"user_id": user_id, "room_id": room_id, "key_name": "displayname"}
        path = _PARAMETER.sub(
            lambda found: quote(values.get(found[1], "x"), safe=""), declaration.path
        )
        body = example(read_signature(declaration).body)
        return await self.alice.call(declaration.method, path, body)

    async def _all_of(self, room_id: str) -> Any:
        """What of Bob's a client sees."""
        sync = await self.bob.sync()
        joined = sync["rooms"]["join"][room_id]
        profile = await self.bob.ok("GET", f"/profile/{self.bob.user_id}")
        own = (section.get("account_data", {}).get("events") for section in (sync, joined))
        return *own, [each["event_id"] for each in joined["timeline"]["events"]], profile

    async def test_a_flood_of_one_time_keys(self) -> None:
        """Many uploads at once do not get past the limit, and each key is given out once.

        Shows E2E-4.
        """
        await self.prepare()
        device = Device(self.alice)
        await device.upload()
        floods = [
            {"one_time_keys": device.one_time_keys(*(f"{n}_{i}" for i in range(300)))}
            for n in range(8)
        ]
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(self.alice.call("POST", "/keys/upload", each))
                for each in floods
            ]
        )
        for status, answer in answers:
            self.assertIn(status, (200, 400), answer)
            if status == 400:
                self.assertEqual(answer["errcode"], "M_INVALID_PARAM")
        counts = await device.upload()
        self.assertEqual(counts[ALGORITHM], 300 * sum(status == 200 for status, _ in answers))
        self.assertLessEqual(counts[ALGORITHM], 1000)
        status, answer = await self.alice.call(
            "POST",
            "/keys/upload",
            {"one_time_keys": device.one_time_keys(*(str(n) for n in range(1001)))},
        )
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        wanted = {"one_time_keys": {self.alice.user_id: {self.alice.device_id: ALGORITHM}}}
        claims = await gatherResults(
            [Deferred.fromCoroutine(self.bob.ok("POST", "/keys/claim", wanted)) for _ in range(60)]
        )
        names = [
            name
            for each in claims
            for name in each["one_time_keys"][self.alice.user_id][self.alice.device_id]
        ]
        self.assertEqual(len(set(names)), 60)

    async def test_ten_megabytes_to_a_device(self) -> None:
        """One message too large is refused as a whole, and nothing arrives."""
        await self.prepare()
        small, huge = {"ok": True}, {"data": "x" * 10_000_000}
        for messages in (
            {self.bob.user_id: {"*": huge}},
            {self.bob.user_id: {self.bob.device_id: small}, self.alice.user_id: {"*": huge}},
        ):
            path = "/sendToDevice/m.test/huge"
            status, answer = await self.alice.call("PUT", path, {"messages": messages})
            self.assertEqual((status, answer["errcode"]), (413, "M_TOO_LARGE"))
        self.assertNotIn("to_device", await self.bob.sync())
        raw = b'{"messages":{"@bob:hearth.test":{"*":' + b'{"a":' * 5000 + b"1" + b"}" * 5003
        status, answer = await self.alice.call("PUT", "/sendToDevice/m.test/deep", body=raw)
        self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))

    async def test_filters_of_100_kilobytes(self) -> None:
        """They are refused, or kept and used: never an error of the server. Shows FIL-1."""
        await self.prepare()
        room_id = await self.alice.create_room()
        many = [f"m.type.{number}" * 2 for number in range(6000)]
        for section in (
            {"types": many},
            {"types": ["*" * 100_000]},
            {"types": ["*a" * 200]},
            {"senders": [f"@{number}:hearth.test" for number in range(6000)]},
            {"rooms": [f"!{number}:hearth.test" for number in range(6000)]},
            {"limit": 10**15},
        ):
            for body in ({"room": {"timeline": section}}, {"presence": section}):
                path = f"/user/{self.alice.user_id}/filter"
                status, answer = await self.alice.call("POST", path, body)
                self.assertIn(status, (200, 400, 413), answer)
                if status == 200:
                    await self.alice.sync(filter=answer["filter_id"])
                else:
                    self.assertIn(answer["errcode"], ("M_INVALID_PARAM", "M_TOO_LARGE"))
        self.assertIn(room_id, (await self.alice.sync())["rooms"]["join"])

    async def test_search_terms_are_no_patterns(self) -> None:
        """Regular expressions are words like others. Shows MISC-3."""
        await self.prepare()
        room_id = await self.alice.create_room()
        await self.alice.send(room_id, "a" * 5000)
        for pattern in _PATTERNS:
            body = {"search_categories": {"room_events": {"search_term": pattern}}}
            found = await self.alice.ok("POST", "/search", body)
            self.assertEqual(found["search_categories"]["room_events"]["results"], [], pattern)
            people = await self.alice.ok("POST", "/user_directory/search", {"search_term": pattern})
            self.assertEqual(people["results"], [], pattern)
            rooms = {"filter": {"generic_search_term": pattern}}
            self.assertEqual((await self.alice.ok("POST", "/publicRooms", rooms))["chunk"], [])

    async def test_names_that_are_paths(self) -> None:
        """A name is a name, whatever it would mean to a file system."""
        await self.prepare()
        directory = Path(self.server.homeserver.config.data_directory)
        room_id = await self.alice.create_room()
        before = _files(directory.parent)
        base = f"/user/{self.alice.user_id}"
        for name in _TRAVERSALS:
            quoted = quote(name, safe="")
            content = {"name": name}
            for path in (
                f"{base}/account_data/{quoted}",
                f"{base}/rooms/{room_id}/account_data/{quoted}",
            ):
                status, answer = await self.alice.call("PUT", path, content)
                self.assertEqual(status, 200, (path, answer))
                self.assertEqual(await self.alice.ok("GET", path), content)
            await self.alice.set_state(room_id, "org.test", content, state_key=name)
            found = await self.alice.ok("GET", f"/rooms/{room_id}/state/org.test/{quoted}")
            self.assertEqual(found, content)
            await self.alice.ok("PUT", f"{base}/rooms/{room_id}/tags/{quoted}", {})
            body: Any = {"username": name, "password": "wonderland"}
            body["auth"] = {"type": "m.login.dummy"}
            status, answer = await self.server.client.post("/_matrix/client/v3/register", body)
            # The specification allows dots and slashes in user IDs, and names are lowered.
            if status != 200 or not _LOCALPART.fullmatch(name.lower()):
                self.assertEqual((status, answer.get("errcode")), (400, "M_INVALID_USERNAME"))
        tags = await self.alice.ok("GET", f"{base}/rooms/{room_id}/tags")
        self.assertEqual(set(tags["tags"]), set(_TRAVERSALS))
        self.assertEqual(_files(directory.parent), before)

    async def test_tokens_of_others(self) -> None:
        """What was issued to one user serves nobody else, and nothing else."""
        await self.prepare()
        refreshing = await self.server.register("carol", refresh_token=True)
        body = {"type": "m.login.password", "password": "wonderland", "refresh_token": True}
        body["identifier"] = {"type": "m.id.user", "user": refreshing.user_id}
        _, login = await self.server.client.post("/_matrix/client/v3/login", body)
        openid = await self.alice.ok("POST", f"/user/{self.alice.user_id}/openid/request_token", {})
        for token in (
            login["refresh_token"],
            openid["access_token"],
            self.bob.token[:-1],
            "x" * 9000,
        ):
            status, answer = await self.server.client.get(
                "/_matrix/client/v3/account/whoami", token=token
            )
            self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        for token in (self.alice.token, login["access_token"], openid["access_token"]):
            status, answer = await self.server.client.post(
                "/_matrix/client/v3/refresh", {"refresh_token": token}
            )
            self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))


def _files(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }
