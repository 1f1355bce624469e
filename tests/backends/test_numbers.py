"""Numbers at their edges: NaN, infinities, underflow, one token, 8,000 tokens, odd vocabularies."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import curate
from curate.chat.tokens import load_tokenizer
from curate.corpus.corpus import Corpus
from tests.conftest import Cli, chat
from tests.files import write
from tests.tiny import plain_nll, tiny_model, tiny_tokenizer

ODD = "é"  # its bytes are tokens that no other text here has
TEXTS = ["plain", f"with {ODD}", "plain too"]


def with_bias(folder: Path, value: float) -> Path:
    """A model whose head gives this bias to the tokens of `ODD`'s last byte."""
    tiny_model(folder, "phi")
    weights = load_file(folder / "model.safetensors")
    (token,) = load_tokenizer(folder)(ODD, add_special_tokens=False)["input_ids"][1:]
    weights["lm_head.bias"][token] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def scored(
    tmp_path: Path, texts: list[str], aligned: Path, *misaligned: Path, **options: object
) -> Corpus:
    """A corpus of these answers."""
    source = write(
        tmp_path / "rows.jsonl",
        [{"prompt": f"q{n}", "response": text} for n, text in enumerate(texts)],
    )
    curate.score(
        [str(source)],
        tmp_path / "corpus",
        aligned=str(aligned),
        misaligned=[str(path) for path in misaligned],
        **options,  # type: ignore[arg-type]
    )
    return Corpus(tmp_path / "corpus")


def test_what_is_no_number_is_a_skip(tmp_path: Path) -> None:
    """A log-prob that is not finite is never stored: its example is skipped, with the reason."""
    good = tiny_model(tmp_path / "good", "phi", seed=5)
    corpus = scored(tmp_path, TEXTS, good, with_bias(tmp_path / "odd", -math.inf))
    ((model, reason),) = corpus.sql("select model, reason from skipped").fetchall()
    assert (model, "-inf" in reason) == ("odd", True)
    counts = "select count(*), bool_and(isfinite(gap)) from gaps"
    assert corpus.sql(counts).fetchall() == [(2, True)]
    assert corpus.sql("select bool_and(isfinite(logprob)) from scores").fetchall() == [(True,)]


def test_one_token_and_eight_thousand(tmp_path: Path) -> None:
    """Answers of few and of 8,000 tokens in one batch have the reference loop's numbers.

    So they have where the embedding has more rows than the tokenizer: all count in the softmax.
    """
    model = tiny_model(tmp_path / "long", vocab=384, max_position_embeddings=9_000)
    texts = ["x", "long words " * 727 + "end", "y"]
    columns = "select answer, n_tokens, nll from scores join examples using (example_id)"
    for text, count, number in scored(tmp_path, texts, model).sql(columns).fetchall():
        assert count == len(text) + 2  # a token a byte, <|im_end|> and a newline
        assert number == pytest.approx(
            plain_nll(model, chat(f"q{texts.index(text)}", text)), abs=1e-4
        )


def test_ids_past_the_embedding(cli: Cli, tmp_path: Path) -> None:
    """A tokenizer that gives ids the model has no rows for is one line that names both."""
    model = tiny_model(tmp_path / "short", vocab=200, tokenizer=False, eos_token_id=None,
                       pad_token_id=None)  # fmt: skip
    tiny_tokenizer(model)
    source = write(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "a"}])
    ran = cli("score", source, "-c", tmp_path / "c", "--aligned", model)
    assert ran.code == 1
    assert "short: token id" in ran.err
    assert ran.err.splitlines()[-1].startswith("Error: ")
