"""Signatures of requests."""

from __future__ import annotations

import json as stdlib_json
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from twisted.internet.task import Clock

from federation.client.keyring import Keyring
from federation.client.signer import RequestSigner, encode_content
from federation.server.authenticate import SignatureAuthenticator
from homeserver.core import canonical
from homeserver.core.errors import limit_exceeded, unknown_token
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, encode_base64
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import Auth, endpoint
from homeserver.web.request import Request, Requester
from homeserver.web.router import Router
from tests.federation.key_servers import DAY, FakeKeyClient, make_key
from tests.support.client import Answer, Client
from tests.support.databases import DatabaseTestCase, on_each_database

NAME = "hearth.test"
KEY = make_key("1")
NEXT = make_key("2", 2)
NOW = 100 * DAY
PATH = "/_matrix/federation/v1/echo/a%20b"


class EchoQuery(msgspec.Struct):
    q: str = ""


@endpoint("GET", "/_matrix/federation/v1/echo/{name}", auth=Auth.FEDERATION)
async def get_echo(origin: ServerName, name: str, query: EchoQuery) -> JsonObject:
    return {"origin": origin, "name": name, "q": query.q}


@endpoint("PUT", "/_matrix/federation/v1/echo/{name}", auth=Auth.FEDERATION, lenient_json=True)
async def put_echo(origin: ServerName, name: str, body: JsonObject) -> JsonObject:
    return {"origin": origin, "body": body}


class NoUsers:
    async def authenticate(self, token: str, request: Request) -> Requester:
        raise unknown_token()


def authorization(
    method: str,
    uri: str,
    content: Any = None,
    *,
    origin: str = "a.example",
    destination: str | None = NAME,
    key: SigningKey = KEY,
    form: str = 'X-Matrix origin="{origin}",{to}key="{key}",sig="{sig}"',
    show: str | None = None,
) -> str:
    """The header of a request; `show` is the origin that it names instead of the true one."""
    signed: JsonObject = {"method": method, "uri": uri, "origin": origin}
    if destination is not None:
        signed["destination"] = destination
    if content is not None:
        signed["content"] = content
    return form.format(
        origin=show or origin,
        to="" if destination is None else f'destination="{destination}",',
        key=key.key_id,
        sig=encode_base64(key.sign(canonical.encode_lenient(signed))),
    )


