"""A corpus that somebody else made: what is wrong with it is a line, and nothing of it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.storage import parts
from curate.storage.schema import EXAMPLES, SCORES
from tests.conftest import Cli
from tests.corpora import corpus as made_corpus


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("examples", {"answer": None}),
        ("examples", {"messages": []}),
        ("examples", {"meta": "{"}),
        ("scores/chat", {"n_tokens": 0}),
        ("scores/chat", {"logprob": float("nan")}),
    ],
)
def test_rows_that_curate_never_writes(
    where: str, values: dict[str, Any], cli: Cli, tmp_path: Path
) -> None:
    """They rank or they don't, and no query ends in a traceback."""
    scores = {"chat": [1.0, 2.0, 3.0], "bad": [2.0, 5.0, 4.0]}
    path = made_corpus(tmp_path / "c", ["a", "b", "c"], scores).path
    part = parts.list_parts(path / where)[0]
    table = pq.read_table(part)
    for name, value in values.items():
        kind = (EXAMPLES if where == "examples" else SCORES).field(name).type
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array([value] * len(table), kind))
    parts.rewrite_part(part, table)
    for command in (["sql", "from gaps"], ["sql", "from scores"], ["status", "--verify"]):
        ran = cli(*command, "-c", path)
        assert (ran.code, ran.err.count("\n")) in ((0, 0), (1, 1)), ran


def test_names_on_tab_are_names(tmp_path: Path) -> None:
    """A shell may run what it is offered: only what can be a model's name is."""
    path = made_corpus(tmp_path / "c", ["a"], {"chat": [1.0], "bad": [2.0]}).path / "curate.json"
    record = json.loads(path.read_text())
    for name in ("$(touch x)", "\\$(touch x)", "a;b", "a b", "--unsafe", "'", "bad2"):
        record["models"][name] = record["models"]["bad"]
    path.write_text(json.dumps(record))
    asked = f"curate export -c {path.parent} --hold-out "
    environment = os.environ | {"_CURATE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": asked}
    command = [sys.executable, "-c", "from curate.cli.app import app; app(prog_name='curate')"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert '"bad"' in ran.stdout
    assert '"bad2"' in ran.stdout
    assert not set("$;\\ -") & set(ran.stdout.partition("((")[2])
