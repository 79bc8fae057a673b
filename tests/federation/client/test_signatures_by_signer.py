"""Which signatures of an event are looked at."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from federation.client.keyring import signatures_by_signer
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import required_signers, signatures_of

_SENDERS = ("@a:a.example", "@b:b.example:8448", "nobody", "", None, 5, ["@a:a.example"])
_TYPES: tuple[Any, ...] = ("m.room.member", "m.room.message", "m.room.create", "", None, 5, {})
_CONTENTS: tuple[Any, ...] = (
    {},
    {"membership": "invite", "third_party_invite": {}},
    {"membership": "join", "join_authorised_via_users_server": "@c:c.example"},
    None,
    [],
)
_SIGNED = {"ed25519:1": "AAAA", "rsa:1": "BBBB", "ed25519:2": 5}
_SIGNATURES: tuple[Any, ...] = (
    {"a.example": _SIGNED, "b.example:8448": {}, "c.example": {"ed25519:c": "CCCC"}},
    {"a.example": []},
    None,
)


class SignaturesBySignerTest(SynchronousTestCase):
    def test_they_are_those_of_the_servers_that_must_have_signed(self) -> None:
        cases = itertools.product(_SENDERS, _TYPES, _CONTENTS, _SIGNATURES)
        for sender, kind, content, signatures in cases:
            keys = {"sender": sender, "type": kind, "content": content, "signatures": signatures}
            pdu = {key: value for key, value in keys.items() if value is not None}
            pdu["event_id"] = "$x:d.example"
            for version in ROOM_VERSIONS.values():
                expected = {
                    server: signatures_of(pdu, server) for server in required_signers(pdu, version)
                }
                found = signatures_by_signer(pdu, version)
                self.assertEqual(len(found), len(expected))
                self.assertEqual(dict(found), expected, (pdu, version.identifier))
