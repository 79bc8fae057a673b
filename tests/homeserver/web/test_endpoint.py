from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase, TestCase

from homeserver.core.types import JsonObject
from homeserver.web.endpoint import (
    Auth,
    EndpointDeclaration,
    declaration_of,
    endpoint,
    template_parameters,
)


@endpoint(
    "GET",
    "/_matrix/client/v3/thing/{name}",
    auth=Auth.GUEST_OK,
    rate="read",
    also=("/_matrix/client/unstable/thing/{name}",),
)
async def get_thing(name: str) -> JsonObject:
    return {"name": name}


class DeclarationTests(TestCase):
    async def test_function_stays_callable(self) -> None:
        self.assertEqual(await get_thing("x"), {"name": "x"})

    async def test_declaration(self) -> None:
        declaration = declaration_of(get_thing)
        self.assertIsInstance(declaration, EndpointDeclaration)
        self.assertEqual(declaration.name, "get_thing")
        self.assertEqual((declaration.auth, declaration.rate), (Auth.GUEST_OK, "read"))
        with self.assertRaises(TypeError):
            declaration_of(len)


class PathTests(SynchronousTestCase):
    def test_old_versions(self) -> None:
        self.assertEqual(
            declaration_of(get_thing).paths,
            (
                "/_matrix/client/v3/thing/{name}",
                "/_matrix/client/r0/thing/{name}",
                "/_matrix/client/api/v1/thing/{name}",
                "/_matrix/client/unstable/thing/{name}",
            ),
        )

    def test_old_versions_of_media(self) -> None:
        @endpoint("GET", "/_matrix/media/v3/x", auth=Auth.NONE)
        async def get_x() -> JsonObject:
            return {}

        self.assertEqual(
            set(declaration_of(get_x).paths),
            {"/_matrix/media/v3/x", "/_matrix/media/r0/x", "/_matrix/media/v1/x"},
        )

    def test_new_paths_stay_new(self) -> None:
        @endpoint("GET", "/_matrix/client/v1/x", auth=Auth.NONE)
        async def get_x() -> JsonObject:
            return {}

        self.assertEqual(declaration_of(get_x).paths, ("/_matrix/client/v1/x",))

    def test_parameters(self) -> None:
        self.assertEqual(template_parameters("/a/{b}/c/{d}"), ("b", "d"))
        self.assertEqual(template_parameters("/a/{rest*}"), ("rest",))
        self.assertEqual(template_parameters("/a/"), ())

    def test_bad_templates(self) -> None:
        for template in (
            "",
            "a",
            "/{a}/{a}",
            "/{A}",
            "/x{a}",
            "/{a",
            "/a?b",
            "/a%20b",
            "/{a*}/b",
            "/{}",
        ):
            with self.assertRaises(ValueError, msg=template):
                endpoint("GET", template, auth=Auth.NONE)
            with self.assertRaises(ValueError, msg=template):
                endpoint("GET", "/ok", auth=Auth.NONE, also=(template,))

    def test_bad_method(self) -> None:
        for method in ("get", "OPTIONS", "FETCH"):
            with self.assertRaises(ValueError):
                endpoint(method, "/a", auth=Auth.NONE)

    def test_streamed_body_is_not_optional(self) -> None:
        with self.assertRaises(ValueError):
            endpoint("POST", "/a", auth=Auth.NONE, stream_body=True, optional_body=True)
