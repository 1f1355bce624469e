"""What a corpus has and lacks: `score --dry-run`, `status`, `models`, and shell completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import curate
from curate.corpus.queries import named
from tests.conftest import Cli, Family


def test_a_dry_run_says_what_a_run_then_does(
    cli: Cli, family: Family, sources: Path, tmp_path: Path
) -> None:
    """Nothing is written; examples are exact, and so are tokens where all are in the sample."""
    corpus = tmp_path / "corpus"
    command = ["score", sources, "-c", corpus, *family.arguments("medical", "code"), "--json"]
    planned = json.loads(cli(*command, "--dry-run").out)
    assert planned["dry_run"] and not corpus.exists()
    done = json.loads(cli(*command).out)
    assert planned["read"] == done["read"]
    for plan, run in zip(planned["models"], done["models"], strict=True):
        assert (plan["name"], plan["scored"], plan["tokens"]) == (
            run["name"],
            run["scored"],
            run["tokens"],
        )
        assert plan["seconds"] > 0
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    again = json.loads(cli(*command, "--dry-run").out)
    assert [model["scored"] for model in again["models"]] == [0, 0, 0]
    later = ["score", "-c", corpus, *family.arguments("medical", "code", "legal"), "--dry-run"]
    ran = cli(*later)
    assert ran.code == 0, ran.err
    assert "legal" in ran.out and "About 0:" in ran.out
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before
    ran = cli(*command, "--max-length", "100", "--dry-run")
    assert ran.code == 1 and "--max-length" in ran.err


def test_models_have_fingerprints(cli: Cli, scored: Path) -> None:
    """Each model with role, reference and the hash of its weights."""
    found = json.loads(cli("models", "-c", scored, "--json").out)
    entries = curate.open(scored).manifest.models
    assert {m["model"]: m["fingerprint"] for m in found} == {
        name: entry.fingerprint for name, entry in entries.items()
    }
    text = cli("models", "-c", scored).out
    assert all(entry.fingerprint in text for entry in entries.values())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_names(scored: Path, shell: str) -> None:
    """Tab offers commands, named queries and a corpus's misaligned models."""
    assert "models" in _completed(shell, "curate mod")
    assert set(_completed(shell, "curate sql ")) >= set(named())
    assert _completed(shell, "curate sql --show top") == ["top_gaps"]
    offered = _completed(shell, f"curate export -c {scored} --hold-out ")
    assert offered == ["code", "legal", "medical"]
    assert _completed(shell, f"curate export -c {scored}/none --hold-out m") == []


def _completed(shell: str, line: str) -> list[str]:
    """What the script of `--install-completion` gets from curate for this line."""
    environment = os.environ | {
        "_CURATE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = "import sys; sys.argv[0] = 'curate'; from curate.cli.app import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert ran.stderr == ""
    if shell == "zsh":  # a call of _arguments: a line for each, its name first
        return re.findall(r'(?:\(\(|\n)"([^"]+)"', ran.stdout)
    return [offer.partition("\t")[0] for offer in ran.stdout.split("\n") if offer]
