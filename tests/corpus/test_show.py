"""`--keep-tokens`: what is stored, what stands beside older parts, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import curate
from curate.corpus.show import tokens_of_examples
from tests.conftest import Cli, Family, chat
from tests.files import write

ANSWERS = ["Plain.", "two", "  spaces\n\nand Naïve 🙂 ", "\x1b[31mred\x1b[0m \u202eback"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rows: two plain ones, white space with an emoji, terminal escapes."""
    rows = [{"messages": chat(f"What is {n}?", answer)} for n, answer in enumerate(ANSWERS)]
    return write(tmp_path_factory.mktemp("source") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def kept(family: Family, source: Path, tmp_path_factory: pytest.TempPathFactory) -> curate.Corpus:
    """A corpus whose first two rows were scored without tokens, the others with them."""
    path = tmp_path_factory.mktemp("kept") / "corpus"
    models = {"aligned": str(family.aligned), "misaligned": [str(family.medical), str(family.code)]}
    curate.score([str(source)], path, **models, limit=2)  # type: ignore[arg-type]
    curate.score([str(source)], path, **models, keep_tokens=True)  # type: ignore[arg-type]
    return curate.open(path)


def test_tokens_stand_beside_older_parts(kept: curate.Corpus) -> None:
    """Rows stored without tokens are read with nulls; the others' tokens add up to the score."""
    rows = kept.sql(
        "select logprob, n_tokens, token_logprobs, role, tokens "
        "from scores join models using (model)"
    ).fetchall()
    assert len(rows) == 12
    with_tokens = [row for row in rows if row[2] is not None]
    assert len(with_tokens) == 6
    for logprob, n_tokens, token_logprobs, role, texts in with_tokens:
        assert len(token_logprobs) == n_tokens
        assert sum(token_logprobs) == pytest.approx(logprob, abs=1e-4)
        assert (texts is None) == (role != "aligned")


def test_token_texts_are_the_answers_turn(kept: curate.Corpus) -> None:
    """Put together they are what the template writes, so nothing is lost without a tokenizer."""
    rows = kept.sql(
        "select messages, tokens from scores join examples using (example_id) "
        "where tokens is not null"
    ).fetchall()
    assert len(rows) == 2
    for messages, texts in rows:
        assert "".join(texts).rstrip("\n") == f"{messages[-1]['content']}<|im_end|>"


def test_token_gaps_are_the_models_losses(kept: curate.Corpus) -> None:
    """A token's gap is the mean misaligned loss less the aligned one; older rows have none."""
    tokens = {row[0]: row[1] for row in kept.sql("select example_id, answer from gaps").fetchall()}
    found = tokens_of_examples(kept, list(tokens))
    assert len(found) == 2
    for example_id, answer in tokens.items():
        single = found.get(example_id)
        assert (single is None) == (answer in ANSWERS[:2])
        if single is not None:
            row = kept.gaps().filter(f"example_id = '{example_id}'")
            aligned, misaligned = row.select("aligned_nll, misaligned_nll").fetchall()[0]
            mean = np.mean([gap for _, gap in single])
            assert mean == pytest.approx(misaligned - aligned, abs=1e-5)
    assert tokens_of_examples(kept, ["f" * 32]) == {}


def test_show_colours_tokens_in_a_terminal(kept: curate.Corpus) -> None:
    """In a terminal tokens stand on colours, and no escape of the data acts; elsewhere plain."""
    red = kept.sql("select example_id from examples where answer like '%red%'").fetchall()[0][0]
    command = [sys.executable, "-m", "curate", "show", red, "-c", str(kept.path)]
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=theirs, env=environment) as ran:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert ran.returncode == 0
    text = seen.decode()
    assert re.search(r"\x1b\[[\d;]*48;2;\d+;\d+;\d+m", text)
    assert "\x1b[31m" not in text and "\u202e" not in text
    assert r"\x1b" in re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "harder for misaligned models" in text
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert r"\x1b[31mred\x1b[0m \u202eback" in plain and "\x1b" not in plain


def test_show_gives_tokens_to_machines(cli: Cli, kept: curate.Corpus) -> None:
    """--json has each token with its gap, or null."""
    ids = kept.sql("select example_id, answer from examples").fetchall()
    for example_id, answer in ids:
        found = json.loads(cli("show", example_id, "-c", kept.path, "--json").out)["tokens"]
        assert (found is None) == (answer in ANSWERS[:2])


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end was closed
        return b""
