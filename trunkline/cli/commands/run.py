"""`trunkline up` and `trunkline run`: pipelines in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.command import OpenOption, command
from trunkline.cli.session import Session
from trunkline.control.addresses import address
from trunkline.core.errors import ConfigurationError

FilesOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="A manifest file or a folder of them; may be given more than once.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, max=64, help="Worker processes; crashed ones are started again.")
]
IngressOption = Annotated[
    str,
    typer.Option(
        "--ingress",
        envvar="TRUNKLINE_INGRESS",
        help="Where webhooks are received; of several workers each takes the next port.",
    ),
]
ApiOption = Annotated[
    str,
    typer.Option("--api", envvar="TRUNKLINE_API", help="Where health, metrics, status and the registry are served."),
]
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory",
        envvar="TRUNKLINE_MEMORY",
        help="What each worker may take, such as 512MiB: its queues are bounded by it, and what fills them waits.",
    ),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", envvar="TRUNKLINE_LOG_LEVEL", help="debug, info, warning, error or critical.")
]
LogStyleOption = Annotated[
    str, typer.Option("--log-style", envvar="TRUNKLINE_LOG_STYLE", help="json, text, or auto: text in a terminal.")
]
UntilFinishedOption = Annotated[
    bool,
    typer.Option(
        "--until-finished",
        help="End when every polled source has come to its end and nothing waits in any pipeline's inputs.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "up")(up)
    command(app, "run")(run)


def up(
    session: Session,
    workers: WorkersOption = 1,
    ingress: IngressOption = "127.0.0.1:0",
    api: ApiOption = "127.0.0.1:0",
    memory: MemoryOption = "1GiB",
    log_level: LogLevelOption = "info",
    log_style: LogStyleOption = "auto",
    open_: OpenOption = False,
) -> None:
    """Run Kafka (unless --bootstrap names one) and a worker that follows the applied manifests."""
    _serve(session, [], workers, ingress, api, memory, log_level, log_style, until_finished=False, open_=open_)


def run(
    session: Session,
    file: FilesOption,
    workers: WorkersOption = 1,
    ingress: IngressOption = "127.0.0.1:0",
    api: ApiOption = "127.0.0.1:0",
    memory: MemoryOption = "1GiB",
    log_level: LogLevelOption = "info",
    log_style: LogStyleOption = "auto",
    until_finished: UntilFinishedOption = False,
    open_: OpenOption = False,
) -> None:
    """Run the pipelines of manifest files, with nothing applied; Kafka too, unless --bootstrap names one."""
    _serve(
        session, file, workers, ingress, api, memory, log_level, log_style, until_finished=until_finished, open_=open_
    )


def _serve(
    session: Session,
    files: list[Path],
    workers: int,
    ingress: str,
    api: str,
    memory: str,
    log_level: str,
    log_style: str,
    *,
    until_finished: bool,
    open_: bool,
) -> None:
    from trunkline.cli.process.serveoptions import ServeOptions
    from trunkline.cli.process.serving import serve

    api_address, ingress_address = address(api, "--api"), address(ingress, "--ingress")
    _check_ports(workers, api_address, ingress_address)
    options = ServeOptions(
        files=tuple(files),
        workers=workers,
        ingress=ingress_address,
        api=api_address,
        log_level=log_level,
        log_style=log_style,
        until_finished=until_finished,
        memory=_bytes(memory),
        open=open_,
    )
    raise typer.Exit(serve(session, options))


def _check_ports(workers: int, api: tuple[str, int], ingress: tuple[str, int]) -> None:
    """Each worker takes the next port of each option. Raises `ConfigurationError` where there is none, or both take one."""
    for option, (host, port) in (("--api", api), ("--ingress", ingress)):
        if port and port + workers - 1 > 65535:
            raise ConfigurationError(
                f"{workers} workers take the ports {port} to {port + workers - 1}, and the last one that there is is 65535",
                where=option,
                hint=f"name at most {host}:{65536 - workers}",
                code="option.address",
            )
    if api[1] and ingress[1] and abs(api[1] - ingress[1]) < workers:
        raise ConfigurationError(
            f"{workers} workers take {workers} ports from --api {api[1]} and {workers} from --ingress {ingress[1]}: some are the same",
            where="--ingress",
            hint=f"name one that is {workers} or more away, such as {ingress[0]}:{api[1] + workers}",
            code="option.address",
        )


def _bytes(memory: str) -> int:
    from trunkline.core.settings import parse_size

    try:
        return int(parse_size(memory))
    except ValueError as error:
        raise ConfigurationError(
            f"{memory!r} is no size", where="--memory", hint="write it like 512MiB", code="option.memory"
        ) from error
