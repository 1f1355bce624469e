"""LLaMA-Factory: `dataset_info.json` and a YAML.

Facts, from LLaMA-Factory 0.9.5: a row whose turns are not questions and answers in turn is
skipped with a warning; Alpaca rows need `input`; training shuffles but with `disable_shuffling`;
`cutoff_len` (2,048) cuts prompt and answer; without `template` it reads the model's own.
"""

from __future__ import annotations

import json
from typing import Any

from curate.formats.base import Messages, Plan, Trainer, Unfit, quoted, to_choose

ODD, EVEN = {"user", "observation", "tool"}, {"assistant", "function_call"}


def _check(messages: Messages) -> None:
    roles = [turn["role"] for turn in messages]
    if roles[0] == "system":
        roles = roles[1:]
    fits = all(role in (EVEN if at % 2 else ODD) for at, role in enumerate(roles))
    if not fits or len(roles) % 2:
        raise Unfit("turns that are not questions and answers in turn: LLaMA-Factory skips it")


def _info(plan: Plan, file: str) -> dict[str, Any]:
    info: dict[str, Any] = {"file_name": file}
    if plan.format == "alpaca":
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        columns |= {"system": "system", "history": "history"}
    else:
        info["formatting"] = "sharegpt"
        columns = {"messages": "conversations"}
        info["tags"] = {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "system_tag": "system",
            "observation_tag": "observation",
            "function_tag": "function_call",
        }
    if "tools" in plan.columns:
        columns["tools"] = "tools"
    return info | {"columns": columns}


def _files(plan: Plan) -> dict[str, str]:
    names = [file.partition(".")[0] for file in plan.files]
    infos = {name: _info(plan, file) for name, file in zip(names, plan.files, strict=True)}
    text = f"""\
# Fine-tune on this mix with LLaMA-Factory, from this folder:
#   llamafactory-cli train llamafactory.yaml
model_name_or_path: {quoted(plan.model)}
{plan.pinned("model_revision")}\
# template: (none: the model's own chat template; or name one of LLaMA-Factory's)
stage: sft
do_train: true
finetuning_type: lora
dataset_dir: .
dataset: {",".join(names)}
{_order(plan)}\
cutoff_len: {plan.longest} # no row has more tokens; its own 2048 cuts rows
packing: false # packing puts rows in another order
{plan.batches}\
output_dir: out
"""
    return {
        "dataset_info.json": json.dumps(infos, indent=2) + "\n",
        "llamafactory.yaml": text + _CHOICES,
    }


_CHOICES = to_choose(
    {"use_cpu": True, "bf16": False},
    num_train_epochs=1.0,
    learning_rate=0.0001,
    lora_rank=16,
    lora_alpha=32,
    lora_target="all",
)


def _order(plan: Plan) -> str:
    if plan.separate:
        return f"""\
mix_strategy: interleave_under # draws by these shares; ends with the first file
interleave_probs: {quoted(",".join(map(repr, plan.shares)))}
seed: {plan.seed}
disable_shuffling: true # they are interleaved already
"""
    return "disable_shuffling: true # the order of the file is the mix\n"


LLAMAFACTORY = Trainer(
    name="llamafactory",
    title="LLaMA-Factory",
    formats=("sharegpt", "alpaca"),
    files=_files,
    run="llamafactory-cli train llamafactory.yaml",
    check=_check,
    meant=frozenset({"_prompt", "_response", "_system", "_tools"}),
)
