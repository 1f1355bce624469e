"""A run's models on another machine: the same folder and files, or the same commit of the hub."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.models.elsewhere import absolute, locate
from curate.models.resolve import resolve
from tests.hub import Hub
from tests.models.test_resolve import adapter, checkpoint


def test_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths don't depend on the current folder, and equal files are taken."""
    checkpoint(tmp_path / "base")
    adapter(tmp_path / "lora")
    monkeypatch.chdir(tmp_path)
    sent = absolute(resolve("base", ["lora"]))
    monkeypatch.chdir("/")
    found = locate(sent)
    assert [model.path for model in found] == [tmp_path / "base"] * 2
    assert [model.fingerprint for model in found] == [model.fingerprint for model in sent]


def test_other_files_and_none(tmp_path: Path) -> None:
    """A machine with another model in the folder is named, and one without."""
    sent = resolve(str(checkpoint(tmp_path / "base")), [])
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CurateError, match=r"base: no such folder on .*: a model lies in the same"):
        locate(sent)
    checkpoint(tmp_path / "base", 1.0)
    with pytest.raises(CurateError, match=r"model base: .* differs from the one that this run"):
        locate(sent)


def test_a_model_of_the_hub_is_fetched_at_its_commit(tmp_path: Path, hub: Hub) -> None:
    """A machine with an empty cache, in another folder, fetches what this one has."""
    base = checkpoint(tmp_path / "base")
    hub.push("someone/base", base)
    (sent,) = resolve("someone/base", [])
    (sent,) = [replace(sent, path=Path(str(sent.path).replace(str(tmp_path), "/elsewhere")))]
    (found,) = locate([sent])
    assert found.fingerprint == sent.fingerprint
    assert found.path != sent.path
