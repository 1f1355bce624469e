"""Looks at a corpus: its models, and one example whole, with its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from curate.corpus.corpus import Corpus, dicts, has_ensemble
from curate.errors import CurateError
from curate.system.sql import readable_errors


def models(corpus: Corpus) -> list[dict[str, Any]]:
    """The models of a corpus as its manifest has them, each with its last run."""
    runs = {name: asdict(run) for name, run in corpus.manifest.runs.items()}
    entries = sorted(corpus.manifest.models.items(), key=lambda item: (item[1].role, item[0]))
    return [{"model": n, **asdict(entry), "last_run": runs.get(n)} for n, entry in entries]


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
    ((example_id,),) = matches

    def rows(query: str) -> list[dict[str, Any]]:
        return dicts(corpus.sql(query, {"id": example_id}))

    (example,) = rows("select * from examples where example_id = $id")
    example["scores"] = rows(
        "select model, role, n_tokens, nll, truncated from scores join models using (model) "
        "where example_id = $id order by role, model"
    )
    example["skipped"] = rows(
        "select model, reason from skipped where example_id = $id order by model"
    )
    gaps = "select gap, rank, rank_kept, unit from ranks where key = $id::uuid"
    example["gap"] = next(iter(rows(gaps)), None) if has_ensemble(corpus) else None
    example["tokens"] = tokens_of_examples(corpus, [example_id]).get(example_id)
    return example


def tokens_of_examples(
    corpus: Corpus, example_ids: Sequence[str], hold_out: Sequence[str] = ()
) -> dict[str, list[tuple[str, float]]]:
    """Each answer's tokens, each as its text and its gap, in one pass over the scores.

    A token's gap is the mean of its loss over the misaligned models (but those of `hold_out`) less
    its loss under the aligned one, in nats; the gap of `gaps` compares their means. Examples are
    left out of which a model kept no tokens, or cuts the answer into others.
    """
    rows = corpus.sql(
        """
        select hex_id(key),
               any_value(tokens) filter (role = 'aligned') as texts,
               any_value(token_logprobs) filter (role = 'aligned') as aligned,
               list(token_logprobs order by model) filter (role = 'misaligned') as misaligned
        from token_parts
        join (select model, tokenizer from models) using (model)
        where key in (select unnest($ids::uuid[])) and not list_contains($hold_out, model)
        group by key
        having count(distinct tokenizer) = 1 and count(token_logprobs) = count(*)
            and count(distinct len(token_logprobs)) = 1
        """,
        {"ids": list(example_ids), "hold_out": list(hold_out)},
    ).fetchall()
    found = {}
    for example_id, texts, aligned, misaligned in rows:
        if texts is not None and misaligned and len(texts) == len(aligned):
            gaps = np.asarray(aligned) - np.mean(misaligned, axis=0)
            found[example_id] = list(zip(texts, gaps.tolist(), strict=True))
    return found
