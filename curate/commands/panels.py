"""The help of commands with many options: under headings, in plain text.

Typer itself groups options only through rich, which takes longer to import than all else that
`--help` needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

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
