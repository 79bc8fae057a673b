"""`hearth run`."""

from __future__ import annotations

import sys

import click

from config import Config
from homeserver.cli.options import Failure, WrongConfig, config_option, load_config


@click.command()
@config_option
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Identical processes to run; more than one needs PostgreSQL and Redis.",
)
@click.option("--process", type=click.IntRange(0), hidden=True, help="Which one this is.")
def run(config_file: str, processes: int, process: int | None) -> None:
    """Run the server until it is told to stop (SIGTERM, or control-C)."""
    config = load_config(config_file)
    if processes > 1:
        _check_shared(config, config_file)
        if process is None:
            sys.exit(_supervise(config, processes))
    from homeserver.server import run_server

    sys.exit(run_server(config, process=process or 0, processes=processes))


def _check_shared(config: Config, config_file: str) -> None:
    problems = []
    if config.database.is_sqlite:
        problems.append(
            f"{config_file}: database.url: several processes need PostgreSQL; "
            "SQLite serves one process only"
        )
    if config.redis is None:
        problems.append(f"{config_file}: redis.url: several processes need Redis")
    if problems:
        raise WrongConfig(problems)


def _supervise(config: Config, processes: int) -> int:
    from homeserver.listening import check_ports
    from homeserver.startup import CannotStart
    from homeserver.supervisor import Supervisor
    from homeserver.telemetry.logs import make_logger, open_output

    try:
        check_ports(config.listeners, processes)
        output = open_output(config.log)
    except CannotStart as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"Cannot write the log {config.log.to}: {error.strerror}.") from None
    # The same command for each: an interpreter may have been given options of its own.
    command = [sys.executable, *sys.orig_argv[1:]]
    commands = [[*command, "--process", str(number)] for number in range(processes)]
    log = make_logger(output, config.log)
    status = Supervisor(commands, log, stop_seconds=config.stop_timeout.seconds).run()
    output.close()
    return status
