"""`hearth config`: write and check configuration files."""

from __future__ import annotations

import json

import click

import config
from config.sample import sample
from config.schema import schema
from homeserver.cli.options import Failure, WrongConfig, config_option, load_config


@click.group("config")
def config_group() -> None:
    """Write and check configuration files."""


@config_group.command("new")
@click.option("--server-name", metavar="NAME", required=True, help="The name of the new server.")
@click.option("-o", "--output", metavar="FILE", help="Write here instead of standard output.")
def new(server_name: str, output: str | None) -> None:
    """Write a commented configuration for a new server."""
    try:
        config.from_dict({"server_name": server_name})
    except config.ConfigError as error:
        raise WrongConfig(error.problems) from None
    text = sample(server_name)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Failure(f"{output} exists; it is left as it is.") from None
    except OSError as error:
        raise Failure(f"Cannot write {output}: {error.strerror}.") from None
    click.echo(f"Wrote {output}.")


@config_group.command("check")
@config_option
def check(config_file: str) -> None:
    """Tell whether a configuration file is right."""
    loaded = load_config(config_file)
    from homeserver.bridging import load_registrations
    from homeserver.startup import CannotStart

    try:
        load_registrations(loaded)
    except CannotStart as error:
        raise Failure(str(error)) from None
    for key in config.not_yet_used(loaded):
        click.echo(f"{config_file}: {key}: not used yet by this version")
    for doubt in config.doubts(loaded):
        click.echo(f"{config_file}: {doubt}")
    click.echo(f"{config_file} is right: it is the configuration of {loaded.server_name}.")


@config_group.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    click.echo(json.dumps(schema(), indent=2))
