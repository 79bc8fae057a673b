"""The data directory and the signing key."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from twisted.trial.unittest import TestCase

import config
from homeserver.startup import (
    SIGNING_KEY_FILE,
    CannotStart,
    hold_database,
    load_signing_keys,
    prepare_data_directory,
)


class StartupTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute() / "deep" / "data"
        self.config = config.from_dict({"server_name": "a", "data_directory": str(self.directory)})
        self.file = self.directory / SIGNING_KEY_FILE

    def test_the_directory_is_made(self) -> None:
        prepare_data_directory(self.config)
        prepare_data_directory(self.config)
        self.assertTrue(self.directory.is_dir())
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_a_directory_that_cannot_be_made(self) -> None:
        self.directory.parent.parent.mkdir()
        self.directory.parent.write_text("a file in the way")
        error = self.assertRaises(CannotStart, prepare_data_directory, self.config)
        self.assertIn(str(self.directory), str(error))

    def test_an_sqlite_database_has_one_server(self) -> None:
        prepare_data_directory(self.config)
        held = hold_database(self.config)
        assert held is not None
        error = self.assertRaises(CannotStart, hold_database, self.config)
        self.assertIn("Another server runs on this database", str(error))
        os.close(held)
        again = hold_database(self.config)
        assert again is not None
        os.close(again)

    def test_a_key_is_made_once(self) -> None:
        prepare_data_directory(self.config)
        first = load_signing_keys(self.config)
        self.assertRegex(self.file.read_text(), r"^ed25519 a_[A-Za-z]{4} [A-Za-z0-9+/]{43}\n$")
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        second = load_signing_keys(self.config)
        self.assertEqual(first[0].key_id, second[0].key_id)
        self.assertEqual(first[0].public_base64, second[0].public_base64)
        self.assertEqual([path.name for path in self.directory.iterdir()], [SIGNING_KEY_FILE])

    def test_processes_that_start_together_share_one_key(self) -> None:
        prepare_data_directory(self.config)
        found: list[str] = []
        together = threading.Barrier(8)

        def start() -> None:
            together.wait()
            found.append(load_signing_keys(self.config)[0].public_base64)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 8)
        self.assertEqual(len(set(found)), 1)

    def test_keys_are_rotated_in_the_file(self) -> None:
        """Shows KEY-15."""
        prepare_data_directory(self.config)
        load_signing_keys(self.config)
        old = self.file.read_text().strip()
        new = f"ed25519 new {'A' * 43}\n"
        self.file.write_text(f"{new}{old} expired_ts=5\n")
        first, second = load_signing_keys(self.config)
        self.assertEqual((first.key_id, first.expired_ts), ("ed25519:new", None))
        self.assertEqual(second.expired_ts, 5)
        self.file.write_text(f"{old} expired_ts=5\n{new}")
        error = self.assertRaises(CannotStart, load_signing_keys, self.config)
        self.assertIn("retired", str(error))

    def test_damaged_and_empty_keys_are_told(self) -> None:
        prepare_data_directory(self.config)
        for text in ("ed25519 a_b", "nonsense\n", "", "ed25519 a_b AAAA\n"):
            self.file.write_text(text)
            error = self.assertRaises(CannotStart, load_signing_keys, self.config)
            self.assertIn(str(self.file), str(error))
            self.assertEqual(self.file.read_text(), text)
