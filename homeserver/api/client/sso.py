"""Single sign-on in the browser (Client-server API, "SSO client login/authentication").

The browser holds one secret in a cookie; whatever is asked in its name must come with it. Forms
are sent with a secret of their own besides, and the cookie is not sent with forms of other sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

import msgspec

from homeserver.api.pages import Pages, form_of
from homeserver.core.errors import MatrixError, invalid_param, missing_param
from homeserver.core.types import JsonObject
from homeserver.users.sso import redirects
from homeserver.users.sso.flow import (
    AskedAboutClient,
    AskedForName,
    SentBack,
    SentThere,
    SingleSignOn,
    Step,
)
from homeserver.users.stages import SSO
from homeserver.users.uia import InteractiveAuth
from homeserver.web.endpoint import Auth, Request, Response, endpoint
from homeserver.web.responses import redirect

COOKIE = "hearth_sso"
CALLBACK = "_matrix/static/client/sso/callback"
"""Below public_base_url."""

_MAX_FORM = 64 * 1024
_MAX_FIELDS = 50


@dataclass(frozen=True, slots=True)
class SsoPages:
    """`secure`: the server is reached by HTTPS. `policies`: documents that people accept."""

    secure: bool
    policies: JsonObject


class RedirectQuery(msgspec.Struct):
    redirectUrl: str
    action: Literal["login", "register"] | None = None


class SessionQuery(msgspec.Struct):
    session: str


@endpoint("GET", "/_matrix/client/v3/login/sso/redirect", auth=Auth.NONE, rate="login")
async def get_sso_redirect(
    query: RedirectQuery, request: Request, sso: SingleSignOn, pages: Pages, settings: SsoPages
) -> Response:
    """To the provider, or to a page where one is chosen."""
    if len(sso.providers) == 1:
        [only] = sso.providers
        return await _begin(only, query, request, sso, pages, settings)
    try:
        if not sso.providers:
            raise invalid_param("There is no single sign-on on this homeserver.")
        target = redirects.checked(query.redirectUrl)
    except MatrixError as error:
        return pages.error(error)
    return pages.page(
        "sso_choose.html",
        providers=list(sso.providers.values()),
        client=redirects.shown(target),
        redirect_url=target,
        action=query.action or "",
    )


@endpoint("GET", "/_matrix/client/v3/login/sso/redirect/{idp_id}", auth=Auth.NONE, rate="login")
async def get_sso_redirect_to(
    idp_id: str,
    query: RedirectQuery,
    request: Request,
    sso: SingleSignOn,
    pages: Pages,
    settings: SsoPages,
) -> Response:
    """To a provider."""
    return await _begin(idp_id, query, request, sso, pages, settings)


async def _begin(
    provider_id: str,
    query: RedirectQuery,
    request: Request,
    sso: SingleSignOn,
    pages: Pages,
    settings: SsoPages,
) -> Response:
    try:
        sent = await sso.begin(
            provider_id,
            query.redirectUrl,
            _browser(request),
            register=query.action == "register",
        )
    except MatrixError as error:
        return pages.error(error)
    return _sent(sent, settings)


@endpoint("GET", f"/{CALLBACK}", auth=Auth.NONE, rate="read")
async def get_sso_callback(
    request: Request, sso: SingleSignOn, pages: Pages, settings: SsoPages
) -> Response:
    """Back from a provider."""
    try:
        step = await sso.returned(_fields(request), _browser(request))
    except MatrixError as error:
        return pages.error(error)
    return _render(step, pages, settings)


@endpoint(
    "POST",
    "/_matrix/static/client/sso/name",
    auth=Auth.NONE,
    rate="login",
    max_body=_MAX_FORM,
)
async def post_sso_name(
    request: Request, sso: SingleSignOn, pages: Pages, settings: SsoPages
) -> Response:
    """The name of a new account was chosen."""
    try:
        form = form_of(request)
        accepted = form.get("accept") == "yes"
        localpart = form.get("localpart", "")
        session = form.get("session", "")
        step = await sso.name(session, _browser(request), localpart, accepted=accepted)
    except MatrixError as error:
        return pages.error(error)
    return _render(step, pages, settings)


@endpoint(
    "POST",
    "/_matrix/static/client/sso/confirm",
    auth=Auth.NONE,
    rate="read",
    max_body=_MAX_FORM,
)
async def post_sso_confirm(
    request: Request, sso: SingleSignOn, pages: Pages, settings: SsoPages
) -> Response:
    """The login is to be handed to the client."""
    try:
        step = await sso.confirm(form_of(request).get("session", ""), _browser(request))
    except MatrixError as error:
        return pages.error(error)
    return _render(step, pages, settings)


@endpoint("GET", "/_matrix/client/v3/auth/m.login.sso/fallback/web", auth=Auth.NONE, rate="read")
async def get_sso_stage(
    query: SessionQuery, sso: SingleSignOn, uia: InteractiveAuth, pages: Pages
) -> Response:
    """The page of the stage of interactive authentication."""
    try:
        user_id, done = await _stage(uia, query.session)
        there = await sso.providers_of(user_id)
    except MatrixError as error:
        return pages.error(error)
    if done:
        return pages.page("done.html")
    return pages.page("sso_stage.html", session=query.session, user_id=user_id, providers=there)


@endpoint(
    "POST",
    "/_matrix/client/v3/auth/m.login.sso/fallback/web",
    auth=Auth.NONE,
    rate="login",
    max_body=_MAX_FORM,
)
async def post_sso_stage(
    query: SessionQuery,
    request: Request,
    sso: SingleSignOn,
    uia: InteractiveAuth,
    pages: Pages,
    settings: SsoPages,
) -> Response:
    """Somebody wants to prove again who they are."""
    try:
        user_id, done = await _stage(uia, query.session)
        if done:
            return pages.page("done.html")
        provider = form_of(request).get("provider", "")
        sent = await sso.begin_stage(provider, query.session, user_id, _browser(request))
    except MatrixError as error:
        return pages.error(error)
    return _sent(sent, settings)


async def _stage(uia: InteractiveAuth, session_id: str) -> tuple[str, bool]:
    """Whose stage it is, and whether it is done. Raises MatrixError 400 M_INVALID_PARAM."""
    session = await uia.session(session_id)
    if session is None:
        raise invalid_param("This session is unknown or has expired.")
    user_id = session.details.get("user_id")
    flows = session.details.get("flows", [])
    if not any(SSO in flow for flow in flows) or not isinstance(user_id, str):
        raise invalid_param("This is no step of what you are doing.")
    return user_id, SSO in session.completed


def _render(step: Step, pages: Pages, settings: SsoPages) -> Response:
    if isinstance(step, SentBack):
        return _redirect(step.url)
    if isinstance(step, AskedForName):
        return pages.page(
            "sso_name.html",
            session=step.session,
            provider=step.provider,
            localpart=step.localpart,
            fixed=step.fixed,
            suggestion=step.suggestion,
            error=step.error,
            policies=_texts(settings.policies),
        )
    if isinstance(step, AskedAboutClient):
        return pages.page(
            "sso_confirm.html", session=step.session, client=step.client, user_id=step.user_id
        )
    return pages.page("done.html")


def _texts(policies: JsonObject) -> list[dict[str, str]]:
    return [
        text
        for policy in policies.values()
        for language, text in policy.items()
        if language != "version"
    ]


def _sent(sent: SentThere, settings: SsoPages) -> Response:
    answer = _redirect(sent.url)
    secure = "; Secure" if settings.secure else ""
    # Lax: the provider sends people back with a GET of another site.
    answer.headers["Set-Cookie"] = (
        f"{COOKIE}={sent.browser}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax{secure}"
    )
    return answer


def _redirect(url: str) -> Response:
    answer = redirect(url)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _browser(request: Request) -> str | None:
    """The secret in the cookie."""
    for each in (request.header("cookie") or "").replace(",", ";").split(";"):
        name, _, value = each.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def _fields(request: Request) -> dict[str, str]:
    """What stands in the query; of repeated fields the first counts."""
    try:
        pairs = parse_qsl(request.raw_query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise invalid_param("The provider sent too much.") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    if not fields:
        raise missing_param("state")
    return fields


ENDPOINTS = [
    get_sso_redirect,
    get_sso_redirect_to,
    get_sso_callback,
    post_sso_name,
    post_sso_confirm,
    get_sso_stage,
    post_sso_stage,
]
