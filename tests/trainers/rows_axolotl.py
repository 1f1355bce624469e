"""Runs in axolotl's environment: what its own preprocessing makes of the folder it runs in."""

import json
import os
from pathlib import Path


def main() -> None:
    """Write what would be trained on to seen.json."""
    os.environ["AXOLOTL_IS_PREPROCESS"] = "1"
    os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"
    from axolotl.cli.args import PreprocessCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.loaders import load_tokenizer

    config = load_cfg("axolotl.yaml")
    config.is_preprocess = True
    config.dataset_num_proc = 1  # a few rows: workers take longer to start
    rows = load_datasets(cfg=config, cli_args=PreprocessCliArgs()).train_dataset
    tokenizer = load_tokenizer(config)
    found = [
        {
            "text": tokenizer.decode(row["input_ids"]),
            "trained": tokenizer.decode([label for label in row["labels"] if label != -100]),
        }
        for row in rows
    ]
    shuffles = bool(config.shuffle_merged_datasets) or not config.curriculum_sampling
    record = {"rows": found, "shuffles": shuffles}
    Path("seen.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":  # its workers start by importing this file again
    main()
