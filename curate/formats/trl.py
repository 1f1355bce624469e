"""TRL's SFTTrainer: a YAML for `trl sft`.

Facts, from TRL 1.16 and transformers 5.23: prompt and completion take the loss on the completion
alone, `messages` on everything but with `assistant_only_loss`; rows over `max_length` (1,024) are
cut; batches are drawn at random but with `train_sampling_strategy: sequential`; packing reorders.
"""

from __future__ import annotations

from curate.formats.base import Plan, Trainer, quoted


def _files(plan: Plan) -> dict[str, str]:
    return {"sft.yaml": _HEAD + _datasets(plan) + _settings(plan)}


_HEAD = """\
# Fine-tune on this mix with TRL, from this folder:
#   trl sft --config sft.yaml --output_dir OUT
"""


def _datasets(plan: Plan) -> str:
    lines = ["datasets:"]
    for file, share in zip(plan.files, plan.shares, strict=True):
        lines += [f"  - path: {plan.reader}", f"    data_files: {file}"]
        if plan.separate:
            lines.append(f"    fraction: {share!r}")
    return "\n".join(lines) + "\n"


def _settings(plan: Plan) -> str:
    order = "random" if plan.separate else "sequential"
    why = "rows of both files are drawn at random, each once an epoch"
    if not plan.separate:
        why = "the order of the file is the mix: no shuffling"
    lines = [
        f"model_name_or_path: {quoted(plan.model)}",
        f"train_sampling_strategy: {order} # {why}",
        "packing: false # packing puts rows in another order",
        f"max_length: null # nothing is cut; the longest row has at most {plan.longest} tokens",
    ]
    if plan.format == "messages":
        lines.append("assistant_only_loss: true # else the prompts are trained on too")
    else:
        lines.append("completion_only_loss: true # the loss is on the answer alone")
    if plan.separate:
        lines.append(f"data_seed: {plan.seed}")
    if plan.batch_size:
        lines += [
            f"per_device_train_batch_size: {plan.batch_size} # with gradient accumulation and",
            f"gradient_accumulation_steps: 1 # devices, their product is to stay {plan.batch_size}",
        ]
    return "\n".join(lines) + "\n"


TRL = Trainer(
    name="trl",
    title="TRL",
    formats=("prompt-completion", "messages"),
    files=_files,
    run="trl sft --config sft.yaml --output_dir OUT",
    meant=frozenset({"chosen", "rejected", "seq_lengths", "completion_mask", "assistant_masks"}),
    reads=frozenset({"tool_calls", "name", "tool_call_id", "reasoning_content", "thinking"}),
)
