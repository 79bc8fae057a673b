"""The signature of an endpoint's function: read once at start-up, compiled, and described."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from homeserver.core.ids import ServerName
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import Auth, EndpointDeclaration, template_parameters
from homeserver.web.request import Request, Requester
from homeserver.web.responses import RawJson, Response
from homeserver.web.schema import BodyDecoder, QueryDecoder, json_schema, path_converter

_NOT_JSON_TYPES = (Response, RawJson, type(None))
_UNSET: Any = object()


@dataclass(frozen=True, slots=True)
class Signature:
    """What the function of an endpoint takes and gives, by kind of parameter."""

    path: Mapping[str, Any]
    body: Any
    query: Any
    services: Mapping[str, Any]
    wants_requester: bool
    wants_origin: bool
    wants_request: bool
    response: Any
    """The type of the JSON answer; None where it is not JSON or not declared."""


def read_signature(declaration: EndpointDeclaration) -> Signature:
    """Sort the parameters of a declared function. Raises TypeError when they make no sense."""
    function = declaration.function
    where = f"{declaration.method} {declaration.path} ({declaration.name})"
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{where}: {error}; import annotated types at run time") from error
    parameters = inspect.signature(function).parameters
    in_path = template_parameters(declaration.path)
    _check_templates(declaration, parameters, where)
    path: dict[str, Any] = {}
    services: dict[str, Any] = {}
    special: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{where}: variable parameters are not supported")
        if name not in hints:
            raise TypeError(f"{where}: {name} has no type")
        if name in in_path:
            path[name] = hints[name]
        elif name in ("body", "query", "request", "requester", "origin"):
            special[name] = hints[name]
        else:
            services[name] = hints[name]
    _check_special(declaration, special, where)
    return Signature(
        path=path,
        body=special.get("body"),
        query=special.get("query"),
        services=services,
        wants_requester="requester" in special,
        wants_origin="origin" in special,
        wants_request="request" in special,
        response=_response_type(declaration, hints.get("return", _UNSET), where),
    )


def _check_templates(
    declaration: EndpointDeclaration, parameters: Mapping[str, inspect.Parameter], where: str
) -> None:
    in_path = set(template_parameters(declaration.path))
    for template in declaration.paths:
        names = set(template_parameters(template))
        if names - in_path:
            raise TypeError(f"{where}: {template} has parameters that the main path has not")
        for name in in_path - names:
            if name in parameters and parameters[name].default is inspect.Parameter.empty:
                raise TypeError(f"{where}: {name} is not in {template} and has no default")
    unknown = in_path - set(parameters)
    if unknown:
        raise TypeError(f"{where}: the function does not take {', '.join(sorted(unknown))}")


def _check_special(declaration: EndpointDeclaration, special: dict[str, Any], where: str) -> None:
    requester = special.get("requester", _UNSET)
    if requester is not _UNSET:
        optional = declaration.auth is Auth.OPTIONAL_ACCESS_TOKEN
        if declaration.auth in (Auth.NONE, Auth.FEDERATION):
            raise TypeError(f"{where}: no requester is known with {declaration.auth}")
        if optional != (set(get_args(requester)) == {Requester, type(None)}):
            raise TypeError(f"{where}: requester must be `Requester | None` just when optional")
        if not optional and requester is not Requester:
            raise TypeError(f"{where}: requester must be of type Requester")
    if "origin" in special and (
        declaration.auth is not Auth.FEDERATION or special["origin"] is not ServerName
    ):
        raise TypeError(f"{where}: origin is the ServerName of a federation request")
    if special.get("request", Request) is not Request:
        raise TypeError(f"{where}: request must be of type Request")
    if "body" in special and (declaration.stream_body or declaration.method in ("GET", "HEAD")):
        raise TypeError(f"{where}: no body is read here")
    if declaration.stream_body and "request" not in special:
        raise TypeError(f"{where}: a streamed body is read from the request")


def _response_type(declaration: EndpointDeclaration, annotation: Any, where: str) -> Any:
    if annotation is _UNSET:
        raise TypeError(f"{where}: the return type is not annotated")
    if declaration.returns is not None:
        return declaration.returns
    if get_origin(annotation) in (Union, UnionType):
        parts = tuple(part for part in get_args(annotation) if part not in _NOT_JSON_TYPES)
        return reduce(or_, parts) if parts else None
    return None if annotation in _NOT_JSON_TYPES else annotation


class _Compiled:
    """What is read from the declaration of an endpoint alone: the same for every server."""

    __slots__ = ("body", "path", "query", "signature")

    def __init__(self, declaration: EndpointDeclaration) -> None:
        signature = read_signature(declaration)
        self.signature = signature
        self.path = tuple((name, path_converter(name, k)) for name, k in signature.path.items())
        self.query = None if signature.query is None else QueryDecoder(signature.query)
        self.body = (
            None
            if signature.body is None
            else BodyDecoder(
                signature.body,
                optional=declaration.optional_body,
                lenient=declaration.lenient_json,
                strict=declaration.strict_json,
            )
        )


_compiled = lru_cache(1024)(_Compiled)
"""More than there are endpoints: a process with many servers, as tests are, reads them once."""


class Caller:
    """Turns a request into the arguments of one endpoint's function."""

    __slots__ = (
        "_body",
        "_constants",
        "_path",
        "_query",
        "_signature",
        "function",
    )

    def __init__(self, declaration: EndpointDeclaration, services: Mapping[Any, Any]) -> None:
        """Raises TypeError for a signature that makes no sense, LookupError for a service that
        is not in `services` (type to instance)."""
        compiled = _compiled(declaration)
        self.function: Callable[..., Awaitable[object]] = declaration.function
        self._signature = compiled.signature
        self._path, self._query, self._body = compiled.path, compiled.query, compiled.body
        self._constants: dict[str, Any] = {}
        for name, kind in compiled.signature.services.items():
            if kind not in services:
                raise LookupError(f"{declaration.name}: no service of type {kind!r} for {name}")
            self._constants[name] = services[kind]

    def arguments(
        self,
        request: Request,
        segments: Mapping[str, str],
        requester: Requester | None,
        origin: ServerName | None,
    ) -> dict[str, Any]:
        """The arguments for a call. `segments`: path parameters, decoded. Raises MatrixError."""
        arguments = self._constants.copy()
        for name, convert in self._path:
            if name in segments:
                arguments[name] = convert(segments[name])
        signature = self._signature
        if signature.wants_requester:
            arguments["requester"] = requester
        if signature.wants_origin:
            arguments["origin"] = origin
        if signature.wants_request:
            arguments["request"] = request
        if self._query is not None:
            arguments["query"] = self._query.decode(request.raw_query)
        if self._body is not None:
            arguments["body"] = self._body.decode(request.body, request.parsed)
        return arguments


