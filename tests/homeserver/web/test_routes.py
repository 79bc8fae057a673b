from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError
from homeserver.web.routes import RouteTable


def table(*templates: str) -> RouteTable[str]:
    made: RouteTable[str] = RouteTable()
    for template in templates:
        method, path = template.split(" ")
        made.add(method, path, template)
    return made


class RouteTests(SynchronousTestCase):
    def found(self, routes: RouteTable[str], method: str, path: str) -> str | None:
        return routes.find(method, path).target

    def test_literal_first(self) -> None:
        routes = table("GET /a/{x}", "GET /a/b", "PUT /a/{x}/c", "PUT /a/b/d")
        self.assertEqual(self.found(routes, "GET", "/a/b"), "GET /a/b")
        self.assertEqual(self.found(routes, "GET", "/a/z"), "GET /a/{x}")
        self.assertEqual(self.found(routes, "PUT", "/a/b/c"), "PUT /a/{x}/c")
        self.assertEqual(self.found(routes, "PUT", "/a/b/d"), "PUT /a/b/d")

    def test_method_decides(self) -> None:
        routes = table("POST /a/b", "GET /a/{x}")
        self.assertEqual(self.found(routes, "GET", "/a/b"), "GET /a/{x}")
        self.assertEqual(routes.find("PUT", "/a/b").allowed, {"GET", "POST"})
        self.assertEqual(routes.find("PUT", "/a/z").allowed, {"GET"})
        self.assertEqual(routes.find("GET", "/a").allowed, frozenset())

    def test_names_differ(self) -> None:
        routes = table("GET /a/{x}/b", "GET /a/{y}/c")
        self.assertEqual(routes.find("GET", "/a/1/b").decode(), {"x": "1"})
        self.assertEqual(routes.find("GET", "/a/1/c").decode(), {"y": "1"})

    def test_slashes_count(self) -> None:
        routes = table("GET /a/{x}", "GET /b/")
        for path in ("/a", "/a/", "/a//", "/a/x/", "//a/x", "a/x", "", "/b", "/a//x", "/a/./x"):
            self.assertIsNone(self.found(routes, "GET", path), path)
        self.assertEqual(self.found(routes, "GET", "/b/"), "GET /b/")

    def test_rest(self) -> None:
        routes = table("GET /files/{path*}", "GET /files/index")
        self.assertEqual(routes.find("GET", "/files/a/b%20c").decode(), {"path": "a/b c"})
        self.assertEqual(routes.find("GET", "/files/").decode(), {"path": ""})
        self.assertEqual(self.found(routes, "GET", "/files/index"), "GET /files/index")
        self.assertIsNone(self.found(routes, "GET", "/files"))

    def test_twice(self) -> None:
        with self.assertRaises(ValueError):
            table("GET /a/{x}", "GET /a/{y}")

    def test_encoded_literal(self) -> None:
        routes = table("GET /rooms/{x}")
        self.assertEqual(routes.find("GET", "/r%6foms/%2561").decode(), {"x": "%61"})
        self.assertIsNone(self.found(routes, "GET", "/rooms%2Fx"))

    def test_bad_encoding(self) -> None:
        routes = table("GET /a/{x}")
        for segment in ("%", "%1", "%zz", "%ff", "%c3%28", "%ed%a0%80", "a%00b", "%f5%80%80%80"):
            with self.assertRaises(MatrixError, msg=segment) as caught:
                routes.find("GET", f"/a/{segment}").decode()
            self.assertEqual(caught.exception.errcode, "M_INVALID_PARAM")

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
    def test_any_text_survives(self, text: str) -> None:
        """Shows HTTP-11."""
        encoded = "".join(f"%{byte:02X}" for byte in text.encode())
        match = table("GET /a/{x}/b").find("GET", f"/a/{encoded}/b")
        self.assertEqual(match.decode(), {"x": text})

    _segments = st.sampled_from(["a", "b", "%61", "%62", "{x}", "", "c", "%", "a%2Fb"])

    @given(
        st.sets(
            st.tuples(
                st.sampled_from(["GET", "PUT"]),
                st.lists(st.sampled_from(["a", "b", "{x}", ""]), min_size=1, max_size=4),
                st.booleans(),
            ).map(lambda each: (each[0], _template(each[1], each[2]))),
            max_size=12,
        ),
        st.lists(_segments, max_size=5),
        st.sampled_from(["GET", "PUT", "POST"]),
    )
    def test_the_only_way_is_the_first(
        self, templates: set[tuple[str, str]], segments: list[str], method: str
    ) -> None:
        """A path that can mean one thing only is found quickly, and as it is by trying all."""
        routes = table(*(f"{each} {template}" for each, template in templates))
        path = "".join(f"/{segment}" for segment in segments)
        quick, thorough = routes._only_way(method, path), routes._first_way(method, path)
        if quick is not None:
            self.assertIsNotNone(quick.target)
            for name in ("target", "_names", "_values", "allowed"):
                self.assertEqual(getattr(quick, name), getattr(thorough, name), path)
        found = routes.find(method, path)
        self.assertEqual((found.target, found.allowed), (thorough.target, thorough.allowed))


def _template(segments: list[str], rest: bool) -> str:
    """A template whose parameters have names of their own places."""
    named = [
        segment.replace("x", f"x{number}") if segment == "{x}" else segment
        for number, segment in enumerate(segments)
    ]
    return "/" + "/".join([*named, "{rest*}"] if rest else named)
