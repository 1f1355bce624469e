"""Models whose rotary factors depend on a text's length, which vLLM settles once for an engine.

With longrope (Phi-3, 3.5 and 4-mini) a text of up to the original length is turned by one set of
factors, and a longer one by another. vLLM takes the second for all texts of an engine that has room
for a longer one (phi3_long_rope_scaled_rope.py, 0.32), whatever their lengths: up to 0.4 nats a
token off. Dynamic NTK needs no such care: neither side scales within the model's own context.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.fingerprints import read_json

_ORIGINAL = "original_max_position_embeddings"


def short_limit(path: Path) -> int | None:
    """Tokens of the longest text with a longrope checkpoint's short factors; None for others."""
    config = read_json(path / "config.json")
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
    found = [
        part.get(_ORIGINAL) or rope.get(_ORIGINAL) or part.get("max_position_embeddings")
        for part in parts
        for rope in _ropes(part)
        if {"longrope", "su"} & {rope.get("rope_type"), rope.get("type")}  # su: its old name
    ]
    return min((length for length in found if type(length) is int), default=None)


def _ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration's rotary settings; some models have one for each kind of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        if isinstance(rope, dict):
            yield from (one for one in (rope, *rope.values()) if isinstance(one, dict))
