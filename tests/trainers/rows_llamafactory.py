"""Runs in LLaMA-Factory's environment: what its own loader makes of the folder it runs in."""

import json
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

settings = yaml.safe_load(Path("llamafactory.yaml").read_text(encoding="utf-8"))
model, data, training, tuning, _ = get_train_args(settings | {"report_to": "none"})
loaded = load_tokenizer(model)
tokenizer = loaded["tokenizer"]
template = get_template_and_fix_tokenizer(tokenizer, data)
rows = get_dataset(template, model, data, training, stage="sft", **loaded)["train_dataset"]
found = [
    {
        "text": tokenizer.decode(row["input_ids"]),
        "trained": tokenizer.decode([label for label in row["labels"] if label != -100]),
    }
    for row in rows
]
record = {"rows": found, "shuffles": not tuning.disable_shuffling}
Path("seen.json").write_text(json.dumps(record), encoding="utf-8")
