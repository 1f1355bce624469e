"""TRL's SFTTrainer: a YAML for `trl sft`.

Facts, from TRL 1.16 and transformers 5.23: prompt and completion take the loss on the completion
alone, `messages` on everything but with `assistant_only_loss`; rows over `max_length` (1,024) are
cut; batches are drawn at random but with `train_sampling_strategy: sequential`; packing reorders.
"""

from __future__ import annotations

from typing import Any

from curate.formats.base import Plan, Trainer, quoted, to_choose


def _files(plan: Plan) -> dict[str, str]:
    order, why = "sequential", "the order of the file is the mix: no shuffling"
    if plan.separate:
        order, why = "random", "rows of both files are drawn at random, each once an epoch"
    loss = "completion_only_loss: true # the loss is on the answer alone"
    if plan.format == "messages":
        loss = "assistant_only_loss: true # else the prompts are trained on too"
    text = f"""\
# Fine-tune on this mix with TRL, from this folder:
#   trl sft --config sft.yaml --output_dir OUT
datasets:
{_datasets(plan)}\
model_name_or_path: {quoted(plan.model)}
{plan.pinned("model_revision")}\
train_sampling_strategy: {order} # {why}
packing: false # packing puts rows in another order
max_length: null # nothing is cut; the longest row has at most {plan.longest} tokens
{loss}
"""
    if plan.separate:
        text += f"data_seed: {plan.seed}\n"
    if plan.batch_size:
        return {"sft.yaml": text + plan.batches + to_choose(_CPU, **_CHOICES)}
    return {"sft.yaml": text + to_choose(_CPU, **_CHOICES, per_device_train_batch_size=8)}


_CPU = {"use_cpu": True, "bf16": False}
_CHOICES = dict[str, Any](
    num_train_epochs=1,
    learning_rate=0.0001,
    use_peft=True,
    lora_r=16,
    lora_alpha=32,
    lora_target_modules="all-linear",
)


def _datasets(plan: Plan) -> str:
    text = ""
    for file, share in zip(plan.files, plan.shares, strict=True):
        text += f"  - path: {plan.reader}\n    data_files: {file}\n"
        text += f"    fraction: {share!r}\n" if plan.separate else ""
    return text


TRL = Trainer(
    name="trl",
    title="TRL",
    formats=("prompt-completion", "messages"),
    files=_files,
    run="trl sft --config sft.yaml --output_dir OUT",
    meant=frozenset({"chosen", "rejected", "seq_lengths", "completion_mask", "assistant_masks"}),
    reads=frozenset({"tool_calls", "name", "tool_call_id", "reasoning_content", "thinking"}),
)
