"""Registering commands: each gets a `Session`, the options that all commands share, and errors shown as its class says.

The shared options may stand before or after the command's name. What the commands need is imported inside them, because
`trunkline --help` must not wait for a Kafka client.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from trunkline.cli.output import Format, Output
from trunkline.cli.session import Session

_PANEL = "Options of every command"

OutputOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="How results are printed.", rich_help_panel=_PANEL)
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.", rich_help_panel=_PANEL)]
HomeOption = Annotated[
    str | None,
    typer.Option(
        "--home",
        help="The folder of broker data and worker ids. (environment: TRUNKLINE_HOME; default: .trunkline)",
        rich_help_panel=_PANEL,
    ),
]
BootstrapOption = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        help="Kafka's bootstrap servers. (environment: TRUNKLINE_BOOTSTRAP_SERVERS)",
        rich_help_panel=_PANEL,
    ),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", help="The schema registry's URL. (environment: TRUNKLINE_REGISTRY_URL)", rich_help_panel=_PANEL
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace", help="The install's namespace. (environment: TRUNKLINE_NAMESPACE)", rich_help_panel=_PANEL
    ),
]
OpenOption = Annotated[
    bool,
    typer.Option(
        "--open",
        envvar="TRUNKLINE_OPEN",
        help="For experiments: the embedded Kafka asks nobody who they are, and every program of this machine may do everything.",
    ),
]
"""Of the commands that start the embedded broker."""
SHARED_NAMES = ("output", "debug", "home", "bootstrap", "registry", "namespace")
_SHARED: dict[str, tuple[Any, Any]] = {
    "output": (OutputOption, None),
    "debug": (DebugOption, False),
    "home": (HomeOption, None),
    "bootstrap": (BootstrapOption, None),
    "registry": (RegistryOption, None),
    "namespace": (NamespaceOption, None),
}


def shared_options(
    ctx: typer.Context,
    output: OutputOption = None,
    debug: DebugOption = False,
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    registry: RegistryOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Keeps the shared options that stand before the command's name."""
    ctx.obj = {
        "output": output,
        "debug": debug,
        "home": home,
        "bootstrap": bootstrap,
        "registry": registry,
        "namespace": namespace,
    }


def command(
    app: typer.Typer, name: str, *, hidden: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as the command `name`: its first parameter is the `Session`, its docstring the help."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, hidden=hidden)(_as_command(function))
        return function

    return register


def _as_command(function: Callable[..., None]) -> Callable[..., None]:
    hints = typing.get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]

    @functools.wraps(function)
    def run(ctx: typer.Context, **values: Any) -> None:
        from trunkline.core.log import configure_logging

        # Commands that serve log what they were told to; of all others the result is what is wanted, and trouble.
        configure_logging("warning")
        session = _session(ctx, {name: values.pop(name) for name in _SHARED})
        try:
            function(session, **values)
        except (typer.Exit, typer.Abort, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:
            raise typer.Exit(session.out.error(error)) from error

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [one.replace(kind=keyword, annotation=hints[one.name]) for one in own]
    parameters += [
        inspect.Parameter(name, keyword, annotation=annotation, default=default)
        for name, (annotation, default) in _SHARED.items()
    ]
    del run.__wrapped__  # its signature would be taken for this one's
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _session(ctx: typer.Context, own: dict[str, Any]) -> Session:
    before: dict[str, Any] = ctx.find_root().obj or {}
    chosen = {name: value or before.get(name) for name, value in own.items()}
    return Session(
        Output(chosen["output"] or Format.TABLE, debug=bool(chosen["debug"])),
        home_option=chosen["home"],
        bootstrap_option=chosen["bootstrap"],
        registry_option=chosen["registry"],
        namespace_option=chosen["namespace"],
    )


def group(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """A noun with verbs."""
    noun = typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(noun, name=name)
    return noun
