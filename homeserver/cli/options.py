"""What several commands share: the configuration option and how failures are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from config import Config, ConfigError
from config import load as load_file

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """The command could not be carried out; the message says why."""

    exit_code = 1


class WrongConfig(click.ClickException):
    """The configuration cannot be used."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the configuration cannot be used.\n" + "\n".join(problems))


def config_option(function: F) -> F:
    """Add `-c FILE`."""
    add: Callable[[F], F] = click.option(
        "-c",
        "--config",
        "config_file",
        metavar="FILE",
        default="config.yaml",
        show_default=True,
        help="The configuration file.",
    )
    return add(function)


def load_config(path: str) -> Config:
    """Read the configuration file. Raises WrongConfig."""
    try:
        return load_file(path)
    except ConfigError as error:
        raise WrongConfig(error.problems) from None
