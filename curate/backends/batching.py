"""Which examples share a padded batch, and which models need one alone or one after the other."""

from __future__ import annotations

from typing import Any

import torch


def batches(
    lengths: dict[int, int], budget: int, alone_above: int | None = None
) -> list[list[int]]:
    """Group indices by length, longest first, at most `budget` padded tokens a batch.

    `lengths`: index -> tokens. One that is longer than the budget goes alone, and so does one
    longer than `alone_above`.
    """
    order = sorted(lengths, key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        first = lengths[groups[-1][0]] if groups else 0
        fits = groups and first * (len(groups[-1]) + 1) <= budget
        if fits and not (alone_above and first > alone_above):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def rope_limit(net: Any) -> int | None:
    """The length above which a model's rotary frequencies depend on the batch's longest row."""
    limits = []
    for module in net.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
        if any(k and ("dynamic" in k or k == "longrope") for k in kinds):
            limits.append(_original_length(module.config))
    return min(limits, default=None)


Kept = dict[tuple[str, str], tuple[torch.Tensor, int]]


def kept(net: Any) -> Kept:
    """The tensors that modules hold beside their weights, and how often each was written.

    Modules that hold others after a call remember it, with no cache asked for, as RecurrentGemma's
    do: batches beside each other would mix that up. (transformers' `_is_stateful` says it of more
    models than these, such as Mamba, whose state is all in the cache.)
    """
    return {
        (name, key): (value, 0 if value.is_inference() else value._version)
        for name, module in net.named_modules()
        for key, value in {**vars(module), **module._buffers}.items()
        if isinstance(value, torch.Tensor)
    }


def same(before: Kept, after: Kept) -> bool:
    """Whether these are the same tensors, not written in between."""
    return before.keys() == after.keys() and all(
        after[key][0] is value and after[key][1] == version
        for key, (value, version) in before.items()
    )


def _original_length(config: Any) -> int:
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [rope, *(r for r in rope.values() if isinstance(r, dict))]
    given = [
        r["original_max_position_embeddings"]
        for r in nested
        if r.get("original_max_position_embeddings")
    ]
    return int(min(given, default=config.max_position_embeddings))