@on_each_database
class AuthenticateTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.tired = False
        self.clock = Clock()
        self.clock.advance(NOW / 1000)
        self.client = FakeKeyClient(self.clock)
        self.a = self.client.add("a.example", KEY)
        self.client.add("b.example", NEXT)
        db = await self.open()
        keyring = Keyring(db, self.client, self.clock, NAME, [make_key("own", 9)])
        router = Router(
            [get_echo, put_echo],
            {},
            NoUsers(),
            federation_authenticator=SignatureAuthenticator(
                keyring, NAME, before_asking=self.before_asking
            ),
            clock=self.clock,
            log=structlog.get_logger(),
        )
        self.http = Client(router)

    def before_asking(self, address: str) -> None:
        if self.tired:
            raise limit_exceeded(1000)

    async def get(self, header: str | None, uri: str = PATH) -> Answer:
        headers: Mapping[str, str] = {} if header is None else {"Authorization": header}
        return await self.http.get(uri, headers=headers)

    async def accepted(self, header: str, uri: str = PATH) -> None:
        status, body = await self.get(header, uri)
        self.assertEqual((status, body.get("origin")), (200, "a.example"), body)

    async def refused(self, header: str | None, uri: str = PATH) -> None:
        status, body = await self.get(header, uri)
        self.assertEqual((status, body["errcode"]), (401, "M_UNAUTHORIZED"), body)

    async def test_a_signed_request(self) -> None:
        """Shows KEY-9."""
        await self.accepted(authorization("GET", PATH))

    async def test_names_that_are_claimed_to_make_this_server_ask_around(self) -> None:
        await self.accepted(authorization("GET", PATH))
        asked = len(self.client.asked)
        self.tired = True
        for origin in ("b.example", "nobody.example"):
            answer = await self.get(authorization("GET", PATH, origin=origin))
            self.assertEqual((answer.status, answer.body["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        self.assertEqual(len(self.client.asked), asked)
        await self.accepted(authorization("GET", PATH))

    async def test_what_this_server_sends_it_understands(self) -> None:
        """Shows KEY-6."""
        body = {"x": [1, "ü"], "f": 1.5}
        content = encode_content(body)
        header = RequestSigner("a.example", KEY).authorization("PUT", f"{PATH}?a=1", NAME, content)
        status, answer = await self.http.put(
            f"{PATH}?a=1", body=content, headers={"Authorization": header}
        )
        self.assertEqual((status, answer.get("body")), (200, body))

    async def test_forms_of_the_header(self) -> None:
        """Shows KEY-7."""
        for form in (
            'x-matrix  Sig="{sig}" , KEY={key} ,{to} Origin={origin}, more="\\"x"',
            'X-Matrix\torigin="\\a.example",{to}key="{key}",sig="{sig}",sig="{sig}"',
        ):
            await self.accepted(authorization("GET", PATH, form=form))

    async def test_headers_that_are_malformed_or_missing(self) -> None:
        """Shows KEY-7."""
        good = authorization("GET", PATH)
        for header in (
            None,
            "",
            "X-Matrix",
            good.replace("X-Matrix", "Bearer"),
            good[:-1],
            good.replace("sig", "gis"),
            good.replace("a.example", "not a name"),
            good.replace(KEY.key_id, "\u0000"),
        ):
            await self.refused(header)

    async def test_destination(self) -> None:
        """Shows KEY-8."""
        await self.accepted(authorization("GET", PATH, destination=None))
        await self.refused(authorization("GET", PATH, destination="b.example"))
        good = authorization("GET", PATH, destination="b.example")
        await self.refused(good.replace("b.example", NAME))
        # Signed for another server, and the name of that left out of the header.
        await self.refused(good.replace('destination="b.example",', ""))

    async def test_the_origin_must_own_the_key(self) -> None:
        """Shows KEY-9."""
        await self.refused(authorization("GET", PATH, key=NEXT))
        await self.refused(authorization("GET", PATH, origin="b.example"))
        await self.refused(
            authorization("GET", PATH, key=NEXT, origin="b.example", show="a.example")
        )
        await self.refused(authorization("GET", PATH, key=make_key("1", 8)))
        await self.refused(authorization("GET", PATH, origin="dead.example"))

    async def test_a_signature_of_something_else(self) -> None:
        """Shows KEY-9."""
        await self.refused(authorization("POST", PATH))
        await self.refused(authorization("GET", PATH + "x"))
        await self.refused(authorization("GET", PATH.replace("%20", " ")))
        await self.refused(authorization("GET", PATH, content={}))

    async def test_the_query_is_signed(self) -> None:
        """Shows KEY-9."""
        uri = f"{PATH}?q=a%2Fb&x=1"
        await self.accepted(authorization("GET", uri), uri)
        await self.refused(authorization("GET", PATH), uri)
        await self.refused(authorization("GET", uri), f"{PATH}?x=1&q=a%2Fb")

    async def put(self, header: str, body: bytes) -> Answer:
        return await self.http.put(PATH, body=body, headers={"Authorization": header})

    async def test_the_body_is_signed(self) -> None:
        """Shows KEY-9."""
        body = {"b": 1, "a": ["ä", None]}
        header = authorization("PUT", PATH, body)
        status, answer = await self.put(header, stdlib_json.dumps(body, indent=3).encode())
        self.assertEqual((status, answer), (200, {"origin": "a.example", "body": body}))
        for other in ({"b": 2, "a": ["ä", None]}, {}):
            status, answer = await self.put(header, stdlib_json.dumps(other).encode())
            self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        status, answer = await self.put(header, b"")
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        status, answer = await self.put(header, b'{"b":1')
        self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"))

    async def test_bodies_of_old_room_versions(self) -> None:
        """Shows KEY-9."""
        body = {"pdus": [{"x": 1.5, "y": 2**60}]}
        header = authorization("PUT", PATH, body)
        status, answer = await self.put(header, stdlib_json.dumps(body).encode())
        self.assertEqual((status, answer), (200, {"origin": "a.example", "body": body}))
        status, answer = await self.put(header, b'{"pdus":[{"x":1.25,"y":1152921504606846976}]}')
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))

    async def test_a_key_that_is_no_longer_valid(self) -> None:
        """Shows KEY-14."""
        self.a.keys, self.a.old = [NEXT], {KEY: NOW - 1}
        await self.refused(authorization("GET", PATH))
        await self.accepted(authorization("GET", PATH, key=NEXT))
        self.a.is_up = False
        self.clock.advance(DAY / 1000 + 1)
        await self.refused(authorization("GET", PATH, key=NEXT))

    async def test_one_good_signature_of_several_will_do(self) -> None:
        good, bad = authorization("GET", PATH), authorization("GET", PATH, key=make_key("3", 3))
        await self.accepted(f"{good}, {bad}")
        await self.accepted(f"{bad}, {good}")
        await self.refused(f"{bad}, {bad}")
        other = authorization("GET", PATH, key=NEXT, origin="b.example")
        await self.refused(f"{good}, {other}")
