"""Which examples share a padded batch, and above which length one needs a batch of its own."""

from __future__ import annotations

from typing import Any


def batches(
    lengths: dict[int, int], budget: int, alone_above: int | None = None
) -> list[list[int]]:
    """Group indices by length, longest first, at most `budget` padded tokens a batch.

    `lengths`: index -> tokens. One that is longer than the budget goes alone, and so does one
    longer than `alone_above`.
    """
    groups: list[list[int]] = []
    for i in sorted(lengths, key=lambda i: (-lengths[i], i)):
        first = lengths[groups[-1][0]] if groups else 0
        fits = groups and first * (len(groups[-1]) + 1) <= budget
        if fits and not (alone_above and first > alone_above):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def rope_limit(config: Any, kinds: tuple[str, ...] = ("dynamic", "longrope")) -> int | None:
    """Tokens above which a model's rotary frequencies depend on the longest text; None: never.

    `config`: a transformers configuration. Some models have settings for each kind of layer.
    """
    config = config.get_text_config()
    settings = getattr(config, "rope_parameters", None) or {}
    limits = [
        rope.get("original_max_position_embeddings") or config.max_position_embeddings
        for rope in (settings, *settings.values())
        if isinstance(rope, dict) and rope.get("rope_type") in kinds
    ]
    return min(limits, default=None)
