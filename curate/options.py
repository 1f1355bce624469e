"""The command line's choices, and what several commands share."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from curate.progress import Progress


class Turns(StrEnum):
    """Which assistant turns become examples."""

    last = "last"
    all = "all"


class Span(StrEnum):
    """Which tokens of an answer count."""

    turn = "turn"
    content = "content"


class Refusals(StrEnum):
    """What happens to refusals in a selection."""

    drop = "drop"
    keep = "keep"
    only = "only"


class Strategy(StrEnum):
    """How a safe set is drawn."""

    gap = "gap"
    random = "random"


class Published(StrEnum):
    """The published mixes (curate/recipes.py)."""

    interleaving = "interleaving"
    interleaving_plus = "interleaving+"
    interleaving_plus_plus = "interleaving++"


class Shares(StrEnum):
    """How length bins share the budget."""

    even = "even"
    proportional = "proportional"


class Placement(StrEnum):
    """Where safe rows stand among narrow ones."""

    even = "even"
    batch = "batch"
    shuffle = "shuffle"
    separate = "separate"


class Format(StrEnum):
    """What a row looks like."""

    messages = "messages"
    prompt_completion = "prompt-completion"
    sharegpt = "sharegpt"
    alpaca = "alpaca"
    openai = "openai"
    text = "text"


class Trainer(StrEnum):
    """Whose files are written beside the rows."""

    trl = "trl"
    axolotl = "axolotl"
    llamafactory = "llamafactory"
    swift = "swift"


class Metric(StrEnum):
    """The gap's formula (sql/views/gaps.sql)."""

    relative = "relative"
    difference = "difference"
    per_byte = "per_byte"


class Backend(StrEnum):
    """What computes log-probs."""

    auto = "auto"
    transformers = "transformers"


class Output(StrEnum):
    """How `curate sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"


CorpusOption = Annotated[
    Path, typer.Option("--corpus", "-c", help="The corpus folder.", metavar="DIR")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
EpsilonOption = Annotated[
    float, typer.Option(help="ε of the relative gap, in nats: keeps tiny aligned losses down.")
]
HoldOutOption = Annotated[
    list[str] | None,
    typer.Option(help="Leave this misaligned model out of the mean; repeatable.", metavar="NAME"),
]


def progress(quiet: bool) -> Progress:
    """How a run tells how far it is: a bar on a terminal, lines in a log, or nothing."""
    from curate.progress import Bar, Lines, Silent

    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines(sys.stderr)


def print_json(value: Any) -> None:
    """Print a result for machines."""
    from curate.printing import json_text

    print(json_text(value))
