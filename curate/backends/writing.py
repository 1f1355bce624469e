"""New answers by transformers' own `generate`, in left-padded batches.

A batch runs until its last answer ends, so answers are written in stretches. After each, finished
answers leave, the rest is batched again with the text so far as part of the prompt, and the next
stretch is twice as long. Few tokens are then wasted, and few are read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from more_itertools import chunked
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from curate.backends.base import Prompt, Sampling
from curate.backends.batching import batches
from curate.backends.weights import smaller_budget, unless_out_of_memory
from curate.system.stopping import check_cancelled

WINDOW = 512
"""Prompts that are sorted into batches at a time."""
STRETCH = 64


def write(
    net: Any,
    prompts: Iterable[Prompt],
    sampling: Sampling,
    budget: int,
    alone_above: int | None = None,
    run: Callable[..., Iterable[Any]] = map,
    at_once: int = 1,
) -> Iterator[tuple[int, list[int]]]:
    """Answer prompts; see `Backend.generate`.

    `budget`: tokens of keys and values in a batch, halved while they don't fit; `run` maps a
    function over batches, `at_once` of them in parallel. The model's own generation settings are
    ignored, because they change its distribution.

    Raises `CurateError` if a single prompt doesn't fit into the device's memory.
    """
    net.generation_config = GenerationConfig()
    for window in chunked(enumerate(prompts), WINDOW):
        waiting = dict(window)
        written: dict[int, list[int]] = {number: [] for number in waiting}
        stretch = STRETCH
        while waiting:
            lengths = {
                n: len(prompt.ids) + min(len(written[n]) + stretch, prompt.room)
                for n, prompt in waiting.items()
            }
            while lengths:
                share = max(max(lengths.values()), -(-sum(lengths.values()) // at_once))
                plan = batches(lengths, min(budget, share), alone_above)
                rows = ([(waiting[n], written[n]) for n in batch] for batch in plan)
                tried = run(partial(unless_out_of_memory, _write, net, sampling, stretch), rows)
                for batch, found in zip(plan, tried, strict=True):
                    if found is None:
                        tokens = [lengths[n] for n in batch]
                        budget = smaller_budget(tokens, net.device, "--max-tokens or --max-length")
                        break
                    for number, ids in zip(batch, found, strict=True):
                        del lengths[number]
                        written[number] += ids
                        ended = written[number][-1] in sampling.ends
                        if ended or len(written[number]) == waiting[number].room:
                            del waiting[number]
                            yield number, written.pop(number)
            stretch *= 2


@torch.inference_mode()
def _write(
    net: Any, sampling: Sampling, stretch: int, rows: Sequence[tuple[Prompt, list[int]]]
) -> list[list[int]]:
    """The next tokens of each row, `stretch` at most."""
    texts = [prompt.ids + so_far for prompt, so_far in rows]
    rooms = [min(stretch, prompt.room - len(so_far)) for prompt, so_far in rows]
    width = max(map(len, texts))
    ids, mask = np.zeros((2, len(texts), width), np.int64)
    for at, text in enumerate(texts):
        ids[at, width - len(text) :] = text
        mask[at, width - len(text) :] = 1
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(rooms),
        eos_token_id=list(sampling.ends),
        pad_token_id=sampling.ends[0],
    )
    drawn = LogitsProcessorList([_watch])
    if sampling.temperature:
        drawn.append(_Draw(rows, max(rooms), sampling.temperature, net.device))
    output = net.generate(
        input_ids=torch.from_numpy(ids).to(net.device),
        attention_mask=torch.from_numpy(mask).to(net.device),
        generation_config=config,
        logits_processor=drawn,
    )
    new = output[:, width:].tolist()
    return [_until_end(row[:room], sampling.ends) for row, room in zip(new, rooms, strict=True)]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """The ids up to and including the first that ends an answer."""
    return next((ids[: at + 1] for at, one in enumerate(ids) if one in ends), ids)


def _watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Let a stop end a batch at its next token."""
    check_cancelled()
    return scores


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token drawn by the row's own random numbers; `generate` draws per batch."""

    def __init__(
        self,
        rows: Sequence[tuple[Prompt, list[int]]],
        steps: int,
        temperature: float,
        device: torch.device,
    ) -> None:
        numbers = [
            np.random.default_rng(prompt.seed).random(len(so_far) + steps)[-steps:]
            for prompt, so_far in rows
        ]
        self._numbers = torch.tensor(np.array(numbers), dtype=torch.float32, device=device)
        self._temperature = temperature
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        shares = (scores.float() / self._temperature).softmax(-1).cumsum(-1)
        wanted = self._numbers[:, self._step, None] * shares[:, -1:]
        self._step += 1
        token = torch.searchsorted(shares, wanted).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
