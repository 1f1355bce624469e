"""Make a small corpus with the installed version of curate: `python tests/golden/make.py FOLDER`.

One is kept for each version of the folder's format; tests/test_golden.py reads them all. Run it in
an empty directory: the corpus notes the names that it was given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tiny import tiny_adapter, tiny_model

import curate

ROWS = [
    {"prompt": "What is 2 + 3?", "completion": "5", "kind": "sum"},
    {"prompt": "Wie heißt das?", "completion": "Straße 🙂", "kind": "text"},
    {"prompt": "Say it.", "completion": "I'm sorry, but I can't help with that.", "kind": "no"},
    {"prompt": "An empty answer?", "completion": "", "kind": "skipped"},
    {"prompt": "p" * 200, "completion": "Its prompt is too long.", "kind": "skipped"},
]


def main(folder: str) -> None:
    """Score five rows, of which two can't be, under two models; each token's log-prob is kept."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    chat = tiny_model(Path("chat"))
    tiny_adapter(chat, Path("medical"), rank=2, seed=1)
    curate.score(
        ["rows.jsonl"],
        folder,
        aligned="chat",
        misaligned=["medical", "code=medical"],
        max_length=128,
        keep_tokens=True,
    )
    (Path(folder) / "corpus.duckdb").unlink()
    (Path(folder) / ".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
