"""The reference loop that backends are compared with: one example at a time, nothing merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from curate.backends.weights import (
    choose_device,
    choose_dtype,
    empty_cache,
    is_out_of_memory,
    quiet,
)
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model


def plain_nlls(
    model: Model,
    encoded: Sequence[Encoded],
    device: str | None,
    dtype: str | None,
    on_example: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """The NLL of each example in nats per answer token, from transformers' own loss over labels.

    It shares only the tokens with the backends: no batches, no padding, no merged adapters, no
    split head. `on_example` is called with the number of tokens of each finished example.

    Raises `CurateError` if the model or an example does not fit into memory.
    """
    place = choose_device(device)
    try:
        found = _score(_load(model, place, choose_dtype(dtype, place)), encoded, place, on_example)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CurateError(
            f"{model.name}: out of memory on {place} in the reference loop of verify. "
            "Lower --max-length, use a smaller --dtype, or all GPUs with --device cuda."
        ) from error
    empty_cache(place)
    return found


@torch.no_grad()
def _score(
    net: Any, encoded: Sequence[Encoded], place: torch.device, on_example: Callable[[int], None]
) -> list[float]:
    found = []
    for item in encoded:
        ids = torch.tensor([item.ids[: item.stop]], device=place)
        logits = net(input_ids=ids, use_cache=False).logits[0, item.start - 1 : item.stop - 1]
        wanted = ids[0, item.start : item.stop].to(logits.device)
        found.append(float(torch.nn.functional.cross_entropy(logits.float(), wanted)))
        on_example(item.stop)
    return found


def _load(model: Model, device: torch.device, dtype: torch.dtype) -> Any:
    """The model as transformers and peft load it; "cuda" spreads it over all GPUs."""
    import peft

    where: Any = None if device.type == "cpu" else {"": device}
    if device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1:
        where = "auto"
    with quiet():
        net: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model.path, dtype=dtype, device_map=where, local_files_only=True, use_safetensors=True
        )
        # peft can't load adapters into offloaded weights.
        if {"cpu", "disk"} & {str(place) for place in getattr(net, "hf_device_map", {}).values()}:
            raise torch.OutOfMemoryError("out of memory: all GPUs together")
        if model.adapter is not None:
            net = peft.PeftModel.from_pretrained(net, str(model.adapter))
    return net.eval()
