"""Adapters made to try a backend out: one that changes nothing, and one on the output layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.models import Model, resolve

RANK = 8
NOTHING, HEAD = "curate-nothing", "curate-head"


def make_probes(aligned: Model, folder: Path) -> list[Model]:
    """Write both adapters over the aligned model into a folder; its weights are not read.

    The first has factors of zeros over all inner linear layers, the second random ones over the
    output layer alone.
    """
    from curate.backends import weights

    net = weights.skeleton(aligned)
    head = net.get_output_embeddings()
    name = next(name for name, module in net.named_modules() if module is head)
    _write(net, "all-linear", 0.0, folder / NOTHING)
    _write(weights.skeleton(aligned), [name], 0.1, folder / HEAD)
    both = resolve(str(aligned.path), [str(folder / NOTHING), str(folder / HEAD)])
    return both[1:]


def _write(net: Any, target: Any, size: float, folder: Path) -> None:
    """Save an adapter whose second factors have this standard deviation."""
    import peft
    import torch
    from safetensors.torch import save_file

    from curate.backends.weights import quiet

    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=target, task_type="CAUSAL_LM")
    generator = torch.Generator().manual_seed(0)
    with quiet():
        wrapped = peft.get_peft_model(net, config)
        shapes = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    tensors = {}
    for key, meta in sorted(shapes.items()):
        noise = torch.randn(meta.shape, generator=generator)
        scale = size if "lora_B" in key else meta.shape[-1] ** -0.5
        tensors[key] = (noise * scale).contiguous()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    saved = wrapped.peft_config["default"]
    saved.inference_mode = True
    saved.save_pretrained(str(folder))
