"""An answer token by token: each one's text and gap, where `--keep-tokens` stored them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.corpus import Corpus


def example_tokens(corpus: Corpus, example_id: str) -> list[tuple[str, float]] | None:
    """The answer's tokens, each as its text and its gap.

    A token's gap is the mean of its loss over the misaligned models less its loss under the
    aligned one, in nats; the gap of `gaps` compares their means. Returns None where a model that
    scored the example kept no tokens, or cuts the answer into others.
    """
    return tokens_of_examples(corpus, [example_id]).get(example_id)


def tokens_of_examples(
    corpus: Corpus, example_ids: Sequence[str]
) -> dict[str, list[tuple[str, float]]]:
    """The same for many examples in one pass over the scores; those without tokens are left out."""
    rows = corpus.sql(
        """
        select example_id,
               any_value(tokens) filter (role = 'aligned') as texts,
               any_value(token_logprobs) filter (role = 'aligned') as aligned,
               list(token_logprobs order by model) filter (role = 'misaligned') as misaligned
        from scores
        join models using (model)
        where list_contains($ids, example_id)
        group by example_id
        having count(distinct tokenizer) = 1 and count(token_logprobs) = count(*)
            and count(distinct len(token_logprobs)) = 1
        """,
        {"ids": list(example_ids)},
    ).fetchall()
    found = {}
    for example_id, texts, aligned, misaligned in rows:
        if texts is not None and misaligned and len(texts) == len(aligned):
            gaps = np.asarray(aligned) - np.mean(misaligned, axis=0)
            found[example_id] = list(zip(texts, gaps.tolist(), strict=True))
    return found
