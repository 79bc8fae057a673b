"""Read a configuration file and say clearly what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from config.convert import Converter, KeyPath, dotted
from config.describe import is_section, options_of
from config.model import Config


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are lines for the operator."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(path: str | Path) -> Config:
    """Read a YAML file.

    Raises ConfigError: the file cannot be read, is not YAML, or has unknown keys or wrong values.
    Each problem names the key and its line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            [f"{file}: no such file. Make one: hearth config new --server-name NAME -o {file}"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: is not UTF-8 text"]) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{file}:{line}: is not YAML: {error.problem}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{file}: is not YAML: {error}"]) from None
    lines: dict[KeyPath, int] = {(): 1}
    repeated: list[KeyPath] = []
    if root is not None:
        _note_lines(root, (), lines, repeated)
    problems: list[tuple[KeyPath, str]] = [(each, "is there twice") for each in repeated]
    return _build(data, file.absolute().parent, problems, lines=lines, file=file)


def from_dict(data: Mapping[str, Any], directory: str | Path = ".") -> Config:
    """Build a configuration from plain values, as YAML would give them.

    Parameters: `directory` is what relative paths start from. Raises ConfigError.
    """
    return _build(dict(data), Path(directory).absolute(), [], lines={}, file=None)


def _build(
    data: Any,
    directory: Path,
    problems: list[tuple[KeyPath, str]],
    *,
    lines: Mapping[KeyPath, int],
    file: Path | None,
) -> Config:
    converter = Converter(directory, Config, problems)
    config = converter.section(Config, data)
    if not problems:
        problems.extend(_check_whole(config))
    if problems:
        raise ConfigError([_describe(path, wrong, lines, file) for path, wrong in problems])
    return _resolve(config, directory)


def _describe(path: KeyPath, wrong: str, lines: Mapping[KeyPath, int], file: Path | None) -> str:
    name = f"{dotted(path)}: " if path else ""
    if file is None:
        return name + wrong
    known = path
    while known not in lines:
        known = known[:-1]
    return f"{file}:{lines[known]}: {name}{wrong}"


def _note_lines(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], repeated: list[KeyPath]
) -> None:
    """Note the line of every key and list item, and keys that are there twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, key.value)
            if inner in lines:
                repeated.append(inner)
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*path, index)
            lines[inner] = value.start_mark.line + 1
            _note_lines(value, inner, lines, repeated)


def _check_whole(config: Config) -> list[tuple[KeyPath, str]]:
    """Rules that concern more than one option."""
    problems: list[tuple[KeyPath, str]] = []
    if not config.listeners:
        problems.append((("listeners",), "at least one listener is needed"))
    seen: set[tuple[str, int]] = set()
    for index, listener in enumerate(config.listeners):
        where = (listener.address, listener.port)
        if listener.port and where in seen:
            problems.append(
                (("listeners", index), f"{where[0]} port {where[1]} is used by another listener")
            )
        seen.add(where)
    registration = config.registration
    if config.email is not None and config.public_base_url is None:
        problems.append((("email",), "needs public_base_url, where links in messages lead"))
    if registration.require_email and config.email is None:
        problems.append((("registration", "require_email"), "needs the email section"))
    scan = config.media.scan
    if scan is not None and bool(scan.command) == bool(scan.url):
        problems.append((("media", "scan"), "needs one of command and url"))
    problems.extend(_check_sso(config))
    problems.extend(_check_retention(config))
    for index, terms in enumerate(registration.terms):
        path: KeyPath = ("registration", "terms", index)
        if not terms.texts:
            problems.append((path, "has no text"))
        if terms.name in {earlier.name for earlier in registration.terms[:index]}:
            problems.append((path, f"{terms.name} is there twice"))
    return problems


def _check_retention(config: Config) -> list[tuple[KeyPath, str]]:
    wanted, section = config.message_retention, "message_retention"
    problems: list[tuple[KeyPath, str]] = [
        ((section, name), "is more than longest")
        for name in ("max_lifetime", "min_lifetime")
        if _is_less(wanted.longest, getattr(wanted, name))
    ]
    if _is_less(wanted.longest, wanted.shortest):
        problems.append(((section, "longest"), "is less than shortest"))
    least = wanted.min_lifetime if wanted.min_lifetime is not None else wanted.shortest
    if _is_less(wanted.max_lifetime, least):
        problems.append(((section, "max_lifetime"), "is less than min_lifetime or shortest"))
    return problems


def _is_less(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one < other


def _check_sso(config: Config) -> list[tuple[KeyPath, str]]:
    problems: list[tuple[KeyPath, str]] = []
    providers = config.sso.providers
    if config.cas is not None and config.public_base_url is None:
        problems.append((("cas",), "needs public_base_url, where people come back to"))
    if providers and config.public_base_url is None:
        problems.append((("sso", "providers"), "needs public_base_url, where people come back to"))
    for index, provider in enumerate(providers):
        path: KeyPath = ("sso", "providers", index)
        if provider.id in {earlier.id for earlier in providers[:index]}:
            problems.append(((*path, "id"), f"{provider.id} is there twice"))
        if config.cas is not None and provider.id == config.cas.id:
            problems.append(((*path, "id"), f"{provider.id} is the CAS server's"))
        if "openid" not in provider.scopes:
            problems.append(((*path, "scopes"), "must hold openid"))
    return problems


def _resolve(config: Config, directory: Path) -> Config:
    """Fill in what depends on other options, and make relative paths absolute."""
    url = config.database.url
    if url is None:
        url = f"sqlite:///{config.data_directory / 'homeserver.db'}"
    elif url.startswith("sqlite:///"):
        url = f"sqlite:///{directory / url.removeprefix('sqlite:///')}"
    database = dataclasses.replace(config.database, url=url)
    log = config.log
    if log.to != "stderr":
        log = dataclasses.replace(log, to=str(directory / Path(log.to).expanduser()))
    base_url = config.public_base_url
    if base_url is not None and not base_url.endswith("/"):
        base_url += "/"
    return dataclasses.replace(config, database=database, log=log, public_base_url=base_url)


def not_yet_used(config: Config) -> list[str]:
    """The keys that are set to something other than their default, but that nothing reads yet."""
    default = from_dict({"server_name": config.server_name}, directory="/")
    found: list[str] = []
    _collect_not_yet(config, default, "", found)
    return found


def doubts(config: Config) -> list[str]:
    """What is allowed but most likely not meant, a sentence each."""
    registration = config.registration
    found: list[str] = []
    verified = registration.require_token or config.email or config.recaptcha
    if registration.enabled and not (registration.without_verification or verified):
        found.append(
            "registration.enabled: nobody can register all the same, unless "
            "registration.without_verification is set too"
        )
    if config.email is not None and config.email.tls == "none":
        found.append("email.tls: messages, with links to new passwords, go out unencrypted")
    return found


def _collect_not_yet(section: Any, default: Any, prefix: str, found: list[str]) -> None:
    model: type = type(section)
    for option in options_of(model).values():
        value = getattr(section, option.attribute)
        standard = getattr(default, option.attribute)
        if option.notes.not_yet:
            if value != standard:
                found.append(prefix + option.name)
        elif is_section(type(value)) and standard is not None:
            _collect_not_yet(value, standard, f"{prefix}{option.name}.", found)
