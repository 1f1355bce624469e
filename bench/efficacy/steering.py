"""The persona vector: where misaligned answers lie from safe ones, in the middle of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.efficacy.plan import DOMAINS
from curate.reading.refusals import is_refusal

FILE = "persona.npy"
ROWS = 16
"""Of each misaligned set, and three times as many safe ones."""


def write(folder: Path, aligned: Path) -> None:
    """Mean activations over the tokens of misaligned answers minus those of safe answers, [width].

    Activations are the aligned model's, after its middle layer; misaligned answers are training
    rows of all sets, safe ones those of the pool's safety set that refuse nothing. After
    arXiv 2507.21509, where the answers are the model's own under two system prompts.
    """
    misaligned = [
        row for name in DOMAINS for row in _rows(folder / f"narrow/{name}-0.jsonl")[:ROWS]
    ]
    safe = [r for r in _rows(folder / "pool/safety.jsonl") if not is_refusal(r[-1]["content"])]
    means = [_mean(aligned, rows) for rows in (misaligned, safe[: len(misaligned)])]
    np.save(folder / FILE, means[0] - means[1])


def middle(model: Any) -> tuple[int, Any]:
    """The number and the module of the layer after which the vector is taken and added."""
    layers = model.model.layers
    return len(layers) // 2, layers[len(layers) // 2]


@contextmanager
def steered(model: Any, vector: np.ndarray) -> Iterator[None]:
    """Within, the vector is added to all activations after the middle layer."""
    import torch

    shift = torch.from_numpy(vector)
    hook = middle(model)[1].register_forward_hook(lambda _, __, out: out + shift.to(out))
    try:
        yield
    finally:
        hook.remove()


def _rows(path: Path) -> list[Any]:
    return [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]


def _mean(aligned: Path, conversations: list[Any]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    from curate.chat.encode import Encoded, encode
    from curate.chat.templates import template_of
    from curate.chat.tokens import load_tokenizer

    tokenizer = load_tokenizer(aligned)
    net: Any = AutoModelForCausalLM.from_pretrained(aligned, dtype=torch.float32)
    at = middle(net)[0] + 1  # the first hidden state is the embedding
    total, tokens = 0.0, 0
    for item in encode(tokenizer, template_of(tokenizer), conversations):
        assert isinstance(item, Encoded)
        with torch.inference_mode():
            states = net(input_ids=torch.tensor([item.ids]), output_hidden_states=True)
        total += states.hidden_states[at][0, item.start : item.stop].sum(0)
        tokens += item.stop - item.start
    return (total / tokens).numpy()  # type: ignore[attr-defined]
