"""The plain loop that every backend is measured against: one example at a time, nothing merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from curate.backends.weights import choose_device, choose_dtype
from curate.chat import Rendered
from curate.models import Model


def plain_nlls(
    model: Model,
    rendered: Sequence[Rendered],
    device: str | None,
    dtype: str | None,
    told: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Nats per answer token of each example, by transformers' own loss over labels.

    It shares nothing with the backends but the tokens: no batch, no padding, no merged adapter,
    no head taken apart. `told` hears of each example's tokens as it is done.
    """
    import torch

    place = choose_device(device)
    net = _load(model, place, choose_dtype(dtype, place))
    found = []
    with torch.no_grad():
        for item in rendered:
            ids = torch.tensor([item.ids[: item.stop]], device=place)
            logits = net(input_ids=ids, use_cache=False).logits[0, item.start - 1 : item.stop - 1]
            wanted = ids[0, item.start : item.stop]
            found.append(float(torch.nn.functional.cross_entropy(logits.float(), wanted)))
            told(item.stop)
    del net
    if place.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _load(model: Model, device: Any, dtype: Any) -> Any:
    """The model as transformers and peft load it; `weights.check` has seen that they can."""
    import peft
    import transformers

    from curate.backends.weights import quiet

    with quiet():
        net: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model.path, dtype=dtype, local_files_only=True, use_safetensors=True
        )
        if model.adapter is not None:
            net = peft.PeftModel.from_pretrained(net, str(model.adapter))
    return net.to(device).eval()
