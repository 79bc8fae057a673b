"""E-mail addresses and telephone numbers: asking for proofs, adding, publishing (Client-server
API, "Adding Account Administrative Contact Information")."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core.errors import invalid_param, missing_param
from homeserver.core.types import JsonObject
from homeserver.users.contacts import Contacts
from homeserver.users.registration import Registration
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.users.validation import (
    ADD,
    PASSWORD,
    REGISTER,
    EmailValidation,
    credentials,
    medium_not_supported,
)
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint

Medium = Literal["email", "msisdn"]
Address = Annotated[str, msgspec.Meta(max_length=512)]


class EmailBody(msgspec.Struct):
    client_secret: str
    email: str
    send_attempt: int
    next_link: str | None = None


class PhoneBody(msgspec.Struct):
    client_secret: str
    country: str
    phone_number: str
    send_attempt: int


class SessionAnswer(msgspec.Struct):
    sid: str


class Contact(msgspec.Struct):
    medium: Medium
    address: str
    validated_at: int
    added_at: int


class ContactsAnswer(msgspec.Struct):
    threepids: list[Contact]


class AddBody(msgspec.Struct):
    client_secret: str
    sid: str
    auth: JsonObject | None = None


class BindBody(msgspec.Struct):
    client_secret: str
    id_server: str
    id_access_token: str
    sid: str


class OldBody(msgspec.Struct):
    three_pid_creds: BindBody | None = None
    threePidCreds: BindBody | None = None  # clients of old versions write it so


class RemoveBody(msgspec.Struct):
    medium: Medium
    address: Address
    id_server: str | None = None


class RemoveAnswer(msgspec.Struct):
    id_server_unbind_result: Literal["success", "no-support"]


async def _send(purpose: str, body: EmailBody, validation: EmailValidation) -> SessionAnswer:
    link = body.next_link or None
    sid = await validation.request(purpose, body.email, body.client_secret, body.send_attempt, link)
    return SessionAnswer(sid)


@endpoint("POST", "/_matrix/client/v3/register/email/requestToken", auth=Auth.NONE, rate="email")
async def request_registration_email(
    body: EmailBody, registration: Registration, validation: EmailValidation
) -> SessionAnswer:
    """Send a message to an address that a new account is to have."""
    registration.check_open()
    return await _send(REGISTER, body, validation)


@endpoint(
    "POST", "/_matrix/client/v3/account/password/email/requestToken", auth=Auth.NONE, rate="email"
)
async def request_password_email(body: EmailBody, validation: EmailValidation) -> SessionAnswer:
    """Send a message to the address of an account whose password is forgotten."""
    return await _send(PASSWORD, body, validation)


@endpoint(
    "POST", "/_matrix/client/v3/account/3pid/email/requestToken", auth=Auth.NONE, rate="email"
)
async def request_contact_email(body: EmailBody, validation: EmailValidation) -> SessionAnswer:
    """Send a message to an address that is to be added to an account."""
    return await _send(ADD, body, validation)


@endpoint("POST", "/_matrix/client/v3/register/msisdn/requestToken", auth=Auth.NONE, rate="email")
async def request_registration_phone(body: PhoneBody) -> SessionAnswer:
    """This server sends no text messages."""
    raise _no_phones()


@endpoint(
    "POST", "/_matrix/client/v3/account/password/msisdn/requestToken", auth=Auth.NONE, rate="email"
)
async def request_password_phone(body: PhoneBody) -> SessionAnswer:
    """This server sends no text messages."""
    raise _no_phones()


@endpoint(
    "POST", "/_matrix/client/v3/account/3pid/msisdn/requestToken", auth=Auth.NONE, rate="email"
)
async def request_contact_phone(body: PhoneBody) -> SessionAnswer:
    """This server sends no text messages."""
    raise _no_phones()


def _no_phones() -> Exception:
    return medium_not_supported("This server proves no telephone numbers.")


@endpoint("GET", "/_matrix/client/v3/account/3pid", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_contacts(requester: Requester, contacts: Contacts) -> ContactsAnswer:
    """The addresses of the requester's account."""
    return ContactsAnswer(
        [
            Contact("msisdn" if row.medium == "msisdn" else "email", *row[1:])
            for row in await contacts.of_user(requester.user_id)
        ]
    )


@endpoint(
    "POST",
    "/_matrix/client/v3/account/3pid/add",
    auth=Auth.ACCESS_TOKEN,
    rate="login",
    also=("/_matrix/client/unstable/account/3pid/add",),
)
async def add_contact(
    requester: Requester,
    body: AddBody,
    request: Request,
    uia: InteractiveAuth,
    contacts: Contacts,
) -> Empty:
    """Add an address that the requester has proved to be theirs."""
    sid, secret = credentials({"sid": body.sid, "client_secret": body.client_secret}, "session")
    await contacts.check_proved(sid, secret)
    told = {"sid": sid, "client_secret": secret}
    confirmed = await uia.confirm_owner(Operation(request, requester, body.auth, told))
    await contacts.add(requester.user_id, sid, secret, confirmed)
    return EMPTY


@endpoint(
    "POST",
    "/_matrix/client/v3/account/3pid/bind",
    auth=Auth.ACCESS_TOKEN,
    rate="login",
    also=("/_matrix/client/unstable/account/3pid/bind",),
)
async def bind_contact(requester: Requester, body: BindBody, contacts: Contacts) -> Empty:
    """Have an address published by an identity server."""
    sid, secret = credentials({"sid": body.sid, "client_secret": body.client_secret}, "session")
    if not 0 < len(body.id_access_token) <= 4_096:
        raise invalid_param("id_access_token is not valid.")
    await contacts.bind(requester.user_id, body.id_server, body.id_access_token, sid, secret)
    return EMPTY


@endpoint("POST", "/_matrix/client/v3/account/3pid", auth=Auth.ACCESS_TOKEN, rate="login")
async def old_bind_contact(requester: Requester, body: OldBody, contacts: Contacts) -> Empty:
    """`bind_contact` in its deprecated form."""
    given = body.three_pid_creds or body.threePidCreds
    if given is None:
        raise missing_param("three_pid_creds")
    return await bind_contact(requester, given, contacts)


@endpoint("POST", "/_matrix/client/v3/account/3pid/delete", auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_contact(
    requester: Requester, body: RemoveBody, contacts: Contacts
) -> RemoveAnswer:
    """Take an address from the requester's account, and have it withdrawn where published."""
    done = await contacts.delete(requester.user_id, body.medium, body.address, body.id_server)
    return RemoveAnswer("success" if done else "no-support")


@endpoint(
    "POST",
    "/_matrix/client/v3/account/3pid/unbind",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=("/_matrix/client/unstable/account/3pid/unbind",),
)
async def unbind_contact(
    requester: Requester, body: RemoveBody, contacts: Contacts
) -> RemoveAnswer:
    """Have an address withdrawn by an identity server; the account keeps it."""
    done = await contacts.unbind(requester.user_id, body.medium, body.address, body.id_server)
    return RemoveAnswer("success" if done else "no-support")


ENDPOINTS = [
    request_registration_email,
    request_password_email,
    request_contact_email,
    request_registration_phone,
    request_password_phone,
    request_contact_phone,
    get_contacts,
    add_contact,
    bind_contact,
    old_bind_contact,
    delete_contact,
    unbind_contact,
]
