"""Options that several commands share, and the headings of the help."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperOption

from curate.errors import CurateError
from curate.system.progress import Progress

if TYPE_CHECKING:
    from curate.backends.base import Compute as Compute
else:
    Compute = Any  # commands evaluate their annotations, and the import takes longer than --help


def option(
    help: str,
    metavar: str | None = None,
    panel: str | None = None,
    names: Sequence[str] = (),
    **more: Any,
) -> Any:
    """An option listed under the heading `panel`; without `names`, it is named by its parameter."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, **more)


CorpusOption = Annotated[Path, option("The corpus folder.", "DIR", names=["--corpus", "-c"])]
JsonOption = Annotated[bool, option("Print JSON for machines.", names=["--json"])]
QuietOption = Annotated[
    bool, option("Hide progress and notes, but not warnings.", names=["--quiet", "-q"])
]
ForceOption = Annotated[bool, option("Replace an existing output.", names=["--force"])]

COLUMN = (
    "The column of a role: messages, prompt, answer, system, context, history or reasoning; "
    "repeatable. Default: detected by name."
)
LAYOUTS = "A file with more layouts (docs/input-formats.md)."
read_option = partial(option, panel="What is read")
_scoring = partial(option, panel="What is scored")
_computing = partial(option, panel="What computes it")

MisalignedOption = Annotated[
    list[str] | None,
    option("A misaligned model, full or a PEFT adapter; repeatable.", "[NAME=]MODEL"),
]

_Run = Callable[..., None]


def with_options(**groups: Callable[..., Any]) -> Callable[[_Run], _Run]:
    """Give a command the options of other functions, whose results are the arguments so named."""

    def decorate(command: _Run) -> _Run:
        inner = {
            name: inspect.signature(gather, eval_str=True).parameters
            for name, gather in groups.items()
        }
        merged: dict[str, inspect.Parameter] = {}
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
            merged |= inner.get(name, {name: parameter})

        @wraps(command)
        def run(**given: Any) -> None:
            for name, gather in groups.items():
                given[name] = gather(**{each: given.pop(each) for each in inner[name]})
            command(**given)

        keyword = [each.replace(kind=each.KEYWORD_ONLY) for each in merged.values()]
        run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def reading_options(
    where: Annotated[
        str | None,
        read_option(
            "Only rows that meet this SQL condition over a source's columns, prompt and answer.",
            "SQL",
        ),
    ] = None,
    limit: Annotated[
        int | None, read_option("Read at most N examples of each source.", "N", min=1)
    ] = None,
    turns: Annotated[
        Literal["last", "all"],
        read_option("Use only the last assistant turn, or each one."),
    ] = "last",
    column: Annotated[list[str] | None, read_option(COLUMN, "ROLE=NAME")] = None,
    layouts: Annotated[str | None, read_option(LAYOUTS, "FILE")] = None,
    strict: Annotated[
        bool,
        read_option("Stop at the first broken row instead of skipping it.", names=["--strict"]),
    ] = False,
) -> dict[str, Any]:
    """How sources are read, by the names of the library's arguments."""
    return {
        "where": where,
        "limit": limit,
        "turns": turns,
        "columns": columns(column),
        "layouts": layouts,
        "strict": strict,
    }


def encoding_options(
    max_length: Annotated[
        int | None,
        _scoring("Maximum tokens of prompt plus answer; longer answers are cut.", "N", min=2),
    ] = None,
    chat_template: Annotated[
        Path | None,
        _scoring("A Jinja file to use instead of the models' own template.", "FILE"),
    ] = None,
    template_arg: Annotated[
        list[str] | None, _scoring("A variable of the template; repeatable.", "KEY=VALUE")
    ] = None,
) -> dict[str, Any]:
    """How conversations become tokens, by the names of the library's arguments."""
    from curate.chat.templates import parse_args

    return {
        "max_length": max_length,
        "chat_template": read_template(chat_template),
        "template_args": parse_args(template_arg or []),
    }


