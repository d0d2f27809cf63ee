"""The outermost group of commands: turns errors into one line on stderr and an exit code."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from decent.errors import DecentError, InputError

INTERRUPTED = 130


class Decent(click.Group):
    """Commands in the order they were added; errors raised on purpose end without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(ctx, str(error), 2)
        except DecentError as error:
            _fail(ctx, str(error), 1)
        except KeyboardInterrupt:
            click.echo("decent: interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    click.echo(f"decent: error: {' '.join(message.split())}", err=True)
    ctx.exit(code)
