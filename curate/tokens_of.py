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
    corpus: Corpus, example_ids: Sequence[str], hold_out: Sequence[str] = ()
) -> dict[str, list[tuple[str, float]]]:
    """The same for many examples in one pass over the scores; those without tokens are left out.

    `hold_out` names misaligned models that stay out of the mean.
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