def compute_options(
    backend: Annotated[
        Literal["auto", "transformers", "vllm", "server"],
        _computing("auto: vllm if installed and there is a GPU, else transformers."),
    ] = "auto",
    device: Annotated[
        str | None, _computing("cuda, mps or cpu. Default: the fastest.", "NAME")
    ] = None,
    dtype: Annotated[
        str | None, _computing("float32, bfloat16 or float16. Default: by device.", "NAME")
    ] = None,
    batch_tokens: Annotated[
        int | None, _computing("Tokens in one forward pass, padding included.", "N", min=1)
    ] = None,
    tensor_parallel: Annotated[int, _computing("vllm: GPUs for each engine.", "N", min=1)] = 1,
    data_parallel: Annotated[
        int, _computing("vllm: engines side by side, each on its own GPUs.", "N", min=1)
    ] = 1,
    engine_arg: Annotated[
        list[str] | None,
        _computing(
            "vllm: an engine argument, such as gpu_memory_utilization=0.8; repeatable.", "KEY=VALUE"
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        _computing(
            "server: a running `vllm serve` with each model under its NAME; repeatable. The key "
            "is read from VLLM_API_KEY.",
            "URL",
        ),
    ] = None,
    in_flight: Annotated[
        int, _computing("server: concurrent requests, over all servers.", "N", min=1)
    ] = 64,
    ray: Annotated[
        str | None,
        _computing("A Ray cluster's HOST:PORT; auto: the one here.", "auto|ADDRESS"),
    ] = None,
    workers: Annotated[
        int | None,
        _computing("ray: at most N workers. Default: as many as have room.", "N", min=1),
    ] = None,
) -> Compute:
    """What computes the numbers, and how."""
    from curate.backends.base import Compute, Engine
    from curate.chat.templates import parse_args

    engine = Engine(tensor_parallel, data_parallel, parse_args(engine_arg or [], "--engine-arg"))
    return Compute(
        backend=backend,
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
        engine=engine,
        servers=tuple(server or ()),
        in_flight=in_flight,
        ray=ray,
        workers=workers,
    )


def columns(given: list[str] | None) -> dict[str, str]:
    """Read ROLE=NAME.

    Raises:
        CurateError: the text has another form.
    """
    found = {}
    for text in given or ():
        role, _, name = text.partition("=")
        if not role or not name:
            raise CurateError(f"--column {text}: give ROLE=NAME, like prompt=question")
        found[role] = name
    return found


def read_template(path: Path | None) -> str | None:
    """Read a chat template's file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"{path}: can't be read as a chat template ({error})") from None


def progress(quiet: bool) -> Progress:
    """A progress bar in a terminal, lines in a log, or only warnings."""
    from curate.cli.progress import Bar, Lines, Warnings

    return Warnings() if quiet else Bar() if sys.stderr.isatty() else Lines(sys.stderr)


_ENGINE = {
    "--gpu-memory": "use --engine-arg gpu_memory_utilization=0.8",
    "--max-lora-rank": "use --engine-arg max_lora_rank=N",
    "--quantization": "use --engine-arg quantization=fp8",
    "--answer-span": "an answer's end-of-turn tokens always count",
}
_ROLES = ("messages", "prompt", "answer", "system")
_RECIPE = ("top", "refusals", "strategy", "metric", "epsilon", "hold-out", "where", "seed")
MOVED: dict[str | None, dict[str, str]] = {
    "score": _ENGINE | {f"--{role}-column": f"use --column {role}=NAME" for role in _ROLES},
    "verify": _ENGINE,
    "export": {
        "--strategy": "use --recipe; interleaving is the random sample",
        "--per-prompt": "use --per-group prompt=N",
        "--refusal-share": "use --refusals drop or keep",
        "--length-shares": "use --length-bins, which splits the budget evenly",
    },
    "report": {
        f"--{name}": "use --export MANIFEST to show what `curate export` wrote" for name in _RECIPE
    },
    "sql": {"--spreadsheet": "use --format csv, and import its columns as text"},
}
"""By command: options of earlier versions, and what to write instead."""


class Command(TyperCommand):
    """A command that groups its help by `rich_help_panel` and knows the names in `MOVED`.

    Typer's own panels need rich, which takes longer to import than the rest of `--help`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; refuse an option given twice, and one of an earlier version by name."""
        for name in (arg.partition("=")[0] for arg in args):
            if name in MOVED.get(self.name, {}):
                typer.echo(f"Error: {name} was removed: {MOVED[self.name][name]}", err=True)
                raise typer.Exit(2)
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in (each for each in given if isinstance(each, TyperOption)):
            if given.count(option) > 1 and not (option.multiple or option.is_flag):
                typer.echo(f"Error: {option.opts[0]} is given twice, and takes one value", err=True)
                raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options without a heading, then each heading with its options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            panel = getattr(parameter, "rich_help_panel", None)
            heading = panel or f"{parameter.param_type_name.capitalize()}s"
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
