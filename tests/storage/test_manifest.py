"""`curate.json`: what it holds, which ones are refused, and which models may join a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.storage.manifest import ModelEntry, Settings
from tests.corpora import SETTINGS, corpus, entry


@pytest.fixture
def made(tmp_path: Path) -> Corpus:
    """Two examples under an aligned and a misaligned model."""
    return corpus(tmp_path / "c", ["one", "two"], {"base": [1.0, 1.0], "bad": [2.0, 3.0]})


def test_the_manifest_is_readable(made: Corpus) -> None:
    """Names, roles and fingerprints stand in curate.json as JSON, and are read as they are."""
    raw = json.loads((made.path / "curate.json").read_text())
    assert raw["format_version"] == 2
    assert raw["models"]["bad"]["role"] == "misaligned"
    assert made.manifest.models == {"base": entry("aligned"), "bad": entry("misaligned")}
    assert made.manifest.settings == SETTINGS


WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda m: m["models"].update({"../../outside": m["models"]["bad"]}), "not a valid model name"),
    (lambda m: m["models"].update({"a'; drop": m["models"]["bad"]}), "not a valid model name"),
    (lambda m: m["models"]["bad"].update(role="admin"), "models.bad.role"),
    (lambda m: m["models"]["bad"].pop("dtype"), "models.bad.dtype"),
    (lambda m: m.update(format_version=99), "has format 99, but this curate reads format 2"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_wrong_manifest_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, made: Corpus
) -> None:
    """One line says what is wrong: names of models are folders, and stand in SQL."""
    path = made.path / "curate.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(CurateError) as caught:
        curate.open(made.path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": "two"}'])
def test_what_is_no_manifest_is_refused(text: str, made: Corpus) -> None:
    """Broken JSON, or other JSON."""
    (made.path / "curate.json").write_text(text)
    with pytest.raises(CurateError, match=r"not a curate manifest|has format 'two'"):
        curate.open(made.path)


@pytest.mark.parametrize(
    ("entries", "settings", "words"),
    [
        ({"bad": entry("misaligned", fingerprint="f1")}, SETTINGS, "the fingerprint of"),
        ({"bad": entry("misaligned", tokenizer="other")}, SETTINGS, "the tokenizer of"),
        ({"other": entry("aligned")}, SETTINGS, "its aligned model is"),
        ({"bad": entry("aligned")}, SETTINGS, "this is the corpus's misaligned model"),
        ({"Bad": entry("misaligned")}, SETTINGS, "has a model bad. If it is this one, give bad="),
        ({}, replace(SETTINGS, max_length=9), "--max-length"),
        ({}, replace(SETTINGS, template_args={"a": 1}), "--template-arg"),
        ({}, replace(SETTINGS, template="t1"), "--chat-template"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    made: Corpus, entries: dict[str, ModelEntry], settings: Settings, words: str
) -> None:
    """Other numbers never mix into what is stored under a name; the option is named."""
    before = (made.path / "curate.json").read_bytes()
    with pytest.raises(CurateError, match=words), open_for_writing(made.path) as writer:
        writer.add_models(entries, settings)
    assert (made.path / "curate.json").read_bytes() == before
