from __future__ import annotations

from typing import Any

from homeserver.core.membership_rules import MAX_SIGNATURE_CHECKS
from homeserver.core.signing import SigningKey, encode_base64, sign_json
from homeserver.core.types import JsonObject
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder, test_key
from tests.support.rules import RulesTestCase, raw_event

DAVE = "@dave:d.example"
JUNK: list[Any] = [None, 5, "x", [], {}]
MEMBERSHIPS = ("none", "invite", "join", "leave", "ban", "knock")


def since(first: int) -> list[str]:
    return [version for version in ALL_VERSIONS if int(version) >= first]


def before(first: int) -> list[str]:
    return [version for version in ALL_VERSIONS if int(version) < first]


def room_with(
    version: str, membership: str, join_rule: str | None = "public", **options: Any
) -> RoomBuilder:
    """A room of Alice's in which Bob has this membership ("none": no member event)."""
    room = RoomBuilder.started(version, **options)
    if join_rule is None:
        del room.state["m.room.join_rules", ""]
    else:
        room.join_rules(join_rule)
    if membership != "none":
        sender = ALICE if membership in ("invite", "ban") else BOB
        room.member(BOB, membership, sender)
    return room


class OwnMembershipTest(RulesTestCase):
    """What users may do with their own membership, by join rule and present membership."""

    # Join rule (None: no event): first version that knows it, from where one may join.
    JOINS: dict[str | None, tuple[int, set[str]]] = {
        "public": (1, {"none", "invite", "join", "leave", "knock"}),
        "invite": (1, {"invite", "join"}),
        None: (1, {"invite", "join"}),
        "knock": (7, {"invite", "join"}),
        "restricted": (8, {"invite", "join"}),
        "knock_restricted": (10, {"invite", "join"}),
        "private": (99, set()),
        "unheard-of": (99, set()),
    }
    KNOCKS: dict[str | None, int] = {"knock": 7, "knock_restricted": 10}

    def test_join(self) -> None:
        for version in ALL_VERSIONS:
            for rule, (first, allowed_from) in self.JOINS.items():
                for membership in MEMBERSHIPS:
                    room = room_with(version, membership, rule)
                    event = room.join(BOB, add=False)
                    hint = f"{rule} {membership}"
                    if int(version) >= first and membership in allowed_from:
                        self.assert_allowed(room, event, hint=hint)
                    elif membership == "ban":
                        self.assert_rejected("5.3.3", room, event, hint=hint)
                    else:
                        self.assert_rejected(None, room, event, hint=hint)

    def test_knock(self) -> None:
        """Only under knock rules, not from ban, invite or join. Shows AUTH-18."""
        for version in ALL_VERSIONS:
            for rule in self.JOINS:
                for membership in MEMBERSHIPS:
                    room = room_with(version, membership, rule)
                    event = room.knock(BOB, add=False)
                    hint = f"{rule} {membership}"
                    if int(version) < 7:
                        self.assert_rejected("5.8", room, event, hint=hint)
                    elif int(version) < self.KNOCKS.get(rule, 99):
                        self.assert_rejected("5.7.1", room, event, hint=hint)
                    elif membership in ("ban", "invite", "join"):
                        self.assert_rejected("5.7.4", room, event, hint=hint)
                    else:
                        self.assert_allowed(room, event, hint=hint)

    def test_leave(self) -> None:
        for version in ALL_VERSIONS:
            for membership in MEMBERSHIPS:
                room = room_with(version, membership)
                event = room.leave(BOB, add=False)
                if membership in ("invite", "join") or (
                    membership == "knock" and int(version) >= 7
                ):
                    self.assert_allowed(room, event, hint=membership)
                else:
                    self.assert_rejected("5.5.1", room, event, hint=membership)

    def test_only_for_oneself(self) -> None:
        """Shows AUTH-18."""
        for version in ALL_VERSIONS:
            room = room_with(version, "none", members=[CAROL])
            self.assert_rejected("5.3.2", room, room.member(BOB, "join", ALICE, add=False))
            if int(version) >= 7:
                room.join_rules("knock")
                knock = room.member(BOB, "knock", CAROL, add=False)
                self.assert_rejected("5.7.2", room, knock)

    def test_other_memberships_are_unknown(self) -> None:
        for version in ALL_VERSIONS:
            room = room_with(version, "join")
            self.assert_rejected("5.8", room, room.member(BOB, "leap", add=False))

    def test_malformed_member_events(self) -> None:
        for version in ALL_VERSIONS:
            room = room_with(version, "join")
            join = {"membership": "join"}
            self.assert_rejected(
                "5.1", room, room.event("m.room.member", BOB, join, None, add=False)
            )
            for content in ({}, {"membership": ["join"]}, {"membership": None}):
                event = raw_event(room, "m.room.member", BOB, dict(content), BOB)
                self.assert_rejected("5.1", room, event)
            for target in ("", "bob", "@bob", "@bob:b\x00.example"):
                event = raw_event(room, "m.room.member", ALICE, {"membership": "invite"}, target)
                self.assert_rejected("5.1", room, event)

    def test_join_rule_of_wrong_type_lets_nobody_in(self) -> None:
        for version in ALL_VERSIONS:
            for junk in (None, 1, ["public"], {"public": True}):
                room = room_with(version, "invite")
                event = raw_event(room, "m.room.join_rules", ALICE, {"join_rule": junk}, "")
                room.state["m.room.join_rules", ""] = event
                self.assert_rejected("5.3.7", room, room.join(BOB, add=False))
            room = room_with(version, "invite")
            room.state["m.room.join_rules", ""] = raw_event(
                room, "m.room.join_rules", ALICE, {}, ""
            )
            self.assert_allowed(room, room.join(BOB, add=False))


