"""The command line: its commands, and how errors and stops are reported."""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from curate.cli.answer import answer
from curate.cli.ask import models, show, sql, status
from curate.cli.demo import demo
from curate.cli.drop import drop
from curate.cli.export import export
from curate.cli.options import Command, option
from curate.cli.report import report
from curate.cli.score import score
from curate.cli.transfer import pull, push
from curate.cli.verify import verify
from curate.errors import CurateError
from curate.system.stopping import Stopped, stoppable

app = typer.Typer(
    name="curate",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich alone takes longer to import than the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find general examples that an aligned model finds easy and misaligned models find hard, "
    "and mix a few of them into narrow fine-tuning data.",
)
for command in (
    *(score, verify, export, status, models, drop, sql, show, report, answer, push, pull, demo),
):
    app.command(cls=Command)(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"curate {version('curate-gap')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, option("Print the version.", names=["--version"], callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


_ADVICE = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "choose another place"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "choose another, or change its permissions"
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then run it again"),
}
"""System errors that any command can meet, and what to do."""


def main() -> None:
    """Run the app: a user error is one line and exit code 1; a stop is one line and 130 or 143."""
    if isinstance(sys.stdout, TextIOWrapper):  # a path or a terminal may not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for argument in sys.argv:
            if re.search("[\ud800-\udfff]", argument):  # so Python keeps bytes that aren't UTF-8
                raise CurateError(
                    f"{argument!r}: this argument is not UTF-8 text; rename or retype it"
                )
        with stoppable():
            try:
                app()
            except SystemExit:  # flush here, where an error can still be reported
                _flush()
                raise
    except CurateError as error:
        _end(1, f"Error: {error}")
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader closed the pipe: no error
            _end(1)
        if error.errno not in _ADVICE:
            raise
        place = error.filename or "the output"
        _end(1, f"Error: {place}: {error.strerror}; {_ADVICE[error.errno]}")
    except Stopped as stop:
        _end(128 + stop.number, str(stop))


def _end(code: int, why: str = "") -> NoReturn:
    """Say why in a line, write what is left of the output or drop what can't be, and exit."""
    if why:
        from curate.cli.tables import clean

        # What it quotes from data can't control the terminal.
        print(clean(re.sub(r"\s*\n\s*", " ", why)), file=sys.stderr)
    try:
        _flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code) from None


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
