"""axolotl: a YAML to put beside a training configuration, or to train with as it is.

Facts, from axolotl 0.19: merged data is shuffled but with `shuffle_merged_datasets: false`, and
batches are drawn at random but with `curriculum_sampling: true`; rows over `sequence_len` (512)
are dropped but with `excess_length_strategy: raise`.
"""

from __future__ import annotations

from curate.formats.base import Plan, Trainer, quoted, to_choose


def _files(plan: Plan) -> dict[str, str]:
    text = f"""\
# Fine-tune on this mix with axolotl, from this folder:
#   axolotl train axolotl.yaml
base_model: {quoted(plan.model)}
{plan.pinned("revision_of_model")}\
datasets:
{"".join(_dataset(plan, file) for file in plan.files)}\
dataset_prepared_path: prepared
val_set_size: 0
sequence_len: {plan.longest} # no row has more tokens; axolotl's own 512 drops rows
excess_length_strategy: raise # and never drops one unsaid
sample_packing: false # packing puts rows in another order
train_on_inputs: false
{_order(plan)}\
micro_batch_size: {plan.batch_size or 1} # times gradient_accumulation_steps and devices
gradient_accumulation_steps: 1
num_epochs: 1
learning_rate: 0.0001
optimizer: adamw_torch
lr_scheduler: cosine
bf16: auto
output_dir: out
"""
    return {"axolotl.yaml": text + _CHOICES}


_CHOICES = to_choose(
    {"bf16": False, "flash_attention": False},
    adapter="lora",
    lora_r=16,
    lora_alpha=32,
    lora_target_linear=True,
)


def _dataset(plan: Plan, file: str) -> str:
    text = f"""\
  - path: {file}
    ds_type: {plan.reader}
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
    roles_to_train: [assistant]
    train_on_eos: turn
"""
    if "weight" in plan.keys:
        text += "    message_field_training: weight # 0: this turn is not trained on\n"
    return text


def _order(plan: Plan) -> str:
    if plan.separate:
        return f"""\
shuffle_merged_datasets: true # both files are merged; each row once an epoch
seed: {plan.seed}
"""
    return """\
shuffle_merged_datasets: false # the order of the file is the mix
curriculum_sampling: true # and batches are taken in that order
"""


AXOLOTL = Trainer(
    name="axolotl",
    title="axolotl",
    formats=("messages",),
    files=_files,
    run="axolotl train axolotl.yaml",
    meant=frozenset({"system"}),
    reads=frozenset({"tool_calls", "name", "tool_call_id", "reasoning_content", "weight"}),
)
