"""User-interactive authentication, through the endpoints that ask for it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.users.registration import RegistrationRules
from homeserver.users.uia import SESSION_LIFETIME_MS
from tests.support.users import OPEN, User, UserServer, make_user_server, same_database

V3 = "/_matrix/client/v3"
REGISTER = f"{V3}/register"
TERMS = {
    "privacy": {"version": "1.2", "en": {"name": "Privacy", "url": "https://hearth.test/p"}},
    "rules": {"version": "7", "de": {"name": "Regeln", "url": "https://hearth.test/r"}},
}
BOTH = RegistrationRules(enabled=True, require_token=True, terms=True)


class OneStageTest(TestCase):
    """Deleting a device asks for the password."""

    server: UserServer
    alice: User

    async def prepare(self) -> None:
        self.server = await make_user_server(self)
        self.alice = await self.server.add_user()
        await self.server.log_in("alice", "wonderland", device_id="OTHER")

    async def delete(self, auth: Any = None, device: str = "OTHER") -> tuple[int, Any]:
        body = {} if auth is None else {"auth": auth}
        return await self.alice.client.delete(f"{V3}/devices/{device}", body)

    async def test_first_call(self) -> None:
        """Shows UIA-1."""
        await self.prepare()
        status, answer = await self.delete()
        self.assertEqual(status, 401)
        self.assertEqual(answer["flows"], [{"stages": ["m.login.password"]}])
        self.assertEqual(answer["params"], {})
        self.assertIsInstance(answer["session"], str)
        self.assertNotIn("errcode", answer)
        self.assertNotIn("completed", answer)
        self.assertEqual((await self.alice.client.get(f"{V3}/devices/OTHER")).status, 200)

    async def test_no_body(self) -> None:
        """Shows UIA-6."""
        await self.prepare()
        status, answer = await self.alice.client.delete(f"{V3}/devices/OTHER")
        self.assertEqual(status, 401)
        self.assertIn("flows", answer)

    async def test_password(self) -> None:
        await self.prepare()
        _, asked = await self.delete()
        status, answer = await self.delete(self.alice.proof(asked["session"]))
        self.assertEqual((status, answer), (200, {}))
        self.assertEqual((await self.alice.client.get(f"{V3}/devices/OTHER")).status, 404)

    async def test_without_session(self) -> None:
        await self.prepare()
        self.assertEqual((await self.delete(self.alice.proof()))[0], 200)

    async def test_old_form_and_own_name_left_out(self) -> None:
        await self.prepare()
        proof = {"type": "m.login.password", "user": "alice", "password": "wonderland"}
        self.assertEqual((await self.delete(proof))[0], 200)
        del proof["user"]
        self.assertEqual((await self.delete(proof))[0], 200)

    async def test_wrong_password_can_be_tried_again(self) -> None:
        """Shows UIA-2."""
        await self.prepare()
        _, asked = await self.delete()
        wrong = {**self.alice.proof(asked["session"]), "password": "looking-glass"}
        status, answer = await self.delete(wrong)
        self.assertEqual(status, 401)
        self.assertEqual(answer["errcode"], "M_FORBIDDEN")
        self.assertEqual(answer["session"], asked["session"])
        self.assertEqual(answer["flows"], asked["flows"])
        self.assertEqual((await self.delete(self.alice.proof(asked["session"])))[0], 200)

    async def test_password_of_another_user(self) -> None:
        """Shows UIA-3."""
        await self.prepare()
        bob = await self.server.add_user("bob", "builder")
        _, asked = await self.delete()
        status, answer = await self.delete(bob.proof(asked["session"]))
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_session_of_another_operation(self) -> None:
        """Shows UIA-3."""
        await self.prepare()
        _, asked = await self.delete()
        proof = self.alice.proof(asked["session"])
        status, answer = await self.delete(proof, device=self.alice.device_id)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        status, answer = await self.alice.client.post(f"{V3}/account/deactivate", {"auth": proof})
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual((await self.delete(proof))[0], 200)

    async def test_session_of_another_user(self) -> None:
        """Shows UIA-3."""
        await self.prepare()
        bob = await self.server.add_user("bob", "builder")
        _, asked = await self.delete()
        self.assertEqual((await self.delete(self.alice.proof(asked["session"])))[0], 200)
        status, answer = await bob.client.delete(
            f"{V3}/devices/OTHER", {"auth": {"session": asked["session"]}}
        )
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_other_body_after_a_stage(self) -> None:
        """Shows UIA-3."""
        await self.prepare()
        path = f"{V3}/delete_devices"
        _, asked = await self.alice.client.post(path, {"devices": ["OTHER"]})
        proof = self.alice.proof(asked["session"])
        status, _ = await self.alice.client.post(path, {"devices": ["OTHER"], "auth": proof})
        self.assertEqual(status, 200)
        status, answer = await self.alice.client.post(
            path, {"devices": [self.alice.device_id], "auth": {"session": asked["session"]}}
        )
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual((await self.alice.whoami()).status, 200)

    async def test_finished_session_is_repeated(self) -> None:
        """Shows UIA-4."""
        await self.prepare()
        _, asked = await self.delete()
        proof = self.alice.proof(asked["session"])
        self.assertEqual((await self.delete(proof))[0], 200)
        self.assertEqual((await self.delete(proof))[0], 200)
        self.assertEqual((await self.delete({"session": asked["session"]}))[0], 200)

    async def test_expiry(self) -> None:
        """Shows UIA-4."""
        await self.prepare()
        _, asked = await self.delete()
        self.server.clock.advance(SESSION_LIFETIME_MS / 1000)
        status, answer = await self.delete(self.alice.proof(asked["session"]))
        self.assertEqual(status, 401)
        self.assertEqual(answer["errcode"], "M_UNKNOWN")
        self.assertNotEqual(answer["session"], asked["session"])
        self.assertEqual(await self.server.housekeeping.run(), 1)
        self.assertEqual((await self.delete(self.alice.proof(answer["session"])))[0], 200)

    async def test_unknown_sessions(self) -> None:
        await self.prepare()
        for session in ("nonsense", "", "é" * 1000):
            status, answer = await self.delete(self.alice.proof(session))
            self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN"))
            self.assertNotEqual(answer["session"], session)

    async def test_poll(self) -> None:
        """Shows UIA-5: nothing is done yet, so the flows are told again."""
        await self.prepare()
        _, asked = await self.delete()
        status, answer = await self.delete({"session": asked["session"]})
        self.assertEqual((status, answer), (401, asked))

    async def test_malformed(self) -> None:
        await self.prepare()
        password = {"type": "m.login.password"}
        for auth, expected in (
            ({"session": 1}, (400, "M_BAD_JSON")),
            ({"type": None}, (400, "M_BAD_JSON")),
            ({"type": ["m.login.password"]}, (400, "M_BAD_JSON")),
            ("m.login.password", (400, "M_BAD_JSON")),
            (password, (400, "M_MISSING_PARAM")),
            ({**password, "password": 7}, (400, "M_BAD_JSON")),
            ({**password, "password": "x", "identifier": "alice"}, (400, "M_BAD_JSON")),
            ({**password, "password": "x", "identifier": {}}, (400, "M_MISSING_PARAM")),
            ({**password, "password": "x", "user": {}}, (400, "M_BAD_JSON")),
            ({"type": "m.login.dummy"}, (401, "M_FORBIDDEN")),
            ({"type": "org.example.unknown"}, (401, "M_FORBIDDEN")),
        ):
            status, answer = await self.delete(auth)
            self.assertEqual((status, answer.get("errcode")), expected, auth)

    async def test_other_process_goes_on(self) -> None:
        await self.prepare()
        other = same_database(self, self.server.db, clock=self.server.clock)
        _, asked = await self.delete()
        client = other.client.with_token(self.alice.token)
        auth = self.alice.proof(asked["session"])
        self.assertEqual((await client.delete(f"{V3}/devices/OTHER", {"auth": auth})).status, 200)


class SeveralStagesTest(TestCase):
    """Registration with a token and terms."""

    server: UserServer

    async def prepare(self) -> None:
        self.server = await make_user_server(self, rules=BOTH, terms=TERMS)
        await self.server.registration_tokens.create("welcome", uses_allowed=1)

    async def register(self, auth: Any = None, name: str = "alice") -> tuple[int, Any]:
        body = {"username": name, "password": "wonderland"}
        return await self.server.client.post(
            REGISTER, body if auth is None else {**body, "auth": auth}
        )

    async def test_in_order(self) -> None:
        """Shows UIA-2, UIA-11, UIA-12."""
        await self.prepare()
        _, asked = await self.register()
        stages = ["m.login.registration_token", "m.login.terms"]
        self.assertEqual(asked["flows"], [{"stages": stages}])
        self.assertEqual(asked["params"], {"m.login.terms": {"policies": TERMS}})
        session = {"session": asked["session"]}
        status, answer = await self.register({**session, "type": "m.login.terms"})
        self.assertEqual((status, answer["errcode"]), (401, "M_FORBIDDEN"))
        self.assertNotIn("completed", answer)
        token = {**session, "type": "m.login.registration_token", "token": "welcome"}
        status, answer = await self.register(token)
        self.assertEqual(status, 401)
        self.assertEqual(answer["completed"], ["m.login.registration_token"])
        self.assertNotIn("errcode", answer)
        status, again = await self.register({**token, "token": "wrong"})
        self.assertEqual((status, again), (401, answer))
        status, polled = await self.register(session)
        self.assertEqual((status, polled), (401, answer))
        status, answer = await self.register({**session, "type": "m.login.terms"})
        self.assertEqual((status, answer["user_id"]), (200, "@alice:hearth.test"))
        accepted = await self.server.db.read(accepted_by, "@alice:hearth.test")
        self.assertEqual(accepted, {"privacy": "1.2", "rules": "7"})

    async def test_body_may_change_until_a_stage_is_done(self) -> None:
        """Shows UIA-3."""
        await self.prepare()
        _, asked = await self.server.client.post(REGISTER, {})
        token = {
            "session": asked["session"],
            "type": "m.login.registration_token",
            "token": "welcome",
        }
        status, _ = await self.register(token)
        self.assertEqual(status, 401)
        terms = {"session": asked["session"], "type": "m.login.terms"}
        status, answer = await self.register(terms, name="bob")
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual((await self.register(terms))[0], 200)

    async def test_token_is_counted_at_completion(self) -> None:
        """Shows UIA-11."""
        await self.prepare()
        sessions = []
        for name in ("alice", "bob"):
            _, asked = await self.register(name=name)
            sessions.append({"session": asked["session"]})
            await self.register(
                {**sessions[-1], "type": "m.login.registration_token", "token": "welcome"}, name
            )
        status, _ = await self.register({**sessions[0], "type": "m.login.terms"}, "alice")
        self.assertEqual(status, 200)
        status, answer = await self.register({**sessions[1], "type": "m.login.terms"}, "bob")
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        self.assertIsNone(await self.server.accounts.get("@bob:hearth.test"))

    async def test_bad_tokens(self) -> None:
        """Shows UIA-11."""
        await self.prepare()
        now_ms = int(self.server.clock.seconds() * 1000)
        await self.server.registration_tokens.create("old", expires_ts=now_ms)
        stage = {"type": "m.login.registration_token"}
        for token in ("unknown", "old", "", "x" * 65, "wel come", "\u0130"):
            status, answer = await self.register({**stage, "token": token})
            self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"), token)
        status, answer = await self.register(stage)
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        status, answer = await self.register({**stage, "token": 1})
        self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))


class DummyTest(TestCase):
    async def test_asked_even_if_nothing_is_to_be_proved(self) -> None:
        """Shows UIA-1."""
        server = await make_user_server(self, rules=OPEN)
        body = {"username": "alice", "password": "wonderland"}
        status, answer = await server.client.post(REGISTER, body)
        self.assertEqual(status, 401)
        self.assertEqual(answer["flows"], [{"stages": ["m.login.dummy"]}])
        self.assertIsNone(await server.accounts.get("@alice:hearth.test"))
        status, answer = await server.client.post(REGISTER, {**body, "auth": {}})
        self.assertEqual(status, 401)


def accepted_by(txn: Any, user_id: str) -> dict[str, str]:
    from storage import accepted_terms

    return accepted_terms.get(txn, user_id)
