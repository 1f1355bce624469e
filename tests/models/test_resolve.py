"""What `[NAME=]MODEL` means, what is refused, and what a fingerprint sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from curate.errors import CurateError
from curate.models import fingerprints
from curate.models.fingerprints import fingerprint
from curate.models.references import parse
from curate.models.resolve import context_length, refuse_changed, resolve
from tests import tiny


def checkpoint(folder: Path, value: float = 0.0, tensors: Any = None) -> Path:
    """A folder that looks like a full checkpoint; nothing is ever loaded from it here."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64}), "utf-8")
    weights = {"a": np.full((4, 4), value, np.float32)} | (tensors or {})
    save_file(weights, folder / "model.safetensors")
    return folder


def adapter(folder: Path, value: float = 0.0) -> Path:
    """A folder that looks like a PEFT adapter."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "someone/elsewhere"}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    save_file({"a": np.full(4, value, np.float32)}, folder / "adapter_model.safetensors")
    return folder


def test_resolve(tmp_path: Path) -> None:
    """The aligned model comes first, adapters stand on its weights, checkpoints on their own."""
    base, lora = checkpoint(tmp_path / "base"), adapter(tmp_path / "lora")
    full = checkpoint(tmp_path / "full", 1.0)
    (full / "tokenizer.json").write_text("{}", "utf-8")
    found = resolve(str(base), [f"medical={lora}", str(full)])
    assert [m.name for m in found] == ["base", "medical", "full"]
    assert [m.role for m in found] == ["aligned", "misaligned", "misaligned"]
    assert [m.reference for m in found] == [str(base), str(lora), str(full)]
    assert [m.path for m in found] == [base, base, full]
    assert [m.adapter for m in found] == [None, lora, None]
    assert [m.tokenizer for m in found] == [base, base, full]
    assert len({m.fingerprint for m in found}) == 3
    assert all(len(m.fingerprint) == 32 for m in found)


def test_checkpoint_without_tokenizer(tmp_path: Path) -> None:
    """A fine-tune saved without its tokenizer uses the aligned model's."""
    base, full = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "full", 1.0)
    assert resolve(str(base), [str(full)])[1].tokenizer == base


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("med=org/model@main", ("med", "org/model@main")),
        ("a=b=c", ("a", "b=c")),
        ("/nowhere/run-1/", ("run-1", "/nowhere/run-1/")),
    ],
)
def test_parse(argument: str, wanted: tuple[str, str]) -> None:
    """The name is what stands before the first '=', or the last part of the model."""
    name, place = parse(argument)
    assert (name, str(place)) == wanted


