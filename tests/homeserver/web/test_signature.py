from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.ids import RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import (
    EMPTY,
    Auth,
    Empty,
    RawJson,
    Request,
    Requester,
    Response,
    declaration_of,
    endpoint,
)
from homeserver.web.signature import Caller, alternatives, describe, read_signature
from tests.homeserver.web import sample
from tests.homeserver.web.sample import Body, Echo, Notes, Paging


def declare(function: Any, path: str = "/x", method: str = "POST", **options: Any) -> Any:
    options.setdefault("auth", Auth.NONE)
    return declaration_of(endpoint(method, path, **options)(function))


class DescribeTests(SynchronousTestCase):
    def test_types(self) -> None:
        described = describe(declaration_of(sample.post_echo))
        self.assertEqual((described.body, described.response), (Body, Echo))
        self.assertEqual((described.name, described.method), ("post_echo", "POST"))
        self.assertEqual(described.summary, "Answer with what was sent.")
        described = describe(declaration_of(sample.put_state))
        self.assertEqual(
            described.path_parameters, {"room_id": RoomID, "event_type": str, "state_key": str}
        )
        self.assertIs(describe(declaration_of(sample.get_page)).query, Paging)

    def test_json(self) -> None:
        described = describe(declaration_of(sample.get_page)).as_json()
        properties = described["query"]["$defs"]["Paging"]["properties"]
        self.assertEqual(set(properties), {"from", "limit", "via", "full", "dir"})
        self.assertEqual(properties["limit"]["minimum"], 0)
        described = describe(declaration_of(sample.get_profile)).as_json()
        self.assertEqual(
            described["path_parameters"]["user_id"], {"type": "string", "format": "UserID"}
        )
        self.assertNotIn("body", described)

    def test_all_samples(self) -> None:
        for function in sample.ENDPOINTS:
            msgspec.json.encode(describe(declaration_of(function)).as_json())

    def test_response_types(self) -> None:
        async def plain() -> Echo: ...  # type: ignore[empty-body]
        async def either() -> Echo | Response: ...  # type: ignore[empty-body]
        async def raw() -> RawJson: ...  # type: ignore[empty-body]
        async def two() -> Echo | Empty: ...  # type: ignore[empty-body]

        self.assertEqual(alternatives(describe(declare(two)).response), (Echo, Empty))
        self.assertEqual(len(describe(declare(two)).as_json()["response"]["anyOf"]), 2)
        self.assertIs(describe(declare(plain)).response, Echo)
        self.assertIs(describe(declare(either)).response, Echo)
        self.assertIsNone(describe(declare(raw)).response)
        self.assertIs(describe(declare(raw, returns=Echo)).response, Echo)


class BadSignatureTests(SynchronousTestCase):
    """Mistakes in a declaration are found at start-up."""

    def bad(self, declaration: Any, text: str) -> None:
        with self.assertRaisesRegex(TypeError, text):
            read_signature(declaration)

    def test_path(self) -> None:
        async def takes_none() -> Empty: ...  # type: ignore[empty-body]
        async def takes(name: str) -> Empty: ...  # type: ignore[empty-body]

        self.bad(declare(takes_none, "/{name}"), "does not take name")
        self.bad(declare(takes, "/{name}", also=("/",)), "no default")
        self.bad(declare(takes, "/{name}", also=("/{other}",)), "main path")

    def test_types(self) -> None:
        async def untyped(thing) -> Empty: ...  # type: ignore[no-untyped-def, empty-body]
        async def silent(thing: Notes): ...  # type: ignore[no-untyped-def]
        async def many(**thing: Any) -> Empty: ...  # type: ignore[empty-body]

        self.bad(declare(untyped), "thing has no type")
        self.bad(declare(silent), "return type")
        self.bad(declare(many), "variable")

    def test_requester(self) -> None:
        async def asks(requester: Requester) -> Empty: ...  # type: ignore[empty-body]
        async def may_ask(requester: Requester | None) -> Empty: ...  # type: ignore[empty-body]
        async def wrong(requester: UserID) -> Empty: ...  # type: ignore[empty-body]

        self.bad(declare(asks), "no requester")
        self.bad(declare(asks, auth=Auth.OPTIONAL_ACCESS_TOKEN), "optional")
        self.bad(declare(may_ask, auth=Auth.ACCESS_TOKEN), "optional")
        self.bad(declare(wrong, auth=Auth.ACCESS_TOKEN), "type Requester")
        read_signature(declare(asks, auth=Auth.ADMIN))
        read_signature(declare(may_ask, auth=Auth.OPTIONAL_ACCESS_TOKEN))

    def test_others(self) -> None:
        async def origin(origin: ServerName) -> Empty: ...  # type: ignore[empty-body]
        async def request(request: str) -> Empty: ...  # type: ignore[empty-body]
        async def body(body: JsonObject) -> Empty: ...  # type: ignore[empty-body]
        async def nothing() -> Empty: ...  # type: ignore[empty-body]

        self.bad(declare(origin), "origin")
        self.bad(declare(request), "request")
        self.bad(declare(body, method="GET"), "no body")
        self.bad(declare(nothing, stream_body=True), "from the request")
        read_signature(declare(origin, auth=Auth.FEDERATION))

    def test_missing_service(self) -> None:
        with self.assertRaisesRegex(LookupError, "Notes"):
            Caller(declaration_of(sample.post_echo), {})


class CallerTests(SynchronousTestCase):
    def test_arguments(self) -> None:
        async def call(
            room_id: RoomID, notes: Notes, request: Request, key: str = "default"
        ) -> Empty:
            return EMPTY

        notes = Notes()
        declaration = declare(call, "/{room_id}/{key}", also=("/{room_id}",))
        caller = Caller(declaration, {Notes: notes})
        request = Request("POST", "/!a:b")
        arguments = caller.arguments(request, {"room_id": "!a:b"}, None, None)
        self.assertEqual(arguments, {"room_id": "!a:b", "notes": notes, "request": request})
        self.assertIsInstance(arguments["room_id"], RoomID)
