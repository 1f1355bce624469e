"""`--keep-tokens`: what is stored, what stands beside older parts, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import curate
from curate.corpus.integrity import check
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
    """Two rows under the aligned model and `code` without tokens; then all rows but `code` with."""
    path = tmp_path_factory.mktemp("kept") / "corpus"
    aligned = str(family.aligned)
    curate.score([str(source)], path, aligned=aligned, misaligned=[str(family.code)], limit=2)
    medical = [str(family.medical)]
    curate.score([str(source)], path, aligned=aligned, misaligned=medical, keep_tokens=True)
    return curate.open(path)


def test_tokens_are_added_to_older_scores(kept: curate.Corpus) -> None:
    """A model that is not in the run keeps its nulls; the others' tokens add up to the score."""
    rows = kept.sql(
        "select logprob, n_tokens, token_logprobs, role, tokens "
        "from scores join models using (model)"
    ).fetchall()
    assert len(rows) == 4 + 4 + 2
    with_tokens = [row for row in rows if row[2] is not None]
    assert len(with_tokens) == 4 + 4
    assert check(kept) == []
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
    assert len(rows) == 4
    for messages, texts in rows:
        assert "".join(texts).rstrip("\n") == f"{messages[-1]['content']}<|im_end|>"


def test_token_gaps_are_the_models_losses(kept: curate.Corpus) -> None:
    """A token's gap is the mean loss of the misaligned models with tokens less the aligned one."""
    rows = kept.gaps(hold_out=["code"]).select("example_id, aligned_nll, misaligned_nll").fetchall()
    found = tokens_of_examples(kept, [row[0] for row in rows])
    assert len(found) == len(rows) == 4
    for example_id, aligned, misaligned in rows:
        mean = np.mean([gap for _, gap in found[example_id]])
        assert mean == pytest.approx(misaligned - aligned, abs=1e-5)
    assert tokens_of_examples(kept, ["f" * 32]) == {}


def test_a_corpus_remembers_to_keep_tokens(
    cli: Cli, kept: curate.Corpus, family: Family, tmp_path: Path
) -> None:
    """A later model gets them unasked; show and report name the model that lacks them."""
    example_id = kept.sql("select example_id from gaps limit 1").fetchall()[0][0]
    shown = cli("show", example_id, "-c", kept.path).out
    told = "without code; to add its tokens: curate score -c"
    assert told in shown
    assert cli("report", "-c", kept.path, "-o", tmp_path / "r.html").code == 0
    assert "Without the tokens of code" in (tmp_path / "r.html").read_text()
    corpus = shutil.copytree(kept.path, tmp_path / "corpus")
    planned = cli("score", "-c", corpus, "--dry-run", "--json")
    done = cli("score", "-c", corpus, "--json")
    for ran in (planned, done):  # two scores of `code` are made again, two are new
        counts = {model["name"]: model["scored"] for model in json.loads(ran.out)["models"]}
        assert counts == {"chat": 0, "medical": 0, "code": 4}
    assert cli("score", "-c", corpus, "--misaligned", family.legal).code == 0
    opened = curate.open(corpus)
    bare = opened.sql("select count(*), count(token_logprobs) from scores").fetchall()
    assert bare == [(16, 16)]
    assert check(opened) == []
    assert told not in cli("show", example_id, "-c", corpus).out


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
    """--json has each token with its gap, and the models that have none."""
    for example_id, answer in kept.sql("select example_id, answer from examples").fetchall():
        found = json.loads(cli("show", example_id, "-c", kept.path, "--json").out)
        assert "".join(text for text, _ in found["tokens"]).startswith(answer)
        assert found["without_tokens"] == (["code"] if answer in ANSWERS[:2] else [])


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end was closed
        return b""
