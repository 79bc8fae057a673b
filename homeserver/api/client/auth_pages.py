"""Pages for stages of interactive authentication, for logging in, and behind links of messages
(Client-server API, "Fallback", "Login Fallback").

The pages change nothing when they are only looked at: programs that look into mail follow links.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from homeserver.api.pages import Pages, form_of
from homeserver.core.errors import MatrixError, invalid_param
from homeserver.core.types import JsonObject
from homeserver.users.sso.flow import SingleSignOn
from homeserver.users.stages import (
    DUMMY,
    EMAIL,
    PASSWORD,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    TERMS,
)
from homeserver.users.uia import InteractiveAuth, StageFailed
from homeserver.users.validation import EmailValidation
from homeserver.web.endpoint import Auth, Request, Response, endpoint
from homeserver.web.responses import redirect
from storage.uia_sessions import UiaSessionRow

_PAGES = {
    DUMMY: "stage_dummy.html",
    EMAIL: "stage_email.html",
    PASSWORD: "stage_password.html",
    RECAPTCHA: "stage_recaptcha.html",
    REGISTRATION_TOKEN: "stage_token.html",
    TERMS: "stage_terms.html",
}
_MAX_FORM = 64 * 1024


class CaptchaScript(msgspec.Struct, frozen=True):
    """Where the script of the captcha is; empty without one."""

    url: str = ""


class SessionQuery(msgspec.Struct):
    session: str


class LinkQuery(msgspec.Struct):
    sid: str
    client_secret: str
    token: str


@endpoint("GET", "/_matrix/client/v3/auth/{auth_type}/fallback/web", auth=Auth.NONE, rate="read")
async def get_stage_page(
    auth_type: str, query: SessionQuery, uia: InteractiveAuth, pages: Pages, captcha: CaptchaScript
) -> Response:
    """The page of a stage."""
    try:
        session = await _session(uia, auth_type, query.session)
    except MatrixError as error:
        return pages.error(error)
    if auth_type in session.completed:
        return pages.page("done.html")
    return _form(pages, uia, captcha, auth_type, session.session_id)


@endpoint(
    "POST",
    "/_matrix/client/v3/auth/{auth_type}/fallback/web",
    auth=Auth.NONE,
    rate="login",
    max_body=_MAX_FORM,
)
async def post_stage_page(
    auth_type: str,
    query: SessionQuery,
    request: Request,
    uia: InteractiveAuth,
    pages: Pages,
    captcha: CaptchaScript,
    validation: EmailValidation,
) -> Response:
    """Do a stage with the form of its page."""
    try:
        session = await _session(uia, auth_type, query.session)
        auth = await _auth(auth_type, form_of(request), session, validation)
        await uia.complete_elsewhere(session, auth_type, auth, request.remote_address)
    except StageFailed as failed:
        if failed.pending:
            return pages.page("mail_sent.html")
        return _form(pages, uia, captcha, auth_type, query.session, failed.error, 401)
    except MatrixError as error:
        if error.status == 429:
            raise
        return pages.error(error)
    return pages.page("done.html")


async def _session(uia: InteractiveAuth, auth_type: str, session_id: str) -> UiaSessionRow:
    """Raises MatrixError 400 where there is no such session, or the stage is not one of it."""
    session = await uia.session(session_id)
    if session is None:
        raise invalid_param("This session is unknown or has expired.")
    flows = session.details.get("flows", [])
    if auth_type not in _PAGES or not any(auth_type in flow for flow in flows):
        raise invalid_param("This is no step of what you are doing.")
    return session


async def _auth(
    auth_type: str, form: dict[str, str], session: UiaSessionRow, validation: EmailValidation
) -> JsonObject:
    """What a form says, as the `auth` of a client. Raises MatrixError."""
    if auth_type == RECAPTCHA:
        given = form.get("g-recaptcha-response", form.get("h-captcha-response", ""))
        return {"response": given}
    if auth_type == REGISTRATION_TOKEN:
        return {"token": form.get("token", "").strip()}
    if auth_type == PASSWORD:
        return {"password": form.get("password", "")}
    if auth_type == EMAIL:
        purpose = session.details.get("email_for")
        if not isinstance(purpose, str):
            raise invalid_param("An e-mail address proves nothing here.")
        secret = secrets.token_hex(16)
        sid = await validation.request(purpose, form.get("email", "").strip(), secret, 1)
        return {"threepid_creds": {"sid": sid, "client_secret": secret}}
    return {}


def _form(
    pages: Pages,
    uia: InteractiveAuth,
    captcha: CaptchaScript,
    auth_type: str,
    session_id: str,
    error: str = "",
    status: int = 200,
) -> Response:
    params: dict[str, Any] = uia.params_of(auth_type) or {}
    return pages.page(
        _PAGES[auth_type],
        status,
        captcha=auth_type == RECAPTCHA,
        session=session_id,
        error=error,
        site_key=params.get("public_key", ""),
        policies=_texts(params.get("policies", {})),
        script=captcha.url,
    )


def _texts(policies: JsonObject) -> list[dict[str, str]]:
    """All texts of the documents to accept."""
    return [
        text
        for policy in policies.values()
        for language, text in policy.items()
        if language != "version"
    ]


@endpoint("GET", "/_matrix/static/client/email/validate", auth=Auth.NONE, rate="read")
async def get_link(query: LinkQuery, pages: Pages) -> Response:
    """The page behind the link of a message: a button, since looking must change nothing."""
    return pages.page(
        "confirm_email.html",
        sid=query.sid,
        client_secret=query.client_secret,
        token=query.token,
    )


@endpoint(
    "POST",
    "/_matrix/static/client/email/validate",
    auth=Auth.NONE,
    rate="login",
    max_body=_MAX_FORM,
)
async def post_link(request: Request, validation: EmailValidation, pages: Pages) -> Response:
    """The button on the page behind the link of a message."""
    try:
        form = form_of(request)
        values = [form.get(name, "") for name in ("sid", "client_secret", "token")]
        session = await validation.submit(*values)
    except MatrixError as error:
        return pages.error(error)
    if session.next_link is not None:
        return redirect(session.next_link)
    return pages.page("email_confirmed.html")


@endpoint("GET", "/_matrix/static/client/login/", auth=Auth.NONE, rate="read")
async def get_login_page(pages: Pages, sso: SingleSignOn) -> Response:
    """A page that logs in with a password, or elsewhere, and hands the answer to the client."""
    return pages.page("login.html", providers=list(sso.providers.values()))


ENDPOINTS = [
    get_stage_page,
    post_stage_page,
    get_link,
    post_link,
    get_login_page,
]
