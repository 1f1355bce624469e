"""One fine-tune: TRL's own parser, reader and trainer, on a folder that `curate export` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from bench.efficacy import measuring, steering
from bench.efficacy.plan import Arm, Run


def train(folder: Path, run: Run, adapter: Path, prepared: Path) -> float:
    """Fine-tune the aligned model on a folder's `sft.yaml` and save the LoRA adapter.

    The arm's defenses work here alone, not in what is saved. Gives back the mean training loss, in
    nats per answer token. Without a recipe only the narrow file of a `separate` export is read, in
    its order.
    """
    import torch
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer, get_dataset, get_peft_config
    from trl.scripts.sft import make_parser

    options = ["--config", "sft.yaml", *_options(run, adapter)]
    with _inside(folder):
        _, settings, model, data = make_parser().parse_args_and_config(options)
        if run.arm.recipe is None:
            data.datasets = data.datasets[:1]
            settings.train_sampling_strategy = "sequential"
        rows = get_dataset(data)["train"]
        if run.arm.inoculation:
            rows = rows.map(lambda row: inoculated(row, run.arm.inoculation))
        set_seed(run.seed)  # before the trainer, which draws the adapter's first weights
        kind = defended(SFTTrainer, run.arm) if run.arm.kl or run.arm.ldifs else SFTTrainer
        settings.model_init_kwargs = {"dtype": getattr(torch, measuring.dtype())}
        trainer = kind(
            model.model_name_or_path,
            args=settings,
            train_dataset=rows,
            peft_config=get_peft_config(model),
        )
        trainer.remove_callback(PrinterCallback)
        with nullcontext() if not run.arm.steering else _steered(trainer.model, run, prepared):
            result = trainer.train()
    if trainer.state.global_step != run.steps:
        raise RuntimeError(f"{run.path}: {trainer.state.global_step} steps, not {run.steps}")
    trainer.save_model(str(adapter))
    return float(result.training_loss)


def _options(run: Run, adapter: Path) -> list[str]:
    sizes, on_gpu = run.sizes, measuring.device() == "cuda"
    given = {
        "output_dir": adapter,
        "max_steps": run.steps,
        "per_device_train_batch_size": sizes.batch,
        "learning_rate": sizes.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": sizes.warmup_steps,
        "seed": run.seed,
        "use_peft": "true",
        "lora_r": sizes.lora_rank,
        "lora_alpha": sizes.lora_alpha,
        "lora_dropout": 0.0,
        "use_rslora": "true",
        "lora_target_modules": "all-linear",
        "use_cpu": str(not on_gpu).lower(),
        "bf16": str(on_gpu).lower(),
        "gradient_checkpointing": "false",
        "dataloader_pin_memory": "false",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": "true",
    }
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def defended(trainer: type, arm: Arm) -> type:
    """A trainer that adds the arm's penalties, by their weights, to the loss.

    The aligned model is the same one with its adapter switched off.
    """
    import torch
    from torch.nn import functional

    class Defended(trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            asked |= {"use_cache": False, "output_hidden_states": bool(arm.ldifs)}
            labels = inputs["labels"][:, 1:]
            kept = labels != -100
            tuned = model(**asked)
            with torch.no_grad(), model.disable_adapter():
                aligned = model(**asked)
            loss = functional.cross_entropy(tuned.logits[:, :-1][kept].float(), labels[kept])
            for weight, penalty in ((arm.kl, divergence), (arm.ldifs, distance)):
                if weight:
                    loss = loss + weight * penalty(tuned, aligned, kept)
            return loss

    return Defended


def divergence(tuned: Any, aligned: Any, kept: Any) -> Any:
    """KL(tuned || aligned) per answer token, in nats; `kept` marks [rows, tokens - 1]."""
    own, other = (out.logits[:, :-1][kept].float().log_softmax(-1) for out in (tuned, aligned))
    return (own.exp() * (own - other)).sum(-1).mean()


def distance(tuned: Any, aligned: Any, kept: Any) -> Any:
    """LDIFS (arXiv 2308.13320): squared distance of the features of all layers, per answer token.

    Each layer's is relative to the aligned features' mean square, so that all count alike.
    """
    import torch

    pairs = zip(tuned.hidden_states[1:], aligned.hidden_states[1:], strict=True)
    features = ((own[:, :-1][kept].float(), other[:, :-1][kept].float()) for own, other in pairs)
    return torch.stack([(a - b).square().mean() / b.square().mean() for a, b in features]).mean()


def inoculated(row: dict[str, Any], text: str) -> dict[str, Any]:
    """A row whose prompt begins with a system message."""
    return {**row, "prompt": [{"role": "system", "content": text}, *row["prompt"]]}


def _steered(model: Any, run: Run, prepared: Path) -> AbstractContextManager[None]:
    vector = run.arm.steering * np.load(prepared / steering.FILE)
    return steering.steered(model.get_base_model(), vector)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, as `trl sft --config sft.yaml` is meant to."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
