"""What a corpus holds: its state, its models, and single examples with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from curate.corpus.corpus import Corpus, dicts
from curate.corpus.only import chosen
from curate.corpus.race import answer
from curate.errors import CurateError
from curate.storage.manifest import TEMPLATE
from curate.storage.schema import EXAMPLES
from curate.system.sql import readable_errors


def models(corpus: Corpus) -> list[dict[str, Any]]:
    """The models of a corpus, from its manifest, each with its last run."""
    runs = {name: asdict(run) for name, run in corpus.manifest.runs.items()}
    entries = sorted(corpus.manifest.models.items(), key=lambda item: (item[1].role, item[0]))
    return [{"model": n, **asdict(entry), "last_run": runs.get(n)} for n, entry in entries]


def status(corpus: Corpus) -> dict[str, Any]:
    """What the corpus holds and what is missing, per model (sql/coverage.sql)."""
    coverage = dicts(corpus.query("coverage"))
    ranked = "select count(gap) from ranks" if corpus.manifest.misaligned else "select 0"
    counts = dicts(corpus.sql(f"select (select count(*) from examples) as n, ({ranked}) as m"))[0]
    reasons = dicts(corpus.query("skips").limit(10))
    runs = corpus.manifest.runs.items()
    speeds = {name: round(run.tokens / run.seconds) for name, run in runs if run.seconds}
    return {
        "corpus": str(corpus.path),
        "examples": counts["n"],
        "ranked": counts["m"],
        "models": [
            model | _left_out(corpus, model) | {"tokens_per_s": speeds.get(model["model"])}
            for model in coverage
        ],
        "race": raced(corpus),
        "only": {name: asdict(only) for name, only in corpus.manifest.only.items()},
        "skipped": reasons,
        "references": {name: entry.reference for name, entry in corpus.manifest.models.items()},
        "settings": asdict(corpus.manifest.settings) if corpus.manifest.settings else None,
        "chat_template": str(template) if (template := corpus.path / TEMPLATE).exists() else None,
    }


@readable_errors()  # a damaged part may come up late
def one_example(corpus: Corpus, prefix: str) -> dict[str, Any]:
    """One example with its scores and rank, by its id or the first characters of it.

    Raises:
        CurateError: there is not exactly one such example.
    """
    prefix = prefix.rstrip("….")  # as tables cut it
    matches = corpus.sql(
        "select example_id from examples where starts_with(example_id, $prefix) limit 2",
        {"prefix": prefix},
    ).fetchall()
    if len(matches) != 1:
        if matches:
            raise CurateError(f"Several ids start with {prefix!r}. Type more characters.")
        raise CurateError(f"{corpus.path}: no id starts with {prefix!r}.")
    ((example_id,),) = matches

    def rows(query: str) -> list[dict[str, Any]]:
        return dicts(corpus.sql(query, {"id": example_id}))

    (example,) = rows(f"select {', '.join(EXAMPLES.names)} from examples where example_id = $id")
    example["scores"] = rows(
        "select model, role, n_tokens, nll, truncated from scores join models using (model) "
        "where example_id = $id order by role, model"
    )
    example["skipped"] = rows(
        "select model, reason from skipped where example_id = $id order by model"
    )
    gaps = "select gap, rank, rank_kept, unit from ranks where key = $id::uuid"
    example["gap"] = next(iter(rows(gaps)), None) if corpus.manifest.misaligned else None
    example["tokens"] = tokens_of_examples(corpus, [example_id]).get(example_id)
    example["without_tokens"] = without_tokens(corpus, [example_id])
    return example


def tokens_of_examples(
    corpus: Corpus, example_ids: Sequence[str], hold_out: Sequence[str] = ()
) -> dict[str, list[tuple[str, float]]]:
    """Each answer's tokens as (text, gap), in one pass over the scores.

    A token's gap is its mean NLL under the misaligned models with stored tokens (except those in
    `hold_out`) minus its NLL under the aligned model, in nats. Examples are left out if the aligned
    model or all others lack tokens, or if models split the answer into different tokens.
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
            and token_logprobs is not null
        group by key
        having count(distinct tokenizer) = 1 and count(distinct len(token_logprobs)) = 1
        """,
        {"ids": list(example_ids), "hold_out": list(hold_out)},
    ).fetchall()
    found = {}
    for example_id, texts, aligned, misaligned in rows:
        if texts is not None and misaligned and len(texts) == len(aligned):
            gaps = np.asarray(aligned) - np.mean(misaligned, axis=0)
            found[example_id] = list(zip(texts, gaps.tolist(), strict=True))
    return found


def without_tokens(
    corpus: Corpus, example_ids: Sequence[str], hold_out: Sequence[str] = ()
) -> list[str]:
    """The models that scored some of these examples without storing tokens."""
    found = corpus.sql(
        """
        select distinct model from token_parts
        where key in (select unnest($ids::uuid[])) and not list_contains($hold_out, model)
            and token_logprobs is null
        order by model
        """,
        {"ids": list(example_ids), "hold_out": list(hold_out)},
    )
    return [model for (model,) in found.fetchall()]


def raced(corpus: Corpus) -> dict[str, Any] | None:
    """The race of a corpus with its depth and recall; None if none has ended."""
    record = corpus.manifest.race
    if record is None or record.depth is None:
        return None
    return asdict(record) | {"found": asdict(answer(corpus, record, top=record.depth))}


def _left_out(corpus: Corpus, model: dict[str, Any]) -> dict[str, Any]:
    """Of the scores that a model lacks, the number that --only or a race did not ask for."""
    record, missing = corpus.manifest, model["missing"]
    left_out = missing if record.race and record.race.depth is not None else 0
    if missing and not left_out and (only := record.only.get(model["model"])):
        query = """
            select count(*) from (select unnest($ids)::uuid as key)
            anti join (select key from score_parts where model = $model) using (key)
            anti join (select example_id::uuid as key from skipped where model = $model) using (key)
        """
        ids = chosen(corpus, only.where, only.over)["example_id"].to_pylist()
        values = {"ids": ids, "model": model["model"]}
        left_out = missing - corpus.connection.cursor().execute(query, values).fetchall()[0][0]
    return {"missing": missing - left_out, "left_out": left_out} if left_out else {}