@dataclass(frozen=True, slots=True)
class Description:
    """What documentation and generated tests need to know of an endpoint."""

    name: str
    summary: str
    method: str
    paths: tuple[str, ...]
    auth: Auth
    rate: str | None
    path_parameters: Mapping[str, Any]
    body: Any
    query: Any
    response: Any
    optional_body: bool

    def as_json(self) -> JsonObject:
        """The description with JSON Schemas instead of types."""
        schemas = {
            part: json_schema(kind)
            for part, kind in (
                ("body", self.body),
                ("query", self.query),
            )
            if kind is not None
        }
        answers = [json_schema(kind) for kind in alternatives(self.response)]
        if answers:
            schemas["response"] = answers[0] if len(answers) == 1 else {"anyOf": answers}
        return {
            "name": self.name,
            "summary": self.summary,
            "method": self.method,
            "paths": list(self.paths),
            "auth": self.auth.value,
            "rate": self.rate,
            "optional_body": self.optional_body,
            "path_parameters": {name: json_schema(t) for name, t in self.path_parameters.items()},
            **schemas,
        }


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of which an answer must fit one: the parts of a union, none for None.

    msgspec takes no union of several structs, since it could not tell them apart when decoding.
    """
    if kind is None:
        return ()
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def describe(declaration: EndpointDeclaration) -> Description:
    """The types of an endpoint, without building it. Raises TypeError for a bad signature."""
    signature = read_signature(declaration)
    summary = (declaration.function.__doc__ or "").strip().split("\n", 1)[0]
    return Description(
        name=declaration.name,
        summary=summary,
        method=declaration.method,
        paths=declaration.paths,
        auth=declaration.auth,
        rate=declaration.rate,
        path_parameters=signature.path,
        body=signature.body,
        query=signature.query,
        response=signature.response,
        optional_body=declaration.optional_body,
    )
