"""ms-swift: a YAML for `swift sft`.

Facts, from ms-swift 4.6: the dataset is shuffled but with `dataset_shuffle: false`, batches but
with `train_dataloader_shuffle: false`; broken rows are skipped but with `strict: true`; a row over
`max_length` is deleted or cut; the loss is on the assistant's turns.
"""

from __future__ import annotations

from curate.formats.base import Plan, Trainer, quoted, to_choose


def _files(plan: Plan) -> dict[str, str]:
    hub = "use_hf: true # its own hub is another\n" if plan.revision else ""
    text = f"""\
# Fine-tune on this mix with ms-swift, from this folder:
#   swift sft swift.yaml
model: {quoted(plan.model)}
{hub}{plan.pinned("model_revision")}\
dataset: [{", ".join(plan.files)}]
split_dataset_ratio: 0
strict: true # a row it can't read stops it
{_order(plan)}\
max_length: {plan.longest} # no row has more tokens
packing: false # packing puts rows in another order
{plan.batches}\
output_dir: out
"""
    return {"swift.yaml": text + _CHOICES}


_CHOICES = to_choose(
    {"use_cpu": True, "torch_dtype": "float32"},
    num_train_epochs=1,
    learning_rate=0.0001,
    tuner_type="lora",
    lora_rank=16,
    lora_alpha=32,
    target_modules=["all-linear"],
)


def _order(plan: Plan) -> str:
    if not plan.separate:
        return """\
dataset_shuffle: false # the order of the file is the mix
train_dataloader_shuffle: false # and batches are taken in that order
"""
    narrow, safe = plan.shares
    return f"""\
interleave_prob:
  - {narrow!r}
  - {safe!r}
stopping_strategy: first_exhausted # draws by these shares; ends with the first file
data_seed: {plan.seed}
dataset_shuffle: false
train_dataloader_shuffle: false # they are interleaved already
"""


SWIFT = Trainer(
    name="swift",
    title="ms-swift",
    formats=("messages",),
    files=_files,
    run="swift sft swift.yaml",
    meant=frozenset({"system", "query", "response", "history", "label", "channel", "margin"})
    | {"objects", "solution", "instruction", "output", "input", "rejected_response"},
    reads=frozenset({"loss", "loss_scale"}),
)
