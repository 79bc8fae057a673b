"""What a client may set as a pusher."""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError
from homeserver.core.pushers import decoded, parse

URL = "https://push.example.org/_matrix/push/v1/notify"
KEY = base64.urlsafe_b64encode(b"\x04" + b"k" * 64).decode().rstrip("=")
AUTH = base64.urlsafe_b64encode(b"a" * 16).decode().rstrip("=")


def pusher(**changes: Any) -> dict[str, Any]:
    """The body of a request for a pusher of kind http."""
    body: dict[str, Any] = {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": "key",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": URL},
    }
    return {**body, **changes}


def web_pusher(**changes: Any) -> dict[str, Any]:
    """The body of a request for a pusher of kind webpush."""
    data = {"url": "https://push.example.org/some?thing=1", "auth": AUTH}
    return pusher(**{"kind": "webpush", "pushkey": KEY, "data": data, **changes})


class ParseTest(TestCase):
    def test_accepted(self) -> None:
        """Shows PSH-10."""
        found = parse(pusher(profile_tag="x", append=True))
        self.assertEqual((found.kind, found.append, found.enabled), ("http", True, None))
        self.assertEqual(found.gateway, "https://push.example.org:443")
        self.assertIs(parse(pusher(enabled=False)).enabled, False)
        self.assertIs(parse(pusher(**{"org.matrix.msc3881.enabled": False})).enabled, False)
        removed = parse({"kind": None, "app_id": "a", "pushkey": "b"})
        self.assertIsNone(removed.kind)
        self.assertEqual(parse(web_pusher()).kind, "webpush")
        unstable = parse(web_pusher(kind="org.matrix.msc4174.webpush"))
        self.assertEqual(unstable.kind, "webpush")
        kept = parse(pusher(data={"url": URL, "activated": True, "custom": {"a": [1]}})).data
        self.assertEqual(kept, {"url": URL, "custom": {"a": [1]}})

    def test_refused(self) -> None:
        """Shows PSH-10."""
        for change, errcode in (
            ({"kind": 1}, "M_BAD_JSON"),
            ({"kind": "pigeon"}, "M_INVALID_PARAM"),
            ({"kind": "email"}, "M_INVALID_PARAM"),
            ({"app_id": 5}, "M_BAD_JSON"),
            ({"app_id": "a" * 65}, "M_INVALID_PARAM"),
            ({"pushkey": "ä" * 257}, "M_INVALID_PARAM"),
            ({"pushkey": ""}, "M_INVALID_PARAM"),
            ({"data": []}, "M_BAD_JSON"),
            ({"data": {}}, "M_MISSING_PARAM"),
            ({"data": {"url": 1}}, "M_BAD_JSON"),
            ({"data": {"url": URL, "format": 1}}, "M_BAD_JSON"),
            ({"data": {"url": URL, "x": "y" * 20_000}}, "M_INVALID_PARAM"),
            ({"lang": None}, "M_BAD_JSON"),
            ({"append": "yes"}, "M_BAD_JSON"),
            ({"enabled": 1}, "M_BAD_JSON"),
            ({"app_display_name": "a" * 501}, "M_INVALID_PARAM"),
        ):
            with self.assertRaises(MatrixError, msg=str(change)) as caught:
                parse(pusher(**change))
            self.assertEqual((caught.exception.status, caught.exception.errcode), (400, errcode))
        for name in ("kind", "app_id", "pushkey", "app_display_name", "lang", "data"):
            body = pusher()
            del body[name]
            with self.assertRaises(MatrixError) as caught:
                parse(body)
            self.assertEqual(caught.exception.errcode, "M_MISSING_PARAM")

    def test_urls(self) -> None:
        """Shows PSH-10."""
        bad = (
            "http://push.example.org/_matrix/push/v1/notify",
            "https://push.example.org/",
            "https://push.example.org/_matrix/push/v1/notify?x=1",
            "https://push.example.org/_matrix/push/v1/notify#x",
            "https://push.example.org/_matrix/push/v1/notify/",
            "https://user@push.example.org/_matrix/push/v1/notify",
            "https:///_matrix/push/v1/notify",
            "https://ä.example.org/_matrix/push/v1/notify",
            "https://push.example.org:99999999/_matrix/push/v1/notify",
            "https://[::1/_matrix/push/v1/notify",
            "file:///_matrix/push/v1/notify",
            "",
            URL + "\n",
            URL + "x" * 3000,
        )
        for url in bad:
            with self.assertRaises(MatrixError, msg=url):
                parse(pusher(data={"url": url}))
        found = parse(pusher(data={"url": "http://127.0.0.1:99/x"}), allow_http=True)
        self.assertEqual(found.gateway, "http://127.0.0.1:99")
        with self.assertRaises(MatrixError):
            parse(pusher(data={"url": "ftp://127.0.0.1/x"}), allow_http=True)

    def test_keys_of_browsers(self) -> None:
        for change in (
            {"pushkey": "short"},
            {"pushkey": "!" * 87},
            {"pushkey": "A" * 87},
            {"data": {"url": "https://push.example.org/x"}},
            {"data": {"url": "https://push.example.org/x", "auth": 1}},
            {"data": {"url": "https://push.example.org/x", "auth": "AAAA"}},
            {"data": {"url": "http://push.example.org/x", "auth": AUTH}},
        ):
            with self.assertRaises(MatrixError, msg=str(change)):
                parse(web_pusher(**change))
        self.assertEqual(decoded(AUTH), b"a" * 16)
        self.assertEqual(decoded(AUTH + "=="), b"a" * 16)
        self.assertIsNone(decoded("a+b/"))
