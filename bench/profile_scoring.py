"""Where the time of curate's transformers backend goes on a CPU.

`python bench/profile_scoring.py DATA_FOLDER --shape 100m`

A profile (`torch.profiler`) of the aligned model with one thread: the shares of linear layers
and attention, what else there is, and the rate of the linear layers against that of a large product
in the same process, before and after. Padding counts as work there, since it is computed.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from scoring import conversations, work
from scoring_machine import matmul_rate
from scoring_shapes import family
from torch.nn.modules.module import register_module_forward_hook
from torch.profiler import ProfilerActivity, profile

from curate.backends.transformers import TransformersBackend
from curate.chat.encode import encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.models.resolve import Model, resolve

LINEAR = {"aten::linear", "aten::addmm", "aten::mm"}
ATTENTION = ("scaled_dot_product", "flash_attention", "aten::bmm", "aten::baddbmm")
Encoded = list[Any]


def linear_work(backend: TransformersBackend, encoded: Encoded) -> float:
    """Score once and return the FLOPs of the linear layers, those on padding included."""
    flops = 0.0

    def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        nonlocal flops
        if isinstance(module, torch.nn.Linear):
            flops += 2.0 * inputs[0].numel() * output.shape[-1]

    hook = register_module_forward_hook(count)
    dict(backend.score(encoded))
    hook.remove()
    return flops


def part_of(operator: str) -> str:
    """Return the part of the model that an operator's own time belongs to."""
    if operator in LINEAR:
        return "linear layers"
    return "attention" if any(name in operator for name in ATTENTION) else "the rest"


def profiled(model: Model, encoded: Encoded, useful: float) -> Table:
    """Return a row per part: its share, the linear layers' rate, its largest operators.

    `useful` are the FLOPs without padding.
    """
    torch.set_num_threads(1)
    backend = TransformersBackend(model, device="cpu", dtype="float32")
    flops = linear_work(backend, encoded)  # the first run warms up, too
    rate = matmul_rate(torch.float32, "cpu")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        dict(backend.score(encoded))
    rate = (rate + matmul_rate(torch.float32, "cpu")) / 2
    backend.close()
    parts: dict[str, Counter[str]] = {"linear layers": Counter(), "attention": Counter()}
    for event in seen.key_averages():
        found = parts.setdefault(part_of(event.key), Counter())
        found[event.key] += event.self_cpu_time_total / 1e6
    whole = sum(found.total() for found in parts.values())
    title = f"one thread: {whole:.1f} s, {flops / useful - 1:.1%} of padding"
    table = Table("part", "share", "of the matrix rate", "most of it", title=title)
    for part, found in parts.items():
        share = f"{flops / found.total() / rate:.2f}" if part == "linear layers" else ""
        largest = [(name, took / whole) for name, took in found.most_common(4)]
        most = ", ".join(f"{name} {took:.1%}" for name, took in largest if took >= 0.001)
        table.add_row(part, f"{found.total() / whole:.1%}", share, most)
    return table


def main(
    data: Annotated[Path, typer.Argument(help="Folder with instruct_messages.jsonl.gz.")],
    shape: Annotated[str, typer.Option(help="demo, 100m, 0.5b or 7b.")] = "demo",
    examples: Annotated[int, typer.Option(min=1, help="Examples scored at a time.")] = 16,
    models: Annotated[Path | None, typer.Option(help="Where random models are kept.")] = None,
) -> None:
    """Print the profile."""
    rows = conversations(data, examples)
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        base = family(shape, models or Path(folder), "float32").base
        todo = work(base, rows, 1)
        model = resolve(f"base={base}", [])[0]
        tokenizer = load_tokenizer(base)
        encoded = encode(tokenizer, template_of(tokenizer), rows, max_length=None)
        print(f"{shape}, float32: {examples} examples, {todo.tokens:,} tokens")
        console.print(profiled(model, encoded, todo.flops))


if __name__ == "__main__":
    typer.run(main)
