"""Looks at a corpus: its models, and one example whole, with its scores."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from curate.corpus import Corpus, readable_errors
from curate.errors import CurateError
from curate.queries import dicts, has_ensemble
from curate.tokens_of import example_tokens


def models(corpus: Corpus) -> list[dict[str, Any]]:
    """The models of a corpus as its manifest has them, each with its last run."""
    return [
        {"model": name, **asdict(entry), "last_run": corpus.manifest.runs.get(name)}
        for name, entry in sorted(
            corpus.manifest.models.items(), key=lambda item: (item[1].role, item[0])
        )
    ]


@readable_errors()  # a damaged part may be met late
def one_example(corpus: Corpus, prefix: str) -> dict[str, Any]:
    """One example with its scores and rank, found by its id or the id's first characters.

    Raises:
        CurateError: none or several start so.
    """
    matches = corpus.sql(
        "select example_id from examples where starts_with(example_id, $prefix) limit 2",
        {"prefix": prefix},
    ).fetchall()
    if len(matches) != 1:
        count = "no example" if not matches else "more than one example"
        raise CurateError(f"{corpus.path}: {count} has an id that starts with {prefix!r}")
    key = {"id": matches[0][0]}
    example = dicts(corpus.sql("select * from examples where example_id = $id", key))[0]
    example["scores"] = dicts(
        corpus.sql(
            "select model, role, n_tokens, nll, truncated from scores join models using (model) "
            "where example_id = $id order by role, model",
            key,
        )
    )
    example["skipped"] = dicts(
        corpus.sql("select model, reason from skipped where example_id = $id order by model", key)
    )
    gaps = "select gap, rank, rank_kept, unit from ranks where key = $id::uuid"
    ranked = dicts(corpus.sql(gaps, key)) if has_ensemble(corpus) else []
    example["gap"] = next(iter(ranked), None)
    example["tokens"] = example_tokens(corpus, key["id"])
    return example
