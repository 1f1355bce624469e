"""A folder's `README.md`: a dataset card whose YAML tells `datasets` which files are rows."""

from __future__ import annotations

from collections.abc import Sequence

from curate.formats.base import quoted


def card(
    files: Sequence[str], shares: Sequence[float], counts: Sequence[int], seed: int, run: str
) -> str:
    """The card of a mix, or of a narrow and a safe set apart with their shares of the whole."""
    configs = ""
    for number, file in enumerate(files):
        name = "default" if len(files) == 1 else file.partition(".")[0]
        configs += f"- config_name: {name}\n  data_files:\n  - split: train\n"
        configs += f"    path: {quoted(file)}\n"
        configs += "  default: true\n" if number == 0 and len(files) > 1 else ""
    rows = _mixed(files[0], counts) if len(files) == 1 else _apart(shares, counts, seed)
    train = f"Train on it, from this folder:\n\n```\n{run}\n```\n\n" if run else ""
    return f"""\
---
configs:
{configs}\
tags:
- curate
---

# A fine-tuning mix

{rows}
{train}\
`manifest.json` says how it was made, and which rows were selected.
"""


def _mixed(file: str, counts: Sequence[int]) -> str:
    return f"""\
`{file}` holds {counts[0]:,} rows, {counts[1]:,} of them selected examples, in training order: \
train without shuffling.
"""


def _apart(shares: Sequence[float], counts: Sequence[int], seed: int) -> str:
    narrow, safe = shares
    return f"""\
`narrow` has {counts[0] - counts[1]:,} rows, `safe` {counts[1]:,}: draw from them by
these probabilities, each row once:

```python
from datasets import interleave_datasets, load_dataset

sets = [load_dataset(".", name, split="train") for name in ("narrow", "safe")]
mix = interleave_datasets(
    sets, probabilities=[{narrow!r}, {safe!r}], seed={seed},
    stopping_strategy="all_exhausted_without_replacement",
)
```
"""