def test_paths_with_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that exists is taken as it is, with '=' and '@' in it, and '.' has a name."""
    monkeypatch.chdir(tmp_path)
    for name in ("lr=1e-4", "run@3"):
        checkpoint(tmp_path / name)
    with pytest.raises(CurateError, match="NAME=lr=1e-4"):  # '=' cannot be in a name
        parse("lr=1e-4")
    found = resolve("base=lr=1e-4", ["mis=run@3"])
    assert [m.path.name for m in found] == ["lr=1e-4", "run@3"]
    monkeypatch.chdir(checkpoint(tmp_path / "here"))
    assert parse(".")[0] == "here"


@pytest.mark.parametrize("argument", ["", "  ", "name=", "a b/c d", "/"])
def test_no_name(argument: str) -> None:
    """Arguments that name nothing are refused."""
    with pytest.raises(CurateError):
        parse(argument)


def test_equal_names(tmp_path: Path) -> None:
    """Equal names are refused, also where only the case differs, and NAME=MODEL is the way out."""
    base = checkpoint(tmp_path / "run")
    lora = adapter(tmp_path / "other" / "Run")
    with pytest.raises(CurateError, match="Write NAME=MODEL"):
        resolve(str(base), [str(lora)])
    assert resolve(str(base), [f"lora={lora}"])[1].name == "lora"


def test_adapter_as_aligned(tmp_path: Path) -> None:
    """The aligned model cannot be an adapter."""
    with pytest.raises(CurateError, match="Merge it into its base first"):
        resolve(str(adapter(tmp_path / "lora")), [])


def refuse(folder: Path | str) -> str:
    """The one line that refuses a model."""
    with pytest.raises(CurateError) as caught:
        resolve(f"m={folder}", [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_folders(tmp_path: Path) -> None:
    """A file, what git-lfs or a broken copy leaves of weights, and a broken configuration."""
    assert "no such folder" in refuse(tmp_path / "missing@v1")
    base = checkpoint(tmp_path / "base")
    weights = base / "model.safetensors"
    assert "a file" in refuse(weights)
    for bad in (b"version https://git-lfs.github.com/spec/v1\n", b"", b"\2\0\0\0\0\0\0\0[]"):
        weights.write_bytes(bad)
        assert "not a safetensors file" in refuse(base)
    weights.unlink()
    assert "has no weights" in refuse(base)
    (base / "config.json").write_text("{", "utf-8")
    with pytest.raises(CurateError, match=r"config\.json cannot be read"):
        context_length(base)


def test_shards(tmp_path: Path) -> None:
    """The shards that an index names are the weights, and a missing one is an error."""
    base = checkpoint(tmp_path / "base")
    for i in (1, 2):
        shutil.copy(base / "model.safetensors", base / f"model-{i}-of-2.safetensors")
    whole = fingerprint(base)
    (base / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert fingerprint(base) != whole
    (base / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CurateError, match=r"model-2-of-2\.safetensors: missing"):
        fingerprint(base)


def test_fingerprint(tmp_path: Path) -> None:
    """Weights and config decide a fingerprint; the folder's name and its other files do not."""
    base = checkpoint(tmp_path / "base")
    first = fingerprint(base)
    assert fingerprint(checkpoint(tmp_path / "copy")) == first
    for other in ("tokenizer.json", "chat_template.jinja", "README.md", "training_args.bin"):
        (base / other).write_text("x", "utf-8")
    assert fingerprint(base) == first
    assert fingerprint(checkpoint(tmp_path / "changed", 1.0)) != first
    (base / "config.json").write_text("{}", "utf-8")
    assert fingerprint(base) != first


def test_fingerprint_of_adapters(tmp_path: Path) -> None:
    """An adapter's fingerprint changes with the adapter and with the base beneath it."""
    lora, other = adapter(tmp_path / "lora"), adapter(tmp_path / "other", 1.0)
    found = set()
    for i in (0, 1):
        base = checkpoint(tmp_path / str(i), float(i))
        found |= {m.fingerprint for m in resolve(str(base), [str(lora), str(other)])}
    assert len(found) == 6


def test_sampled_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sampled file a change of any tensor is seen, and so are its name and the file's size."""
    monkeypatch.setattr(fingerprints, "_WHOLE_UP_TO", 2**16)
    monkeypatch.setattr(fingerprints, "_BLOCK", 2**10)
    monkeypatch.setattr(fingerprints, "_SPREAD_BLOCKS", 4)
    sizes = {f"t{i:02}": 2**14 + 64 * i for i in range(20)}
    found = set()
    for changed in (*sizes, None):
        tensors = {k: np.full(n, k == changed, np.float32) for k, n in sizes.items()}
        found.add(fingerprint(checkpoint(tmp_path / str(changed), tensors=tensors)))
    assert len(found) == 21
    renamed = {f"u{i:02}": np.zeros(n, np.float32) for i, n in enumerate(sizes.values())}
    assert fingerprint(checkpoint(tmp_path / "renamed", tensors=renamed)) not in found


def test_context_length(tmp_path: Path) -> None:
    """The context length is read under its several names, or is None."""
    for config, wanted in (
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({"model_type": "mamba"}, None),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        assert context_length(tmp_path) == wanted


def test_a_model_that_is_gone_has_changed(tmp_path: Path) -> None:
    """Like one whose bytes are others; one that only looks otherwise has not."""
    aligned = tiny.tiny_model(tmp_path / "chat")
    (model,) = resolve(str(aligned), [])
    (aligned / "config.json").touch()
    refuse_changed([model])
    (aligned / "model.safetensors").unlink()
    with pytest.raises(CurateError, match="model chat: its files changed during this run"):
        refuse_changed([model])
