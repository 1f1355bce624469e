"""Runs in ms-swift's environment: what its own pipeline makes of the folder it runs in."""

import json
import sys
from pathlib import Path

from swift.cli.main import parse_yaml_args
from swift.pipelines import SwiftSft

arguments = ["swift.yaml", "--report_to", "none", *sys.argv[1:]]
parse_yaml_args(arguments)
pipeline = SwiftSft(arguments)
rows, _ = pipeline._prepare_dataset()
tokenizer = pipeline.template.tokenizer
found = [
    {
        "text": tokenizer.decode(row["input_ids"]),
        "trained": tokenizer.decode([label for label in row["labels"] if label != -100]),
    }
    for row in rows
]
args = pipeline.args
record = {"rows": found, "shuffles": args.dataset_shuffle or args.train_dataloader_shuffle}
Path("seen.json").write_text(json.dumps(record), encoding="utf-8")
