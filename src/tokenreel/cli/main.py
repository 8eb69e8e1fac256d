"""``tokenreel``: the application, its error handling, and nothing else.

Exit codes: 0 done; 1 a check found a difference; 2 bad input or bad options; 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from typing import Annotated

import typer

from tokenreel import __version__
from tokenreel.cli import bpe, classify, evaluate, generate, patches, prepare, tokenizers, tokens, tour, train
from tokenreel.errors import TokenReelError, TokenReelWarning

__all__ = ["app", "run"]

app = typer.Typer(
    name="tokenreel",
    help="Pictures and video to tokens, and tokens to pictures again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"tokenreel {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pictures and video to tokens, and tokens to pictures again."""


app.command(rich_help_panel="Start here")(tour.demo)
app.command(rich_help_panel="Patches")(patches.patchify)
app.command(rich_help_panel="Patches")(patches.check)
app.command(rich_help_panel="Patches")(patches.restore)
app.command(rich_help_panel="Tokens")(tokens.encode)
app.command(rich_help_panel="Tokens")(tokens.decode)
app.command(rich_help_panel="Tokens")(tokens.inspect)
app.command("eval", rich_help_panel="Tokens")(evaluate.evaluate)
app.add_typer(bpe.app, name="bpe", rich_help_panel="Tokens")
app.add_typer(tokenizers.app, name="tokenizers", rich_help_panel="Tokens")
app.command(rich_help_panel="Training")(prepare.prepare)
app.command(rich_help_panel="Training")(train.train)
app.command(rich_help_panel="Generation")(generate.generate)
app.command(rich_help_panel="Classification")(classify.classify)


def run() -> None:
    """The console script: one sentence for every error that is the user's to mend, no traceback."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    atexit.register(gc.freeze)  # else all that torch made is searched for garbage before the process ends: .5 s
    try:
        app()
    except TokenReelError as error:
        _fail(str(error), 2)
    except BrokenPipeError:  # the reader of our output went away, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _fail(f"{error.filename or 'the disk'}: {error.strerror or error}", 2)
    except MemoryError:
        _fail("out of memory; choose a smaller --size or fewer frames", 2)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left half-written", 130)


def _fail(text: str, code: int) -> None:
    typer.secho(f"tokenreel: {text}", fg="red", err=True)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    if issubclass(category, TokenReelWarning):
        typer.secho(f"tokenreel: warning: {message}", fg="yellow", err=True)


if __name__ == "__main__":
    run()
