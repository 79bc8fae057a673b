"""Commands, run as operators run them."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from pathlib import Path

import yaml
from twisted.trial.unittest import TestCase

import homeserver
from tests.support.process import hearth
from tests.support.services import free_port


class CommandCase(TestCase):
    imported = True
    """Whether commands begin with what they need already imported."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.file = self.directory / "config.yaml"

    def write(self, **options: object) -> None:
        data = {
            "server_name": "localhost",
            "passwords": {"cost": "low"},
            "listeners": [{"port": 0}],
            **options,
        }
        self.file.write_text(yaml.safe_dump(data), encoding="utf-8")

    def hearth(
        self, *arguments: str, stdin: str = "", status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, which must end with `status` and never shows a traceback."""
        done = hearth(*arguments, stdin=stdin, directory=self.directory, imported=self.imported)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        return done

    def fails(self, *arguments: str, status: int = 1, stdin: str = "") -> str:
        """What a command that fails says on standard error."""
        return self.hearth(*arguments, status=status, stdin=stdin).stderr


class GeneralTests(CommandCase):
    imported = False

    def test_version(self) -> None:
        expected = f"hearth {homeserver.__version__}\n"
        self.assertEqual(self.hearth("version").stdout, expected)
        self.assertEqual(self.hearth("--version").stdout, expected)

    def test_help_names_the_commands(self) -> None:
        said = self.hearth("--help").stdout
        for name in ("run", "config", "user", "version"):
            self.assertIn(f"  {name} ", said)

    def test_unknown_command(self) -> None:
        self.assertIn("No such command 'rnu'", self.fails("rnu", status=2))


class ConfigTests(CommandCase):
    imported = False

    def test_new_is_right(self) -> None:
        self.hearth("config", "new", "--server-name", "example.org", "-o", "config.yaml")
        said = self.hearth("config", "check", "-c", "config.yaml").stdout
        self.assertIn("it is the configuration of example.org", said)

    def test_new_on_standard_output(self) -> None:
        said = self.hearth("config", "new", "--server-name", "[::1]:8448").stdout
        self.assertEqual(yaml.safe_load(said), {"server_name": "[::1]:8448"})

    def test_new_leaves_files_alone(self) -> None:
        self.file.write_text("mine")
        said = self.fails("config", "new", "--server-name", "a", "-o", "config.yaml")
        self.assertIn("config.yaml exists", said)
        self.assertEqual(self.file.read_text(), "mine")

    def test_new_refuses_bad_names(self) -> None:
        said = self.fails("config", "new", "--server-name", "@a:b", status=2)
        self.assertIn("server_name: is not a server name", said)

    def test_check_names_key_line_and_nearest(self) -> None:
        self.file.write_text("server_name: a\nregistration:\n  enabeld: true\n")
        said = self.fails("config", "check", "-c", "config.yaml", status=2)
        self.assertIn(
            'config.yaml:3: registration.enabeld: unknown key; did you mean "enabled"?', said
        )

    def test_check_names_what_is_hardly_meant(self) -> None:
        nobody = "registration.enabled: nobody can register"
        self.write(registration={"enabled": True})
        self.assertIn(nobody, self.hearth("config", "check").stdout)
        self.write(registration={"enabled": True, "without_verification": True})
        self.assertNotIn(nobody, self.hearth("config", "check").stdout)
        self.write(registration={"enabled": True, "require_token": True})
        self.assertNotIn(nobody, self.hearth("config", "check").stdout)


class RunTests(CommandCase):
    def test_missing_config(self) -> None:
        for arguments in (("run", "-c", "none.yaml"), ("-c", "none.yaml"), ("run",)):
            said = self.fails(*arguments, status=2)
            self.assertIn("no such file", said)
            self.assertIn("hearth config new", said)

    def test_wrong_config(self) -> None:
        self.write(log={"level": "loud"})
        said = self.fails("-c", "config.yaml", status=2)
        self.assertIn("log.level: expected one of", said)
        self.assertIn('found the text "loud"', said)

    def test_several_processes_on_sqlite(self) -> None:
        self.write()
        said = self.fails("run", "--processes", "2", status=2)
        self.assertIn("several processes need PostgreSQL", said)
        self.assertIn("several processes need Redis", said)

    def test_port_in_use(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            self.write(listeners=[{"port": port}])
            said = self.fails("run")
        self.assertIn(f"127.0.0.1 port {port}: the port is in use", said)

    def test_unreachable_database(self) -> None:
        port = free_port()
        url = f"postgresql://hearth:topsecret@127.0.0.1:{port}/hearth"
        self.write(database={"url": url, "start_timeout": "1s"})
        said = self.fails("run")
        self.assertIn("Waiting for the database", said)
        self.assertIn(
            f"Cannot reach the database postgresql://hearth@127.0.0.1:{port}/hearth", said
        )
        self.assertIn("tried for 1s", said)
        self.assertNotIn("topsecret", said)

    def test_unreachable_redis(self) -> None:
        port = free_port()
        url = f"redis://:topsecret@127.0.0.1:{port}/0"
        self.write(redis={"url": url}, database={"start_timeout": "1s"})
        said = self.fails("run")
        self.assertIn("Waiting for Redis", said)
        self.assertIn(f"Cannot reach Redis at 127.0.0.1 port {port}, having tried for 1s", said)
        self.assertNotIn("topsecret", said)

    def test_database_newer_than_the_code(self) -> None:
        self.write()
        self.hearth("user", "list")
        with sqlite3.connect(self.directory / "data" / "homeserver.db") as db:
            db.execute("INSERT INTO schema_version VALUES (9999, 'future', 0)")
        db.close()
        said = self.fails("run")
        self.assertIn("was used by a newer version of Hearth", said)

    def test_database_of_another_server_name(self) -> None:
        self.write()
        self.hearth("user", "add", "alice", "--password", "pw")
        self.write(server_name="example.org")
        for arguments in (("run",), ("user", "add", "bob", "--password", "pw")):
            said = self.fails(*arguments)
            self.assertIn("holds the accounts of localhost, but server_name is example.org", said)
        self.write()
        self.assertEqual(self.hearth("user", "list").stdout.count("\n"), 1)

    def test_database_that_is_none(self) -> None:
        self.write()
        (self.directory / "data").mkdir()
        (self.directory / "data" / "homeserver.db").write_text("not a database " * 100)
        self.assertIn("homeserver.db cannot be used", self.fails("run"))

    def test_data_directory_that_cannot_be_made(self) -> None:
        (self.directory / "file").write_text("")
        self.write(data_directory="file/data")
        self.assertIn("Cannot make the data directory", self.fails("run"))

    def test_log_that_cannot_be_written(self) -> None:
        self.write(log={"to": "none/such/directory/x.log"})
        self.assertIn("Cannot write the log", self.fails("run"))

    def test_reasons_are_shown_even_if_the_log_is_a_file(self) -> None:
        self.write(log={"to": "x.log"}, data_directory="file/data")
        (self.directory / "file").write_text("")
        self.assertIn("Cannot make the data directory", self.fails("run"))
        self.assertIn("Cannot make the data directory", (self.directory / "x.log").read_text())

    def test_certificate_that_is_missing(self) -> None:
        tls = {"certificate": "c.pem", "private_key": "k.pem"}
        self.write(listeners=[{"port": 0, "tls": tls}])
        self.assertIn("c.pem: No such file", self.fails("run"))


class RegistrationTokenTests(CommandCase):
    def test_add_list_and_remove(self) -> None:
        """Shows UIA-11."""
        self.write()
        command = "registration-token"
        self.assertEqual(self.hearth(command, "add", "friends", "--uses", "3").stdout, "friends\n")
        made = self.hearth(command, "add", "--expires", "1d").stdout.strip()
        self.assertRegex(made, "^[0-9A-Za-z._~-]{1,64}$")
        lines = self.hearth(command, "list").stdout.splitlines()
        self.assertIn("friends\t0/3\tnever", lines)
        self.assertEqual(len(lines), 2)
        self.hearth(command, "remove", "friends")
        self.assertIn("no registration token", self.fails(command, "remove", "friends"))
        self.assertEqual(len(self.hearth(command, "list").stdout.splitlines()), 1)

    def test_wrong_ones(self) -> None:
        """Shows UIA-11."""
        self.write()
        command = ("registration-token", "add")
        for token in ("x" * 65, "a b", "ü"):
            self.assertIn("64 characters", self.fails(*command, token))
        self.hearth(*command, "one")
        self.assertIn("There is a registration token", self.fails(*command, "one"))
        self.assertIn("length of time", self.fails(*command, "two", "--expires", "soon"))
        self.fails(*command, "two", "--uses", "0", status=2)


class UserTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.write()

    def listed(self) -> list[list[str]]:
        """User ID and flags of each account."""
        lines = self.hearth("user", "list").stdout.splitlines()
        return [[line.split("\t")[0], *line.split("\t")[2:]] for line in lines]

    def test_add_and_list(self) -> None:
        self.assertEqual(self.listed(), [])
        said = self.hearth("user", "add", "alice", "--password", "pw", "--admin").stdout
        self.assertEqual(said, "Made @alice:localhost, an administrator.\n")
        self.hearth("user", "add", "@bob:localhost", "--password", "-", stdin="pw\n")
        self.assertEqual(self.listed(), [["@alice:localhost", "admin"], ["@bob:localhost"]])

    def test_add_what_cannot_be(self) -> None:
        self.hearth("user", "add", "alice", "--password", "pw")
        self.assertIn("Error: ", self.fails("user", "add", "alice", "--password", "pw"))
        self.assertIn("Error: ", self.fails("user", "add", "al ice", "--password", "pw"))
        said = self.fails("user", "add", "@alice:elsewhere.org", "--password", "pw")
        self.assertIn("is not a user of this server, localhost", said)
        self.assertIn("password", self.fails("user", "add", "carol"))
        self.assertIn("empty", self.fails("user", "add", "carol", "--password", ""))
        self.assertEqual(len(self.listed()), 1)

    def test_passwd(self) -> None:
        self.hearth("user", "add", "alice", "--password", "old")
        said = self.hearth("user", "passwd", "alice", "--password", "new").stdout
        self.assertEqual(said, "Changed the password of @alice:localhost.\n")
        self.assertIn("no such account", self.fails("user", "passwd", "bob", "--password", "x"))

    def test_deactivate(self) -> None:
        self.hearth("user", "add", "alice", "--password", "pw")
        self.fails("user", "deactivate", "alice", stdin="n\n")
        self.assertEqual(self.listed(), [["@alice:localhost"]])
        said = self.hearth("user", "deactivate", "alice", "--yes").stdout
        self.assertEqual(said, "Closed @alice:localhost.\n")
        self.assertEqual(self.listed(), [["@alice:localhost", "deactivated"]])
        self.assertIn("closed for good", self.fails("user", "passwd", "alice", "--password", "x"))

    def test_identities(self) -> None:
        self.write(
            public_base_url="http://localhost/",
            sso={
                "providers": [
                    {"id": "work", "name": "W", "issuer": "https://a.example", "client_id": "h"}
                ]
            },
            cas={"server_url": "https://cas.example"},
        )
        for name in ("alice", "bob"):
            self.hearth("user", "add", name, "--password", "pw")
        self.assertEqual(self.hearth("user", "identities", "alice").stdout, "")
        said = self.hearth("user", "identities", "alice", "--link", "work", "4711").stdout
        self.assertRegex(said, r"^work\t4711\t\d{4}-\d\d-\d\d\n$")
        said = self.fails("user", "identities", "bob", "--link", "work", "4711")
        self.assertIn("another account", said)
        said = self.fails("user", "identities", "bob", "--link", "home", "1")
        self.assertIn("home is no provider", said)
        said = self.hearth("user", "identities", "alice", "--unlink", "work", "4711").stdout
        self.assertEqual(said, "")
        said = self.hearth("user", "identities", "alice", "--link", "cas", "al").stdout
        self.assertRegex(said, r"^cas\tal\t")
        self.assertIn("no account @eve", self.fails("user", "identities", "eve"))
        self.assertIn(
            "not connected", self.fails("user", "identities", "bob", "--unlink", "x", "1")
        )


class ModerationTests(CommandCase):
    def test_notices_and_reports(self) -> None:
        """Shows MISC-9, MISC-10."""
        self.write()
        self.hearth("user", "add", "bob", "--password", "wonderland")
        said = self.hearth("notice", "send", "bob", "Back at noon").stdout
        self.assertRegex(said, r"^Sent \$\S+ to @bob:localhost\.\n$")
        self.assertIn("no such account", self.fails("notice", "send", "nobody", "x"))
        self.assertIn("nothing to send", self.fails("notice", "send", "bob", " "))
        self.assertEqual(self.hearth("reports", "list").stdout, "")
        with sqlite3.connect(self.directory / "data" / "homeserver.db") as database:
            database.execute(
                "INSERT INTO reports (report_id, received_ts, reporter, kind, user_id, reason)"
                " VALUES (1, 0, '@a:localhost', 'user', '@bob:localhost', 'rude')"
            )
        said = self.hearth("reports", "list").stdout
        self.assertIn('@a:localhost\tuser\t@bob:localhost\t"rude"', said)
        self.assertIn('"report_id": 1', self.hearth("reports", "list", "--json").stdout)
        self.assertEqual(self.hearth("reports", "list", "--after", "1").stdout, "")
