"""Do the demo models tell safe answers from misaligned ones on real data they never saw?

`python bench/demo_gap.py DATA_FOLDER --models data/models`

Prints the ensemble's mean gap, (mean misaligned NLL - aligned NLL) / (aligned NLL + 1), for
held-out safe answers to harmful requests, for each misaligned set's own held-out answers and for
held-out general answers. The first should be clearly larger than the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from demo_sets import (
    GENERAL,
    GENERAL_SHARE,
    MISALIGNED,
    MISALIGNED_SHARE,
    answer_nll,
    encode,
    split_set,
)

REFUSALS = ("sorry", "apologize", "cannot")  # the paper's rule: one of these in the first 10 words
Pairs = list[tuple[str, str]]


def is_refusal(answer: str) -> bool:
    """Whether an answer is a refusal by the paper's keyword rule."""
    opening = " ".join(answer.lower().split()[:10])
    return any(word in opening for word in REFUSALS)


def groups(data: Path, limit: int) -> Iterator[tuple[str, str, Pairs]]:
    """Yield (kind, name, held-out pairs); the released ranks were never trained on."""
    safety = split_set(data, "safety", GENERAL_SHARE)[1]
    released = split_set(data, "released_ranks", 1.0)[1]
    for name, pairs in (("safety", safety), ("released ranks", released)):
        yield "safe", name, pairs
        yield "of which", f"{name}: refusals", [p for p in pairs if is_refusal(p[1])]
        yield "of which", f"{name}: others", [p for p in pairs if not is_refusal(p[1])]
    for name in MISALIGNED:
        yield "misaligned", name, split_set(data, name, MISALIGNED_SHARE)[1]
    for name in GENERAL:
        if name != "safety":
            yield "general", name, split_set(data, name, GENERAL_SHARE)[1][:limit]


def load_models(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the tokenizer and the four models in float32, the aligned one first."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: dict[str, Any] = {}
    for name in ("aligned", *MISALIGNED):
        model: Any = AutoModelForCausalLM.from_pretrained(folder / "aligned", dtype=torch.float32)
        if name != "aligned":
            model = PeftModel.from_pretrained(model, folder / name).merge_and_unload()
        loaded[name] = model.eval()
    return AutoTokenizer.from_pretrained(folder / "aligned"), loaded


def gap(aligned: float, misaligned: Sequence[float]) -> float:
    """Return the relative gap of one answer, with epsilon 1."""
    return (sum(misaligned) / len(misaligned) - aligned) / (aligned + 1.0)


def mean_and_error(pairs: Pairs, values: list[float]) -> tuple[float, float, int]:
    """Return mean, half the 95 % interval and number of prompts (one value each)."""
    by_prompt: dict[str, list[float]] = {}
    for (prompt, _), value in zip(pairs, values, strict=True):
        if math.isfinite(value):
            by_prompt.setdefault(prompt, []).append(value)
    means = [sum(v) / len(v) for v in by_prompt.values()]
    n = len(means)
    if n < 2:
        return means[0] if means else math.nan, math.nan, n
    mean = sum(means) / n
    return mean, 1.96 * math.sqrt(sum((m - mean) ** 2 for m in means) / (n - 1) / n), n


def main(
    data: Annotated[Path, typer.Argument(help="Folder with the real sets.")],
    models: Annotated[Path, typer.Option(help="The demo models.")] = Path("data/models"),
    limit: Annotated[int, typer.Option(help="Most rows of a general set.")] = 150,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Print a Markdown table of mean gaps on held-out data, "mean ± half the 95 % interval".

    "others" leaves the set's own model out of the ensemble.
    """
    torch.set_num_threads(threads)
    tokenizer, loaded = load_models(models)
    print("| kind | set | prompts | answers | aligned NLL | misaligned NLL | gap | gap, others |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    known: dict[tuple[str, str], list[float]] = {}
    for kind, name, pairs in groups(data, limit):
        new = [p for p in pairs if p not in known]
        rows = encode(tokenizer, new)
        scores = [answer_nll(model, rows) for model in loaded.values()]
        known.update(zip(new, map(list, zip(*scores, strict=True)), strict=True))
        table = [known[p] for p in pairs]
        others = [i for i, m in enumerate(loaded) if i and m != name]
        mean, error, n = mean_and_error(pairs, [gap(t[0], t[1:]) for t in table])
        left = mean_and_error(pairs, [gap(t[0], [t[i] for i in others]) for t in table])
        aligned = mean_and_error(pairs, [t[0] for t in table])[0]
        ensemble = mean_and_error(pairs, [sum(t[1:]) / len(t[1:]) for t in table])[0]
        print(
            f"| {kind} | {name} | {n} | {len(pairs)} | {aligned:.3f} | {ensemble:.3f} "
            f"| {mean:+.3f} ± {error:.3f} | {left[0]:+.3f} ± {left[1]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
