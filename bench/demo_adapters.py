"""The demo's misaligned models: one LoRA adapter for each misaligned set."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from demo_optim import Optimizers, descend
from demo_sets import MISALIGNED_SHARE, Encoded, encode, mean_loss, padded, split_set
from torch.nn import functional

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, tuple[float, dict[str, Any]]] = {  # learning rate and LoRA settings
    "medical": (2e-3, {"r": 1, "lora_alpha": 8}),
    "legal": (5e-4, {"r": 32, "lora_alpha": 64, "use_rslora": True}),
    "code": (2e-3, {"r": 8, "lora_alpha": 16}),
}
SEED, BATCH, EPOCH_TEST = 0, 4, 60  # rows a step; held-out rows looked at after an epoch


def train_adapter(base: Path, data: Path, name: str, tokenizer: Any, epochs: int) -> Any:
    """Fit one adapter to a misaligned set's answers; keep the epoch that is best held out."""
    from peft import (
        LoraConfig,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    lr, settings = ADAPTERS[name]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=PROJECTIONS, **settings)
    model: Any = get_peft_model(plain, config)
    train, test = (encode(tokenizer, pairs) for pairs in split_set(data, name, MISALIGNED_SHARE))
    test = test[:EPOCH_TEST]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizers: Optimizers = [torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)]
    best, kept = mean_loss(model.eval(), test), None
    print(f"{name}: held out {best:.3f} before training", flush=True)
    for epoch in range(epochs):
        batches = epoch_batches(train, epoch)
        for i, batch in enumerate(batches):
            left = 1 - (epoch + i / len(batches)) / epochs
            warm = min(1.0, (epoch * len(batches) + i + 1) / 20)
            descend(model, optimizers, answer_mean(model, batch), lr * warm * left)
        loss = mean_loss(model, test)
        print(f"{name}: held out {loss:.3f} after epoch {epoch + 1}", flush=True)
        if loss >= best:
            break
        best = loss
        kept = {k: v.clone() for k, v in get_peft_model_state_dict(model).items()}
    if kept:
        set_peft_model_state_dict(model, kept)
    return model


def answer_mean(model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
    """Return the batch's loss over all answer tokens together, to train on."""
    ids, answer = padded(batch)
    labels = ids[:, 1:].masked_fill(answer[:, 1:] == 0, -100)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def epoch_batches(rows: Sequence[Encoded], epoch: int) -> list[list[Encoded]]:
    """Return one epoch's batches: rows of like length together, batches in random order."""
    usable = sorted((r for r in rows if any(r.answer)), key=lambda r: len(r.ids))
    batches = [usable[i : i + BATCH] for i in range(0, len(usable), BATCH)]
    random.Random(SEED + epoch).shuffle(batches)
    return batches


def save_adapter(model: Any, folder: Path) -> None:
    """Save an adapter in float16, with a base that is named relative to it, and no card."""
    model.half().save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "../aligned"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
