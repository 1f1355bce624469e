"""One fine-tune: TRL's own parser, reader and trainer, on a folder that `curate export` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.efficacy.plan import BATCH, LEARNING_RATE, LORA_ALPHA, LORA_RANK, Run


def train(folder: Path, run: Run, adapter: Path) -> float:
    """Fine-tune the aligned model on a folder's `sft.yaml` and save the LoRA adapter.

    Gives back the mean training loss, in nats per answer token. Without a recipe only the narrow
    file of a `separate` export is read, in its order.
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
        set_seed(run.seed)  # before the trainer, which draws the adapter's first weights
        kind = SFTTrainer if not run.arm.kl else _with_divergence(SFTTrainer, run.arm.kl)
        settings.model_init_kwargs = {"dtype": torch.float32}
        trainer = kind(
            model.model_name_or_path,
            args=settings,
            train_dataset=rows,
            peft_config=get_peft_config(model),
        )
        trainer.remove_callback(PrinterCallback)
        result = trainer.train()
    if trainer.state.global_step != run.arm.steps:
        raise RuntimeError(f"{run.path}: {trainer.state.global_step} steps, not {run.arm.steps}")
    trainer.save_model(str(adapter))
    return float(result.training_loss)


def _options(run: Run, adapter: Path) -> list[str]:
    given = {
        "output_dir": adapter,
        "max_steps": run.arm.steps,
        "per_device_train_batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": 4,
        "seed": run.seed,
        "use_peft": "true",
        "lora_r": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "use_rslora": "true",
        "lora_target_modules": "all-linear",
        "use_cpu": "true",
        "bf16": "false",
        "gradient_checkpointing": "false",
        "dataloader_pin_memory": "false",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": "true",
    }
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def _with_divergence(trainer: type, weight: float) -> type:
    """A trainer that adds weight * KL(model || aligned model), per answer token.

    The aligned model is the same one with its adapter switched off.
    """
    import torch
    from torch.nn import functional

    class Regularised(trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            labels = inputs["labels"][:, 1:]
            kept = labels != -100
            logits = model(**asked, use_cache=False).logits[:, :-1][kept]
            with torch.no_grad(), model.disable_adapter():
                aligned = model(**asked, use_cache=False).logits[:, :-1][kept]
            own, other = logits.log_softmax(-1), aligned.log_softmax(-1)
            divergence = (own.exp() * (own - other)).sum(-1).mean()
            return functional.nll_loss(own, labels[kept]) + weight * divergence

    return Regularised


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, as `trl sft --config sft.yaml` is meant to."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
