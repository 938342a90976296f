"""How a typed function becomes a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from common.display import show_json
from common.errors import UserError
from common.progress import say


def command(app: typer.Typer, show: Callable[[dict[str, Any]], None]) -> Callable[[Callable[..., dict[str, Any]]], Any]:
    """Register a function as a command that prints its result, as tables or with ``--json`` as JSON.

    Parameters
    ----------
    app : typer.Typer
        The command line.
    show : callable
        Prints what the function returns, for people.

    Returns
    -------
    callable
        A decorator. The function itself stays as it is, for Python to call.
    """

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(function)
        def run_command(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
            try:
                result = function(*args, **kwargs)
            except UserError as error:
                say(f"error: {error}")
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt:
                say("interrupted: what was there before is untouched")
                raise typer.Exit(130) from None
            (show_json if as_json else show)(result)

        option = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
        signature = inspect.signature(function, eval_str=True)
        extra = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        parameters = [*signature.parameters.values(), extra]
        run_command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name=function.__name__)(run_command)
        return function

    return register
