"""How fast answers are written: curate against transformers' `generate`, one prompt at a time.

`python bench/answering.py --shape demo --prompts 48 --rounds 3`

The sides take turns on the same prompts, greedily and in float32, in one process. Prints tokens a
second of each round, the ratio of the sides' medians, by the clock and by processor time, which
tells more on a busy machine, and how many answers differ. `demo` is the
demo's trained model on its own prompts; `100m` a random model, whose answers all have the most
tokens. `--backend vllm` compares vLLM's own `generate`, if installed, with curate over it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from scoring_machine import processor_seconds
from scoring_shapes import family

from curate.backends import open_backend, weights
from curate.backends.base import Compute, Prompt, Sampling
from curate.backends.vllm import job
from curate.backends.vllm.worker import WriteRequest, writing
from curate.chat.prompts import encode_prompts, ends_of
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.models.resolve import Model, resolve
from curate.reading import examples

ROOT = Path(__file__).resolve().parent.parent
Side = Callable[[], list[list[int]]]


def prompts_of(model: Model, count: int, room: int) -> tuple[list[Prompt], Sampling]:
    """The demo's prompts, encoded for this model, and what ends an answer."""
    tokenizer = load_tokenizer(model.tokenizer)
    template = template_of(tokenizer)
    read = examples.read([str(ROOT / "data" / "examples")], limit=count)
    turns = [row[:-1] for table, _ in read for row in table["messages"].to_pylist()]
    opened = [one for one in encode_prompts(tokenizer, template, turns) if not isinstance(one, str)]
    ends = ends_of(model.path, tokenizer, template)
    return [Prompt(one.ids, room) for one in opened], Sampling(ends)


def loop(model: Model, prompts: list[Prompt], sampling: Sampling) -> Side:
    """The reference loop."""
    net = weights.load(model, torch.device("cpu"), torch.float32)
    more: dict[str, Any] = {"eos_token_id": list(sampling.ends), "pad_token_id": 0}

    def run() -> list[list[int]]:
        found = []
        for prompt in prompts:
            ids = torch.tensor([prompt.ids])
            mask = torch.ones_like(ids)
            out = net.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=prompt.room, **more
            )
            found.append(out[0, ids.shape[1] :].tolist())
        return found

    return run


def bare_vllm(model: Model, prompts: list[Prompt], sampling: Sampling) -> Side:
    """Its own `generate`, all prompts at once, with the engine and the parameters of curate's."""
    compute = Compute("vllm", device="cpu", dtype="float32", writes=True)
    os.environ |= job.environment(compute, None)
    from vllm import LLM

    llm = LLM(**job.job_of([model], compute).arguments)
    params = [writing(WriteRequest(0, 0, prompt, sampling)) for prompt in prompts]
    tokens: Any = [{"prompt_token_ids": prompt.ids} for prompt in prompts]

    def run() -> list[list[int]]:
        found = llm.generate(tokens, params, use_tqdm=False)
        return [list(each.outputs[0].token_ids) for each in found]

    return run


def curate(model: Model, prompts: list[Prompt], sampling: Sampling, backend: str) -> Side:
    """This project's way."""
    compute = Compute(backend, device="cpu", dtype="float32", writes=True)
    opened = open_backend([model], compute)
    return lambda: [ids for _, ids in sorted(opened.generate(prompts, sampling))]  # type: ignore


def main(
    shape: Annotated[str, typer.Option(help="demo or 100m.")] = "demo",
    prompts: Annotated[int, typer.Option(min=1)] = 48,
    room: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    backend: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Let the sides take turns."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        demo = ROOT / "data" / "models" / "aligned"
        path = demo if shape == "demo" else family(shape, Path(folder), "float32").base
        (model,) = resolve(str(path), [])
        work = prompts_of(model, prompts, room)
        plain = bare_vllm if backend == "vllm" else loop
        sides = {"plain": plain(model, *work), "curate": curate(model, *work, backend)}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        used: dict[str, list[float]] = {name: [] for name in sides}
        written: dict[str, list[list[int]]] = {}
        for _ in range(rounds):
            for name, side in sides.items():
                began, before = time.perf_counter(), processor_seconds()
                written[name] = side()
                tokens = sum(map(len, written[name]))
                rates[name].append(tokens / (time.perf_counter() - began))
                used[name].append(tokens / sum(processor_seconds(before).values()))
    for unit, found in (("second", rates), ("processor second", used)):
        plain_rate, rate = (statistics.median(found[name]) for name in sides)
        shown = "; ".join(f"{n} {', '.join(f'{r:.1f}' for r in found[n])}" for n in sides)
        print(f"tokens a {unit}: {shown}; ratio of medians {rate / plain_rate:.2f}")
    different = sum(a != b for a, b in zip(written["plain"], written["curate"], strict=True))
    print(f"{different} of {len(work[0])} answers differ")


if __name__ == "__main__":
    typer.run(main)
