"""The loader: defaults, and messages about mistakes."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from twisted.trial.unittest import TestCase

import config
from config import ConfigError
from config.describe import options_of
from config.model import UrlPreviews
from config.types import Notes


class LoadTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / "config.yaml"

    def load(self, text: str) -> config.Config:
        self.file.write_text(text, encoding="utf-8")
        return config.load(self.file)

    def problems(self, text: str) -> list[str]:
        """The problems of a file, without its path."""
        error = self.assertRaises(ConfigError, self.load, text)
        return [each.removeprefix(f"{self.file}:") for each in error.problems]

    def test_only_the_server_name_is_needed(self) -> None:
        loaded = self.load("server_name: example.org\n")
        self.assertEqual(loaded.server_name, "example.org")
        self.assertEqual(len(loaded.listeners), 1)
        listener = loaded.listeners[0]
        self.assertEqual((listener.address, listener.port), ("127.0.0.1", 8008))
        self.assertEqual(listener.serves, ("client", "federation", "media", "admin"))
        self.assertFalse(loaded.registration.enabled)
        self.assertEqual(loaded.default_room_version, "12")

    def test_every_promised_name_is_known(self) -> None:
        loaded = self.load(PROMISED)
        self.assertEqual(loaded.public_base_url, "https://matrix.example.org/")
        self.assertEqual(loaded.listeners[1].serves, ("federation",))
        assert loaded.listeners[1].tls is not None
        self.assertEqual(loaded.listeners[1].tls.certificate.name, "c.pem")
        assert loaded.email is not None
        self.assertEqual(loaded.email.from_, "Hearth <noreply@example.org>")
        self.assertEqual(loaded.federation.denied_ip_ranges, (ipaddress.ip_network("10.0.0.0/8"),))
        self.assertEqual(loaded.passwords.cost, "low")

    def test_relative_paths_start_at_the_file(self) -> None:
        loaded = self.load("server_name: a\ndata_directory: d\nlog: {to: x.log}\n")
        here = self.directory.absolute()
        self.assertEqual(loaded.data_directory, here / "d")
        self.assertEqual(loaded.log.to, str(here / "x.log"))
        self.assertEqual(loaded.database.url, f"sqlite:///{here}/d/homeserver.db")
        loaded = self.load('server_name: a\ndatabase: {url: "sqlite:///x.db"}\n')
        self.assertEqual(loaded.database.url, f"sqlite:///{here}/x.db")
        loaded = self.load('server_name: a\ndatabase: {url: "sqlite:////tmp/x.db"}\n')
        self.assertEqual(loaded.database.url, "sqlite:////tmp/x.db")

    def test_unknown_key(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nregistration:\n  guests: true\n  enabeld: true\n"),
            ['4: registration.enabeld: unknown key; did you mean "enabled"?'],
        )

    def test_key_of_another_section(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nshared_secret: x\n"),
            ['2: shared_secret: unknown key; did you mean "registration.shared_secret"?'],
        )

    def test_key_like_no_other_still_names_the_nearest(self) -> None:
        self.assertIn("the nearest known key is", self.problems("server_name: a\nqqq: 1\n")[0])

    def test_unknown_key_of_a_section(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nexperimental: {magic: true}\n"),
            ['2: experimental.magic: unknown key; the nearest known key is "unread_messages"'],
        )

    def test_wrong_types(self) -> None:
        wrong = {
            "registration: {enabled: 1}": "expected true or false, found the number 1",
            "registration: {enabled: 'yes'}": 'expected true or false, found the text "yes"',
            "listeners: [{port: '80'}]": 'expected a whole number, found the text "80"',
            "listeners: [{port: true}]": "expected a whole number, found the truth value true",
            "listeners: {port: 80}": "found keys and values",
            "listeners: [{port: 70000}]": "must be at most 65535, found the number 70000",
            "listeners: [{port: 1, serves: [cleint]}]": 'found the text "cleint"',
            "default_room_version: 12": "found the number 12; put it in quotes",
            "default_room_version: '13'": 'found the text "13"',
            "stop_timeout: 10": "a length of time with its unit",
            "media: {max_upload_size: 5X}": "a size in bytes, or with a unit",
            "federation: {allowed_ip_ranges: [10.0.0.1/8]}": "expected an IP range",
            "federation: {allowed_ip_ranges: 10.0.0.0/8}": "expected a list",
            "log: debug": 'expected keys and values, found the text "debug"',
            "log: {level: loud}": 'expected one of "debug", "info", "warning", "error"',
            "public_base_url: 2024-01-01": "found a date",
            "public_base_url: example.org": "must start with https://",
            "database: {url: 'mysql://x'}": "must start with sqlite:/// or postgresql://",
            "rate_limits: {read: {per_second: -1, burst: 1}}": "must be at least 0",
        }
        for line, message in wrong.items():
            found = self.problems(f"# a comment\n\nserver_name: a\n{line}\n")
            self.assertEqual(len(found), 1, found)
            key = line.partition(":")[0]
            self.assertTrue(found[0].startswith(f"4: {key}"), found)
            self.assertIn(message, found[0])

    def test_all_mistakes_are_told_at_once(self) -> None:
        found = self.problems("registration: {enabled: 3}\nlog: {levle: info}\n")
        self.assertEqual(len(found), 3, found)
        self.assertTrue(any("server_name: is missing" in each for each in found), found)

    def test_required_keys_of_a_section(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nlisteners:\n  - {address: 127.0.0.1}\n"),
            ["3: listeners[0].port: is missing; expected a whole number"],
        )

    def test_key_given_twice(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nlog: {}\nlog: {}\n"), ["3: log: is there twice"]
        )

    def test_two_listeners_on_one_port(self) -> None:
        self.assertEqual(
            self.problems("server_name: a\nlisteners:\n- {port: 80}\n- {port: 80}\n"),
            ["4: listeners[1]: 127.0.0.1 port 80 is used by another listener"],
        )

    def test_bad_server_names(self) -> None:
        for name in ("", "a b", "@a:b", "http://a", "a:port", "ä.org"):
            found = self.problems(f"server_name: '{name}'\n")
            self.assertIn("server_name: is not a server name", found[0])
        for name in ("a", "a.example.org:8448", "1.2.3.4", "'[::1]:80'", "localhost"):
            self.load(f"server_name: {name}\n")

    def test_not_yaml(self) -> None:
        self.assertTrue(
            self.problems("server_name: a\nlog: {level: [\n")[0].startswith("3: is not")
        )
        self.assertIn("expected keys and values", self.problems("hello\n")[0])

    def test_missing_and_unreadable_files(self) -> None:
        error = self.assertRaises(ConfigError, config.load, self.directory / "none.yaml")
        self.assertIn("no such file", str(error))
        self.assertIn("hearth config new", str(error))
        error = self.assertRaises(ConfigError, config.load, self.directory)
        self.assertIn("cannot be read", str(error))
        self.file.write_bytes(b"server_name: \xff\n")
        error = self.assertRaises(ConfigError, config.load, self.file)
        self.assertIn("is not UTF-8", str(error))

    def test_empty_sections_have_their_defaults(self) -> None:
        self.assertFalse(self.load("server_name: a\nregistration:\n").registration.enabled)

    def test_secrets_from_files(self) -> None:
        (self.directory / "secret").write_text("s3cret\n")
        loaded = self.load("server_name: a\nregistration: {shared_secret_file: secret}\n")
        self.assertEqual(loaded.registration.shared_secret, "s3cret")
        found = self.problems("server_name: a\nregistration: {shared_secret_file: nothing}\n")
        self.assertEqual(len(found), 1, found)
        self.assertIn("registration.shared_secret_file: cannot read", found[0])
        found = self.problems(
            "server_name: a\nregistration: {shared_secret_file: secret, shared_secret: x}\n"
        )
        self.assertIn('give either this or "shared_secret"', found[0])

    def test_secrets_are_not_shown(self) -> None:
        found = self.problems("server_name: a\nregistration: {shared_secret: 12345678}\n")
        self.assertNotIn("12345678", found[0])
        loaded = self.load("server_name: a\nregistration: {shared_secret: verysecret}\n")
        self.assertNotIn("verysecret", repr(loaded))


class TogetherTests(TestCase):
    """Options that need each other."""

    def problems(self, **options: object) -> str:
        with self.assertRaises(config.ConfigError) as caught:
            config.from_dict({"server_name": "example.org", **options})
        return str(caught.exception)

    def test_email(self) -> None:
        email = {"from": "Hearth <noreply@example.org>"}
        self.assertIn("needs public_base_url", self.problems(email=email))
        said = self.problems(registration={"require_email": True})
        self.assertIn("registration.require_email: needs the email section", said)
        for sender in ("nobody", "a@b\r\nBcc: c@d", ""):
            said = self.problems(public_base_url="https://example.org", email={"from": sender})
            self.assertIn("email.from: is not an address", said)
        found = config.from_dict(
            {"server_name": "a", "public_base_url": "https://a", "email": {**email, "tls": "none"}}
        )
        self.assertIn("email.tls: messages", "".join(config.doubts(found)))

    def test_terms(self) -> None:
        text = {"language": "en", "title": "T", "url": "https://example.org/"}
        document = {"name": "privacy", "version": "1", "texts": [text]}
        for wrong, told in (
            ([document, document], "privacy is there twice"),
            ([{**document, "texts": []}], "has no text"),
            ([{**document, "name": "a b"}], "A-Z a-z"),
            ([{**document, "texts": [{**text, "language": "version"}]}], "language code"),
            ([{**document, "texts": [{**text, "url": "javascript:x"}]}], "https://"),
        ):
            self.assertIn(told, self.problems(registration={"terms": wrong}))

    def test_sso(self) -> None:
        good = {"id": "work", "name": "W", "issuer": "https://a.example/b", "client_id": "h"}
        base = "https://hearth.test/"
        for wrong, told in (
            ([good, good], "work is there twice"),
            ([{**good, "scopes": ["profile"]}], "must hold openid"),
            ([{**good, "id": "a/b"}], "A-Z a-z"),
            ([{**good, "icon": "https://example.org/icon.png"}], "mxc://"),
            ([{**good, "brand": "Big Brand"}], "a-z 0-9"),
            ([{**good, "issuer": "http://a.example"}], "https://"),
            ([{**good, "issuer": "https://a.example/?x"}], "https://"),
            ([{**good, "issuer": "https://"}], "https://"),
            ([{**good, "localpart": "{{ user."}], "is not a template"),
            ([{**good, "client_auth": "jwt"}], "basic"),
            ([{"id": "work"}], "issuer: is missing"),
        ):
            found = self.problems(public_base_url=base, sso={"providers": wrong})
            self.assertIn(told, found)
        self.assertIn("public_base_url", self.problems(sso={"providers": [good]}))
        self.assertIn("public_base_url", self.problems(cas={"server_url": "https://a"}))
        found = self.problems(
            public_base_url=base,
            sso={"providers": [{**good, "id": "cas"}]},
            cas={"server_url": "https://a"},
        )
        self.assertIn("CAS server's", found)
        wrong_clients = {"known_clients": ["app.example.org"]}
        self.assertIn("no address", self.problems(sso=wrong_clients))


class NotYetUsedTests(TestCase):
    def test_names_keys_that_nothing_reads(self) -> None:
        loaded = config.from_dict(
            {
                "server_name": "a",
                "federation": {"ca_files": ["x.pem"]},
                "url_previews": {"enabled": True},
                "presence": {"enabled": False},
            }
        )
        option = options_of(UrlPreviews)["enabled"]
        self.assertEqual(config.not_yet_used(loaded), [])
        self.patch(Notes, "not_yet", property(lambda notes: notes is option.notes))
        self.assertEqual(config.not_yet_used(loaded), ["url_previews.enabled"])

    def test_defaults_are_not_named(self) -> None:
        self.assertEqual(config.not_yet_used(config.from_dict({"server_name": "a"})), [])


PROMISED = """
server_name: example.org
public_base_url: https://matrix.example.org
data_directory: ./data
database: {url: "sqlite:///data/homeserver.db"}
redis: {url: "redis://localhost:6379/0"}
listeners:
  - {address: 127.0.0.1, port: 8008, serves: [client, federation, media, admin]}
  - {address: 0.0.0.0, port: 8448, serves: [federation], tls: {certificate: c.pem, private_key: k.pem}}
  - {address: 127.0.0.1, port: 9100, serves: [metrics, health]}
log: {level: info, to: stderr, format: human}
registration: {enabled: false, without_verification: false, require_token: false, guests: false, shared_secret: null}
passwords: {cost: low}
rate_limits: {enabled: true}
default_room_version: "12"
presence: {enabled: true}
federation: {verify_certificates: true, ca_files: [], allowed_ip_ranges: [], denied_ip_ranges: [10.0.0.0/8], trusted_key_servers: [], public_rooms: false}
outgoing_http: {verify_tls: true, ca_files: [], allowed_ip_ranges: [], denied_ip_ranges: [10.0.0.0/8]}
application_service_files: []
email: {smtp_host: localhost, smtp_port: 25, from: "Hearth <noreply@example.org>"}
recaptcha: {verify_url: "https://example.org/verify", public_key: a, private_key: b}
cas: {server_url: "https://cas.example.org"}
url_previews: {enabled: false, allowed_ip_ranges: []}
public_rooms: {without_auth: false, publication: anyone}
room_aliases: {require_membership: true}
experimental: {}
"""  # noqa: E501
