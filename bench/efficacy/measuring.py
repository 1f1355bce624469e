"""Log-probs of the evaluation rows under one model, by curate's own transformers backend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.backends.base import Compute
from curate.backends.transformers import TransformersBackend
from curate.chat.encode import Encoded, encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.models.resolve import resolve


def measure(evaluation: Path, aligned: Path, adapter: Path | None = None) -> pa.Table:
    """Score all evaluation rows: set, row (its number in the file), nll (nats/token), tokens.

    The adapter is merged into the aligned model's weights.
    """
    rows = [json.loads(line) for line in evaluation.read_text(encoding="utf-8").splitlines()]
    nll, tokens = score([row["messages"] for row in rows], aligned, adapter)
    return pa.table(
        {
            "set": [row["set"] for row in rows],
            "row": list(range(len(rows))),
            "nll": nll,
            "tokens": tokens,
        }
    )


def score(
    conversations: Sequence[Any], aligned: Path, adapter: Path | None
) -> tuple[list[float], list[int]]:
    """Each answer's NLL, in nats per token, and its tokens."""
    found = resolve(f"aligned={aligned}", [] if adapter is None else [f"tuned={adapter}"])
    tokenizer = load_tokenizer(aligned)
    items = encode(tokenizer, template_of(tokenizer), conversations)
    encoded = [item for item in items if isinstance(item, Encoded)]
    if len(encoded) != len(conversations):
        raise ValueError("an evaluation row has no answer that can be scored")
    backend = TransformersBackend(found[-1], device=device(), dtype=dtype())
    nll = [float("nan")] * len(encoded)
    for index, logprobs in backend.score(encoded):
        nll[index] = -float(logprobs.mean(dtype="float64"))
    backend.close()
    return nll, [item.stop - item.start for item in encoded]


def compute() -> Compute:
    """The backend of every score and answer here, in this device's number type."""
    return Compute("transformers", device=device(), dtype=dtype())


def device() -> str:
    """Where everything runs: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> str:
    """What everything runs in: bfloat16 on a GPU, else float32."""
    return "bfloat16" if device() == "cuda" else "float32"
