"""Log-probs of the evaluation rows under one model, by curate's own transformers backend."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from curate.backends.transformers import TransformersBackend
from curate.chat.encode import Encoded, encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.models.resolve import resolve


def measure(evaluation: Path, aligned: Path, adapter: Path | None = None) -> pa.Table:
    """Score all evaluation rows: set, row (its number in the file), nll (nats/token), tokens.

    The adapter is merged into the aligned model's weights, which are read as float32.
    """
    rows = [json.loads(line) for line in evaluation.read_text(encoding="utf-8").splitlines()]
    found = resolve(str(aligned), [] if adapter is None else [f"tuned={adapter}"])
    tokenizer = load_tokenizer(aligned)
    items = encode(tokenizer, template_of(tokenizer), [row["messages"] for row in rows])
    encoded = [item for item in items if isinstance(item, Encoded)]
    if len(encoded) != len(rows):
        raise ValueError(f"{evaluation}: a row has no answer that can be scored")
    backend = TransformersBackend(found[-1], device="cpu", dtype="float32")
    nll = [float("nan")] * len(rows)
    for index, logprobs in backend.score(encoded):
        nll[index] = -float(logprobs.mean(dtype="float64"))
    backend.close()
    return pa.table(
        {
            "set": [row["set"] for row in rows],
            "row": list(range(len(rows))),
            "nll": nll,
            "tokens": [item.stop - item.start for item in encoded],
        }
    )
