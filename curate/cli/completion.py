"""What the shell offers on Tab: names of queries and of a corpus's models, read without DuckDB."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from curate.storage import documents


def query_names(incomplete: str) -> list[str]:
    """Named queries that begin so."""
    from importlib import resources

    files = resources.files("curate.sql").iterdir()
    names = (file.name.removesuffix(".sql") for file in files if file.name.endswith(".sql"))
    return sorted(name for name in names if name.startswith(incomplete))


def misaligned_names(context: typer.Context, incomplete: str) -> list[str]:
    """Misaligned models, of the corpus that the line names so far, that begin so.

    A shell may run what it is offered, so names of a stranger's corpus that no model can have go.
    """
    folder = Path(context.params.get("corpus") or ".")
    try:
        models = documents.load(folder / "curate.json")["models"]
        found = [name for name, entry in models.items() if entry["role"] == "misaligned"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    plain = (name for name in found if re.fullmatch(r"\w[\w.-]*", name, re.ASCII))
    return sorted(name for name in plain if name.startswith(incomplete))
