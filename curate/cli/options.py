"""The command line's choices, and what several commands share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from curate.cli.completion import misaligned_names
from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.backends.base import Engine
    from curate.system.progress import Progress


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
    """The published mixes (curate/selection/recipe.py)."""

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
    vllm = "vllm"
    server = "server"


class Output(StrEnum):
    """How `curate sql` gives its rows."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


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
    typer.Option(
        help="Leave this misaligned model out of the mean; repeatable.",
        metavar="NAME",
        autocompletion=misaligned_names,
    ),
]

AlignedOption = Annotated[
    str, typer.Option(metavar="[NAME=]MODEL", help="The aligned model: a folder or hub id.")
]
MisalignedOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]MODEL",
        help="A misaligned model, likewise, or a PEFT adapter's folder; repeatable.",
    ),
]
TemplateOption = Annotated[
    Path | None, typer.Option(help="A Jinja file instead of the models' own template.")
]
TemplateArgOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A variable of the template; repeatable."),
]
SpanOption = Annotated[
    Span, typer.Option(help="Count end-of-turn tokens (turn) or the text alone (content).")
]
BackendOption = Annotated[
    Backend, typer.Option(help="What computes log-probs. auto: vllm on a GPU, if it is installed.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, mps or cpu. Default: the fastest there is.")
]
DtypeOption = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16. Default: by device.")
]
BatchTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Tokens in one forward pass, padding included.")
]
TensorParallelOption = Annotated[
    int, typer.Option(min=1, help="vllm: GPUs that an engine is split over.")
]
DataParallelOption = Annotated[
    int, typer.Option(min=1, help="vllm: engines side by side, each on GPUs of its own.")
]
GpuMemoryOption = Annotated[
    float | None, typer.Option(help="vllm: the share of a GPU's memory to take, such as 0.8.")
]
MaxLoraRankOption = Annotated[
    int | None, typer.Option(min=1, help="vllm: adapters above this rank are merged.")
]
QuantizationOption = Annotated[
    str | None, typer.Option(help="vllm: how to shrink the weights, such as fp8.")
]
EngineArgOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="vllm: any other engine argument; repeatable."),
]
ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="server: a running `vllm serve` with each model under its NAME; repeatable. "
        "Its key is read from VLLM_API_KEY.",
    ),
]
InFlightOption = Annotated[
    int, typer.Option(min=1, help="server: requests under way at a time, over all servers.")
]


def engine(
    tensor_parallel: int,
    data_parallel: int,
    gpu_memory: float | None,
    max_lora_rank: int | None,
    quantization: str | None,
    engine_arg: list[str] | None,
) -> Engine:
    """Gather vLLM's options."""
    from curate.backends.base import Engine
    from curate.chat.templates import parse_args

    return Engine(
        tensor_parallel=tensor_parallel,
        data_parallel=data_parallel,
        gpu_memory=gpu_memory,
        max_lora_rank=max_lora_rank,
        quantization=quantization,
        args=parse_args(engine_arg or [], "--engine-arg"),
    )


def read_template(path: Path | None) -> str | None:
    """Read a chat template's file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"{path}: can't be read as a chat template ({error})") from None


def progress(quiet: bool) -> Progress:
    """How a run tells how far it is: a bar on a terminal, lines in a log, or nothing."""
    from curate.cli.progress import Bar, Lines
    from curate.system.progress import Silent

    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines(sys.stderr)


_BACKEND = [
    "backend",
    "device",
    "dtype",
    "batch_tokens",
    "tensor_parallel",
    "data_parallel",
    "gpu_memory",
    "max_lora_rank",
    "quantization",
    "engine_arg",
    "server",
    "in_flight",
]
_TEMPLATE = ["max_length", "chat_template", "template_arg", "answer_span"]
PANELS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "score": {
        "What is read": [
            "where",
            "limit",
            "turns",
            "messages_column",
            "prompt_column",
            "answer_column",
            "system_column",
            "strict",
        ],
        "What is scored": [*_TEMPLATE, "keep_tokens"],
        "What computes it": _BACKEND,
    },
    "verify": {"What is scored": _TEMPLATE, "What computes it": _BACKEND},
    "export": {
        "How many (give one)": ["top", "fraction", "tokens"],
        "Which, best first": [
            "recipe",
            "strategy",
            "hold_out",
            "where",
            "metric",
            "epsilon",
            "seed",
        ],
        "Refusals": ["refusals", "refusal_rule", "refusal_field", "refusal_share"],
        "Duplicates and contamination": ["max_similar", "per_prompt", "decontaminate"],
        "Spread": ["per_group", "balance", "length_bins", "length_shares"],
        "Mix and files": ["placement", "batch_size", "format", "trainer"],
    },
}
"""Headings of a command's help and the parameters under each; any others stand under Options."""


class Panelled(TyperCommand):
    """A command whose help has the headings of `PANELS`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options without a heading of their own, then each heading's."""
        panels = PANELS.get(self.name or "", {})
        heading_of = {name: heading for heading, names in panels.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {
            heading: [] for heading in ("Arguments", "Options", *panels)
        }
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections[heading_of.get(parameter.name or "", kind)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
