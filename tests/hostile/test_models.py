"""Models that can't be used, or that bring code of their own: one line, and nothing is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import Cli, Family, Ran, fails
from tests.files import write
from tests.tiny import tiny_adapter, tiny_model

MARK = "touched"
"""A folder that hostile code makes where it runs."""
CODE = f"import os\nos.mkdir({MARK!r})\n"
CLASSES = {"AutoConfig": "evil.E", "AutoModelForCausalLM": "evil.E", "AutoTokenizer": ["evil.E"]}
DEEP = "[" * 200_000
Spoil = Callable[[Path], object]


class _Touch:
    """A pickle that makes the folder when it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (MARK,)


def _write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def _remove(pattern: str) -> Spoil:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def _pickle(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        _remove("*.safetensors")(folder)
        (folder / name).write_bytes(pickle.dumps(_Touch()))

    return spoil


def _config(name: str = "config.json", **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


_adapter_config = partial(_config, "adapter_config.json")


def _shards(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
        index = {"metadata": {}, "weight_map": {"a": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])


def _tensor_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _of_another_shape(folder: Path) -> None:
    shutil.rmtree(folder)
    tiny_adapter(tiny_model(folder.parent / "other", hidden_size=64), folder)


@pytest.mark.parametrize(
    ("made_of", "spoil", "reason"),
    [
        ("aligned", shutil.rmtree, "no such folder"),
        ("aligned", _remove("*"), "holds no model"),
        ("aligned", _write("config.json", "{"), "config.json"),
        ("aligned", _write("config.json", DEEP), "recursion"),
        ("aligned", _config(model_type="abacus"), "abacus"),
        ("aligned", _config(auto_map=CLASSES, model_type="evil"), "custom code"),
        ("aligned", _config(hidden_size="wide"), "hidden_size"),
        ("aligned", _config(hidden_act="os.system"), "can't be loaded"),
        ("aligned", _remove("*tok*"), "tokenizer"),
        ("aligned", _write("tokenizer.json", "{"), "tokenizer"),
        ("aligned", _remove("chat_template.jinja"), "chat template"),
        ("aligned", _write("chat_template.jinja", "{% for %}"), "line 1"),
        ("aligned", _pickle("pytorch_model.bin"), "a pickle"),
        ("aligned", _cut, "truncated"),
        ("aligned", _tensor_missing, "1 of the tensors"),
        ("aligned", _write("model.safetensors", "version https:"), "not a safetensors"),
        ("aligned", _shards("../elsewhere.safetensors"), "isn't a file next to it"),
        ("medical", _pickle("adapter_model.bin"), "a pickle"),
        ("medical", _of_another_shape, "does not fit the aligned model"),
        ("medical", _adapter_config(peft_type="EVIL"), "not fit"),
        ("medical", _adapter_config(target_modules="("), "not fit"),
        ("medical", _adapter_config(peft_type="XLORA", adapters={"a": "x"}), "XLORA"),
    ],
)
def test_a_wrong_model_makes_no_corpus(
    made_of: str, spoil: Spoil, reason: str, cli: Cli, family: Family, place: Path
) -> None:
    """It is named with the reason before a folder is made, and no code of it is run."""
    fails(score(cli, family, place, made_of, spoil), reason)
    assert not (place / "corpus").exists()


@pytest.mark.parametrize(
    ("made_of", "spoil"),
    [
        ("aligned", _config("tokenizer_config.json", auto_map=CLASSES)),
        ("medical", _adapter_config(megatron_config={}, megatron_core="evil")),
        ("medical", _adapter_config(auto_mapping={"base_model_class": "E", "parent_library": "x"})),
    ],
)
def test_code_that_is_not_needed_is_not_run(
    made_of: str, spoil: Spoil, cli: Cli, family: Family, place: Path
) -> None:
    """What a model names and scoring doesn't need changes nothing."""
    ran = score(cli, family, place, made_of, spoil)
    assert ran.code == 0, ran.err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder that Python imports from; in the end no hostile code has been run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (tmp_path, tmp_path / "model"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(CODE)
    yield tmp_path
    assert not list(tmp_path.rglob(MARK))


def score(cli: Cli, family: Family, place: Path, made_of: str, spoil: Spoil) -> Ran:
    """Score a row under two models, one of them a spoiled copy."""
    wrong = shutil.copytree(getattr(family, made_of), place / "model", dirs_exist_ok=True)
    spoil(wrong)
    aligned, other = (wrong, family.medical) if made_of == "aligned" else (family.aligned, wrong)
    source = write(place / "rows.jsonl", [{"prompt": "q", "response": "a"}])
    return cli("score", source, "-c", "corpus", "--aligned", aligned, "--misaligned", other)