class FirstJoinTest(RulesTestCase):
    def test_creator(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            self.assert_allowed(room, room.join(ALICE, add=False))
            self.assert_rejected("5.3.7", room, room.join(BOB, add=False))

    def test_only_right_after_the_create_event(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            room.join(ALICE)
            room.leave(ALICE)
            self.assert_rejected("5.3.7", room, room.join(ALICE, add=False))
            room.heads = [room.create.event_id, *room.heads]
            self.assert_rejected("5.3.7", room, room.join(ALICE, add=False))

    def test_who_counts_as_creator(self) -> None:
        """`content.creator` up to version 10, then the sender; no additional creator."""
        for version in ALL_VERSIONS:
            content: JsonObject = {"creator": CAROL, "additional_creators": [BOB]}
            room = RoomBuilder(version, create_content=content)
            first, others = (CAROL, (ALICE, BOB)) if int(version) <= 10 else (ALICE, (BOB, CAROL))
            self.assert_allowed(room, room.join(first, add=False))
            for other in others:
                self.assert_rejected("5.3.7", room, room.join(other, add=False))


class PowerOverOthersTest(RulesTestCase):
    """Invites, kicks, unbans and bans by Carol, of Bob."""

    def room(self, version: str, membership: str, users: JsonObject, **power: Any) -> RoomBuilder:
        listed = {} if int(version) >= 12 else {ALICE: 100}
        full = {"users": {**listed, **users}, **power}
        return room_with(version, membership, members=[CAROL, DAVE], power=full)

    # Carol's level, Bob's level, ban and kick level, and what Carol may then do to Bob.
    POWERS: list[tuple[int, int, int, int, set[str]]] = [
        (50, 0, 50, 50, {"kick", "ban", "unban"}),
        (50, 49, 50, 50, {"kick", "ban", "unban"}),
        (50, 50, 50, 50, set()),
        (50, 51, 50, 50, set()),
        (49, 0, 50, 50, set()),
        (50, 0, 60, 50, {"kick"}),
        (50, 0, 50, 60, {"ban"}),
        (0, -1, 0, 0, {"kick", "ban", "unban"}),
        (0, 0, 0, 0, set()),
    ]

    def test_kick_ban_unban(self) -> None:
        """Strictly more power than the target; unban needs both levels. Shows AUTH-9."""
        for version in ALL_VERSIONS:
            for carol, bob, ban, kick, may in self.POWERS:
                users = {CAROL: carol, BOB: bob}
                joined = self.room(version, "join", users, ban=ban, kick=kick)
                banned = self.room(version, "ban", users, ban=ban, kick=kick)
                for action, room, event in (
                    ("kick", joined, joined.kick(CAROL, BOB, add=False)),
                    ("ban", joined, joined.ban(CAROL, BOB, add=False)),
                    ("unban", banned, banned.kick(CAROL, BOB, add=False)),
                ):
                    hint = f"{action} {carol} {bob} {ban} {kick}"
                    if action in may:
                        self.assert_allowed(room, event, hint=hint)
                    else:
                        self.assert_rejected(None, room, event, hint=hint)

    def test_which_rule(self) -> None:
        room = self.room("12", "ban", {CAROL: 50}, ban=60, kick=50)
        self.assert_rejected("5.5.3", room, room.kick(CAROL, BOB, add=False))
        room = self.room("12", "join", {CAROL: 50, BOB: 50})
        self.assert_rejected("5.5.5", room, room.kick(CAROL, BOB, add=False))
        self.assert_rejected("5.6.3", room, room.ban(CAROL, BOB, add=False))

    def test_absent_senders(self) -> None:
        """Who is not in the room can do nothing to others in it. Shows AUTH-9."""
        for version in ALL_VERSIONS:
            for membership in ("none", "invite", "leave", "ban"):
                listed = {} if int(version) >= 12 else {ALICE: 100}
                power = {"users": {**listed, BOB: 90}}
                room = room_with(version, membership, members=[CAROL], power=power)
                self.assert_rejected("5.5.2", room, room.kick(BOB, CAROL, add=False))
                self.assert_rejected("5.6.1", room, room.ban(BOB, CAROL, add=False))
                self.assert_rejected("5.4.2", room, room.invite(BOB, DAVE, add=False))

    def test_from_which_membership(self) -> None:
        for version in ALL_VERSIONS:
            for membership in MEMBERSHIPS:
                room = self.room(version, membership, {CAROL: 50})
                self.assert_allowed(room, room.ban(CAROL, BOB, add=False), hint=membership)
                self.assert_allowed(room, room.kick(CAROL, BOB, add=False), hint=membership)
                invite = room.invite(CAROL, BOB, add=False)
                if membership in ("join", "ban"):
                    self.assert_rejected("5.4.3", room, invite, hint=membership)
                else:
                    self.assert_allowed(room, invite, hint=membership)

    def test_invite_level(self) -> None:
        for version in ALL_VERSIONS:
            for level, allowed in ((29, False), (30, True)):
                room = self.room(version, "none", {CAROL: level}, invite=30)
                event = room.invite(CAROL, BOB, add=False)
                if allowed:
                    self.assert_allowed(room, event)
                else:
                    self.assert_rejected("5.4.5", room, event)

    def test_levels_of_event_types_do_not_matter(self) -> None:
        """Shows AUTH-8."""
        for version in ALL_VERSIONS:
            room = self.room(
                version, "join", {CAROL: 50}, events={"m.room.member": 90}, state_default=90
            )
            self.assert_allowed(room, room.kick(CAROL, BOB, add=False))
            self.assert_allowed(room, room.ban(CAROL, BOB, add=False))
            self.assert_allowed(room, room.invite(CAROL, "@new:b.example", add=False))
            self.assert_allowed(room, room.join("@new:b.example", add=False))
            room = self.room(
                version, "join", {CAROL: 10}, events={"m.room.member": 0}, state_default=0
            )
            self.assert_rejected("5.5.5", room, room.kick(CAROL, BOB, add=False))

    def test_privileged_creators(self) -> None:
        """Nobody stands above them, and they above everybody but each other. Shows AUTH-15."""
        room = room_with(
            "12",
            "join",
            members=[CAROL],
            users={BOB: 2**53 - 1},
            create_content={"additional_creators": [CAROL]},
        )
        for creator, other in ((ALICE, CAROL), (CAROL, ALICE)):
            self.assert_allowed(room, room.kick(creator, BOB, add=False))
            self.assert_rejected("5.5.5", room, room.kick(BOB, creator, add=False))
            self.assert_rejected("5.6.3", room, room.ban(BOB, creator, add=False))
            self.assert_rejected("5.5.5", room, room.kick(creator, other, add=False))


class RestrictedJoinTest(RulesTestCase):
    """Bob joins, authorised by Carol of c.example."""

    def room(self, version: str, rule: str = "restricted", level: int = 50) -> RoomBuilder:
        listed = {} if int(version) >= 12 else {ALICE: 100}
        power = {"users": {**listed, CAROL: level}, "invite": 50}
        return RoomBuilder.started(version, members=[CAROL], join_rule=rule, power=power)

    def join(self, room: RoomBuilder, authoriser: Any = CAROL, signer: str = "c.example") -> Any:
        content = {"membership": "join", "join_authorised_via_users_server": authoriser}
        signatures = {signer: {"ed25519:1": "AAAA"}} if signer else {}
        return raw_event(room, "m.room.member", BOB, content, BOB, signatures=signatures)

    def test_authorised(self) -> None:
        """Shows AUTH-17."""
        for rule, first in (("restricted", 8), ("knock_restricted", 10)):
            for version in ALL_VERSIONS:
                room = self.room(version, rule)
                if int(version) >= first:
                    self.assert_allowed(room, self.join(room), hint=rule)
                    unauthorised = room.join(BOB, add=False)
                    self.assert_rejected("5.3.5.2", room, unauthorised, hint=rule)
                else:
                    self.assert_rejected("5.3.7", room, self.join(room), hint=rule)

    def test_authoriser_must_be_able_to_invite(self) -> None:
        """Shows AUTH-17."""
        for version in since(8):
            room = self.room(version, level=49)
            self.assert_rejected("5.3.5.2", room, self.join(room))

    def test_authoriser_must_be_in_the_room(self) -> None:
        """Shows AUTH-17."""
        for version in since(8):
            for membership in ("leave", "ban", "invite", "knock"):
                room = self.room(version)
                room.member(CAROL, membership, ALICE if membership == "ban" else CAROL)
                self.assert_rejected("5.3.5.2", room, self.join(room))

    def test_authoriser_s_server_must_have_signed(self) -> None:
        """Shows AUTH-17."""
        for version in since(8):
            room = self.room(version)
            for signer in ("", "b.example", "C.example"):
                self.assert_rejected("5.2.1", room, self.join(room, signer=signer))
            for authoriser in [*JUNK, "carol", "@carol"]:
                self.assert_rejected("5.2.1", room, self.join(room, authoriser))

    def test_signature_is_judged_by_the_caller_if_it_can(self) -> None:
        """A server that has yet to sign vouches for itself; one that verifies says no."""
        for version in since(8):
            room = self.room(version)
            unsigned = self.join(room, signer="")
            self.assert_allowed(room, unsigned, signed_by=lambda server: server == "c.example")
            signed = self.join(room)
            self.assert_rejected("5.2.1", room, signed, signed_by=lambda server: False)

    def test_signature_is_needed_whatever_the_membership(self) -> None:
        for version in ALL_VERSIONS:
            room = self.room(version, "public")
            room.join(BOB)
            content = {"membership": "leave", "join_authorised_via_users_server": CAROL}
            event = room.event("m.room.member", BOB, content, BOB, add=False)
            if int(version) >= 8:
                self.assert_rejected("5.2.1", room, event)
            else:
                self.assert_allowed(room, event)

    def test_invited_and_joined_need_no_authoriser(self) -> None:
        for version in since(8):
            room = self.room(version)
            room.invite(CAROL, BOB)
            self.assert_allowed(room, room.join(BOB, add=False))
            room.join(BOB)
            self.assert_allowed(room, room.join(BOB, {"displayname": "Bob"}, add=False))

    def test_ban_stays_a_ban(self) -> None:
        for version in since(8):
            room = self.room(version)
            room.ban(ALICE, BOB)
            self.assert_rejected("5.3.3", room, self.join(room))


class ThirdPartyInviteTest(RulesTestCase):
    """Alice has invited an e-mail address with the token "abc"; it turns out to be Bob's."""

    KEY = test_key("identity2.example")  # Its base64 has a + and a /.

    def room(self, version: str, content: JsonObject | None = None) -> RoomBuilder:
        room = RoomBuilder.started(version, members=[CAROL], join_rule="invite")
        room.set_state(
            "m.room.third_party_invite",
            {"public_key": self.KEY.public_base64} if content is None else content,
            state_key="abc",
        )
        return room

    def signed(self, key: SigningKey | None = None, **changes: Any) -> JsonObject:
        signed: JsonObject = {"mxid": BOB, "token": "abc", **changes}
        return sign_json(signed, "identity.example", key or self.KEY)

    def invite(self, room: RoomBuilder, signed: Any, sender: str = ALICE, **changes: Any) -> Any:
        content = {
            "membership": "invite",
            "third_party_invite": {"display_name": "b...", "signed": signed},
            **changes,
        }
        return raw_event(room, "m.room.member", sender, content, BOB)

    def test_valid(self) -> None:
        """Shows AUTH-19."""
        for version in ALL_VERSIONS:
            room = self.room(version)
            self.assert_allowed(room, self.invite(room, self.signed()))

    def test_no_membership_or_power_is_needed(self) -> None:
        """It was needed for the third-party invite; the inviter may have left since."""
        for version in ALL_VERSIONS:
            room = self.room(version)
            room.leave(ALICE)
            self.assert_allowed(room, self.invite(room, self.signed()))
            self.assert_rejected("5.4.2", room, room.invite(ALICE, BOB, add=False))

    def test_binding(self) -> None:
        """Same user, same token, same sender, and not banned. Shows AUTH-19."""
        for version in ALL_VERSIONS:
            room = self.room(version)
            self.assert_rejected("5.4.1.4", room, self.invite(room, self.signed(mxid=CAROL)))
            self.assert_rejected("5.4.1.5", room, self.invite(room, self.signed(token="abd")))
            self.assert_rejected("5.4.1.6", room, self.invite(room, self.signed(), CAROL))
            room.ban(ALICE, BOB)
            self.assert_rejected("5.4.1.1", room, self.invite(room, self.signed()))

    def test_signature(self) -> None:
        """Shows AUTH-19."""
        tampered = self.signed()
        tampered["extra"] = 1
        wrong_length = {**self.signed(), "signatures": {"i": {"ed25519:1": "AAAA"}}}
        wrong: list[JsonObject] = [
            tampered,
            wrong_length,
            self.signed(test_key("other.example")),
            {"mxid": BOB, "token": "abc"},
            {"mxid": BOB, "token": "abc", "signatures": {}},
            {"mxid": BOB, "token": "abc", "signatures": {"i": {"rsa:1": "AAAA"}}},
            {"mxid": BOB, "token": "abc", "signatures": {"i": {"ed25519:1": "*"}}},
            {"mxid": BOB, "token": "abc", "signatures": {"i": {"ed25519:1": 5}}},
            {"mxid": BOB, "token": "abc", "signatures": {"i": [5]}},
            {"mxid": BOB, "token": "abc", "signatures": [5]},
        ]
        for version in ALL_VERSIONS:
            room = self.room(version)
            for signed in wrong:
                self.assert_rejected("5.4.1.8", room, self.invite(room, signed), hint=str(signed))

    def test_one_right_signature_is_enough(self) -> None:
        """Shows AUTH-19."""
        signed = sign_json(self.signed(), "other.example", test_key("other.example"))
        for version in ALL_VERSIONS:
            room = self.room(version)
            self.assert_allowed(room, self.invite(room, signed))

    def test_where_keys_are_found(self) -> None:
        """In `public_key` and `public_keys`, in either alphabet. Shows AUTH-19."""
        other = test_key("other.example").public_base64
        mine = self.KEY.public_base64
        padded = mine + "=" * (-len(mine) % 4)
        urlsafe = mine.translate(str.maketrans("+/", "-_"))
        good: list[JsonObject] = [
            {"public_key": padded},
            {"public_key": urlsafe},
            {"public_key": other, "public_keys": [{"public_key": mine}]},
            {"public_keys": [{"public_key": other}, {"public_key": mine}]},
            {
                "public_key": 5,
                "public_keys": [None, 5, {}, {"public_key": []}, {"public_key": mine}],
            },
        ]
        bad: list[JsonObject] = [
            {},
            {"public_key": other},
            {"public_key": mine[:-4]},
            {"public_key": "*"},
            {"public_key": None, "public_keys": {"public_key": mine}},
            {"public_keys": [mine]},
            {"public_keys": mine},
        ]
        for version in ALL_VERSIONS:
            for content in good:
                room = self.room(version, content)
                self.assert_allowed(room, self.invite(room, self.signed()), hint=str(content))
            for content in bad:
                room = self.room(version, content)
                event = self.invite(room, self.signed())
                self.assert_rejected("5.4.1.8", room, event, hint=str(content))

    def test_malformed(self) -> None:
        for version in ALL_VERSIONS:
            room = self.room(version)
            for junk in JUNK:
                event = self.invite(room, None, third_party_invite=junk)
                self.assert_rejected("5.4.1.2", room, event)
                if junk != {}:
                    self.assert_rejected("5.4.1.2", room, self.invite(room, junk))
            for signed in ({}, {"mxid": BOB}, {"token": "abc"}, {"mxid": [BOB], "token": "abc"}):
                self.assert_rejected("5.4.1.3", room, self.invite(room, signed))
            event = self.invite(room, {"mxid": BOB, "token": ["abc"]})
            self.assert_rejected("5.4.1.3", room, event)

    def test_too_many_signatures_are_not_checked(self) -> None:
        signed = self.signed()
        fake = encode_base64(bytes(64))
        for number in range(MAX_SIGNATURE_CHECKS):
            signed["signatures"][f"s{number}"] = {"ed25519:1": fake}
        room = self.room("11")
        self.assert_rejected("5.4.1.8", room, self.invite(room, signed))
