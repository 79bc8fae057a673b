"""Looking into notifications, from the command line."""

from __future__ import annotations

import json
import sqlite3

from tests.homeserver.test_cli import CommandCase

USER = "@bob:localhost"
DATA = json.dumps({"url": "https://push.example.org/x"})


class PushTest(CommandCase):
    def test_what_became_of_notifications(self) -> None:
        self.write()
        self.hearth("user", "add", "bob", "--password", "wonderland")
        self.assertIn("@alice:localhost has no pusher", self.hearth("push", "log", "alice").stderr)
        with sqlite3.connect(self.directory / "data" / "homeserver.db") as db:
            db.execute(
                "INSERT INTO pushers (pusher_nid, user_id, app_id, pushkey, kind,"
                " app_display_name, device_display_name, lang, data, device_id, enabled,"
                " activated, secret, gateway, set_ts, since) VALUES (1, ?, 'a\x1b[2J', 'key',"
                " 'http', '', '', 'en', ?, 'PHONE', 0, 1, 's', 'g', 1, 0)",
                (USER, DATA),
            )
            db.execute(
                "INSERT INTO push_log (user_id, pusher_nid, pos, app_id, pushkey, kind, event_id,"
                " outcome, detail, attempts, first_ts, last_ts) VALUES (?, 1, 5, 'a', 'key',"
                " 'http', '$event', 'failed', 'answered 500', 3, 1, 1700000000000)",
                (USER,),
            )
            db.execute("INSERT INTO push_gateways VALUES ('g', 2, 1700000000000, 1700000060000)")
        said = self.hearth("push", "log", USER)
        self.assertEqual(
            said.stdout, "2023-11-14 22:13:20\tfailed\thttp\ta\t\t$event\t3\tanswered 500\n"
        )
        self.assertIn("is switched off.", said.stderr)
        self.assertIn("g has not answered as it should since 2023-11-14 22:13:20", said.stderr)
        self.assertEqual(
            self.hearth("push", "list").stdout,
            f'{USER}\thttp\t"a\\x1b[2J"\tPHONE\toff\thttps://push.example.org/x\n',
        )
