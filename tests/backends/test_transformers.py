"""The transformers backend agrees with a reference loop, and bad weights give clear errors."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from curate.backends import open_backend, weights
from curate.backends.base import Compute
from curate.backends.batching import batches
from curate.backends.plain import plain_nlls
from curate.backends.transformers import TransformersBackend
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from tests import tiny
from tests.real import nlls

ODD_ADAPTERS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "bias": {"bias": "all"},
    "one layer": {"target_modules": ["down_proj"], "layers_to_transform": [1]},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "head and embeddings": {"target_modules": ["lm_head", "embed_tokens"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "PiSSA": {"init_lora_weights": "pissa"},
    "OLoRA": {"init_lora_weights": "olora"},
    "MiCA": {"init_lora_weights": "mica"},
    "some tokens": {"trainable_token_indices": [5, 7, 100]},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads, above all where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """Make each model, and each adapter over it, once for all tests."""
    root = tmp_path_factory.mktemp("models")
    known: dict[str, Path] = {}

    def make(arch: str, adapter: dict[str, Any] | None = None) -> Model:
        base, key = root / arch, f"{arch} {adapter}"
        if not base.exists():
            tiny.tiny_model(base, arch)
        if adapter is not None and key not in known:
            known[key] = tiny.tiny_adapter(base, root / f"adapter-{len(known)}", **adapter)
        return model(base, known.get(key))

    return make


@pytest.fixture(scope="module")
def window() -> list[Encoded]:
    """Random ids: 64 examples of 2 to 90 tokens, with prompts and answers of any length."""
    return examples(64)


def examples(count: int) -> list[Encoded]:
    """Random spans; some end before their ids do, as answers cut at the end of a turn do."""
    random = np.random.default_rng(7)
    found = []
    for _ in range(count):
        n = int(random.integers(2, 91))
        start = int(random.integers(1, n))
        stop = int(random.integers(start + 1, n + 1))
        found.append(Encoded(random.integers(0, tiny.VOCAB, n).tolist(), start, stop, False))
    return found


def model(base: Path, adapter: Path | None = None) -> Model:
    """The aligned model, or the misaligned one that is an adapter over it."""
    return resolve(f"base={base}", [f"other={adapter}"] if adapter else [])[-1]


def opened(model: Model, **options: Any) -> Any:
    """The backend with this model loaded."""
    return open_backend([model], Compute("transformers", device="cpu", **options))


def off(backend: Any, model: Model, window: list[Encoded]) -> float:
    """The largest distance of a backend's NLLs from the reference loop's, without merging."""
    return float(np.abs(nlls(backend, window) - plain_nlls(model, window, "cpu", None)).max())


@pytest.mark.parametrize("arch", sorted(tiny.ARCHITECTURES))
def test_plain_loop(arch: str, made: Callable[..., Model], window: list[Encoded]) -> None:
    """Batches of 1 to 64 examples give the reference loop's NLL on every architecture."""
    wanted = plain_nlls(made(arch), window, "cpu", None)
    backend = opened(made(arch))
    for budget in (1, 100, 333, 64 * 90):
        backend.batch_tokens = budget
        assert np.abs(nlls(backend, window) - wanted).max() < 1e-4


@pytest.mark.parametrize("adapter", [{"rank": 1}, {"rank": 32, "rslora": True}], ids=str)
@pytest.mark.parametrize("arch", sorted(tiny.ARCHITECTURES))
@pytest.mark.filterwarnings("ignore")
def test_adapters(
    arch: str, adapter: dict[str, Any], made: Callable[..., Model], window: list[Encoded]
) -> None:
    """An adapter merged into the weights gives the NLL of the same adapter unmerged."""
    backend = opened(made(arch, adapter), batch_tokens=300)
    assert off(backend, made(arch, adapter), window[:24]) < 1e-4
    assert off(backend, made(arch), window[:24]) > 1e-2  # it does change something


@pytest.mark.parametrize("kind", ODD_ADAPTERS)
@pytest.mark.filterwarnings("ignore")
def test_odd_adapters(kind: str, made: Callable[..., Model], window: list[Encoded]) -> None:
    """Adapters of every kind, over a model whose head shares the embeddings' weights, hold too."""
    adapter = {"rank": 4, "target_modules": ["q_proj"], **ODD_ADAPTERS[kind]}
    weights.check(made("qwen2", adapter))
    backend = opened(made("qwen2", adapter))
    assert off(backend, made("qwen2", adapter), window[:16]) < 1e-4
    assert off(backend, made("qwen2"), window[:16]) > 1e-3


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_rope_that_sees_the_batch(rope: str, tmp_path: Path, window: list[Encoded]) -> None:
    """Where rotary frequencies depend on the longest row, neighbours still change nothing."""
    parameters: dict[str, Any] = {"rope_type": rope, "rope_theta": 1e4}
    if rope == "longrope":
        parameters |= {"short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 3.0, 4.0]}
        original = {"original_max_position_embeddings": 32}
        tiny.tiny_model(tmp_path, "phi3", rope_parameters=parameters, **original)
    else:
        parameters |= {"factor": 4.0}
        tiny.tiny_model(tmp_path, "llama", rope_parameters=parameters, max_position_embeddings=32)
    # A fresh model each: it remembers.
    wanted = [plain_nlls(model(tmp_path), [r], "cpu", None)[0] for r in window[:32]]
    backend = opened(model(tmp_path), batch_tokens=2000)
    for _ in range(2):
        assert np.abs(nlls(backend, window[:32]) - wanted).max() < 1e-4


@pytest.mark.parametrize("adapter", [None, {"rank": 32}])
def test_bfloat16(adapter: dict[str, Any] | None, made: Callable[..., Model]) -> None:
    """In bfloat16 the NLL of answers of 16 tokens and more is within 2e-2 of float32."""
    window = [r for r in examples(128) if r.stop - r.start >= 16]
    backend = opened(made("gemma2", adapter), dtype="bfloat16")
    assert backend.dtype == "bfloat16"
    assert 1e-6 < off(backend, made("gemma2", adapter), window) < 2e-2


@pytest.mark.parametrize(
    ("arch", "config"),
    [
        ("qwen2", {}),
        ("opt", {}),
        (
            "recurrent_gemma",
            {"lru_width": 32, "num_hidden_layers": 3, "head_dim": 8, "attention_window_size": 16},
        ),
    ],
)
def test_threads(
    tmp_path: Path,
    window: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    config: dict[str, Any],
) -> None:
    """Batches beside each other change no number, nor do they share what a model's layers hold."""
    tiny.tiny_model(tmp_path, arch, **config)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    backend = opened(model(tmp_path), batch_tokens=300)
    assert bool(backend._pool) == (arch != "recurrent_gemma")
    for _ in range(3):
        assert off(backend, model(tmp_path), window) < 1e-4
    backend.close()


def test_out_of_memory(
    made: Callable[..., Model], window: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It halves the batches and loses nothing; where one example does not fit, it is an error."""
    backend = TransformersBackend(made("llama"), batch_tokens=5000)
    whole, score = nlls(backend, window), backend._score
    room = 64

    def small(batch: list[Encoded]) -> Any:
        if max(r.stop for r in batch) * len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return score(batch)

    monkeypatch.setattr(backend, "_score", small)
    short = [at for at, r in enumerate(window) if r.stop <= room]
    assert np.abs(nlls(backend, [window[at] for at in short]) - whole[short]).max() < 1e-5
    assert backend.batch_tokens < 5000
    room = 1
    with pytest.raises(CurateError, match=r"--max-length.*--batch-tokens"):
        list(backend.score(window))


def misfit(base: Path, adapter: Path) -> str:
    """The one line that refuses an adapter."""
    with pytest.raises(CurateError) as caught:
        opened(model(base, adapter))
    assert "\n" not in str(caught.value)
    assert str(adapter) in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_adapters_that_do_not_fit(made: Callable[..., Model], tmp_path: Path) -> None:
    """Other shapes, other layers, other module names and other kinds are each refused."""
    base = made("qwen2").path
    wide = tiny.tiny_model(tmp_path / "wide", "qwen2", hidden_size=64)
    wrong = misfit(base, tiny.tiny_adapter(wide, tmp_path / "1"))
    assert "layers.0" in wrong and "torch.Size([4, 64])" in wrong
    deep = tiny.tiny_model(tmp_path / "deep", "qwen2", num_hidden_layers=3)
    assert "layers.2" in misfit(base, tiny.tiny_adapter(deep, tmp_path / "2"))
    less = tiny.tiny_adapter(base, tmp_path / "3", target_modules=["q_proj"])
    assert "is not in its file" in misfit(deep, less)
    other = tiny.tiny_adapter(made("gpt_neox").path, tmp_path / "4")
    assert "Target modules" in misfit(base, other)
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    (less / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    assert "PROMPT_TUNING is not supported" in misfit(base, less)


class Quantized(torch.nn.Parameter):
    """What bitsandbytes has in the place of weights."""


@pytest.mark.parametrize("kind", [Quantized, lambda w, **_: torch.nn.Buffer(w.to(torch.int8))])
def test_an_adapter_is_never_rounded_away(
    kind: Any, made: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged into four bits, most of it would be lost, and peft only warns."""

    def load(*given: Any) -> Any:
        net = unquantized(*given)
        layer = net.model.layers[1].mlp.up_proj
        found = kind(layer.weight.detach(), requires_grad=False)
        del layer.weight
        layer.weight = found
        return net

    unquantized = weights._load_full
    monkeypatch.setattr(weights, "_load_full", load)
    told = r"its model\.layers\.1\.mlp\.up_proj is quantized, .* before quantization"
    for find in (opened, weights.check):  # which is long before
        with pytest.raises(CurateError, match=told):
            find(made("qwen2", {"rank": 4}))
    weights.check(made("qwen2", {"rank": 4}), merged=False)


@pytest.mark.parametrize(
    ("norm", "message"),
    [(torch.ones(7), "can't be loaded"), (torch.full((32,), math.nan), "gives NaN in float32")],
)
def test_broken_weights(
    norm: torch.Tensor, message: str, made: Callable[..., Model], tmp_path: Path
) -> None:
    """A tensor of another shape, and NaN."""
    copy = shutil.copytree(made("llama").path, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors") | {"model.norm.weight": norm}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CurateError, match=message) as caught:
        opened(model(copy))
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def test_not_causal(tmp_path: Path) -> None:
    """A model that looks at later tokens cannot score answers."""
    tiny.tiny_model(tmp_path, "bert", is_decoder=False, tokenizer=False)
    with pytest.raises(CurateError, match="not a causal language model"):
        opened(model(tmp_path))


def test_quiet(made: Callable[..., Model], capfd: pytest.CaptureFixture[str]) -> None:
    """Loading prints nothing and leaves transformers' settings as they were."""
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    adapter = made("llama", {"rank": 1})
    capfd.readouterr()  # what making them printed
    opened(adapter).close()
    assert capfd.readouterr() == ("", "")
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())


@given(
    lengths=st.dictionaries(st.integers(0, 500), st.integers(1, 200)),
    budget=st.integers(1, 1000),
    alone=st.none() | st.integers(1, 200),
)
def test_batches(lengths: dict[int, int], budget: int, alone: int | None) -> None:
    """Every index comes once, the longest first, and no batch of several exceeds the budget."""
    groups = batches(lengths, budget, alone)
    flat = [i for group in groups for i in group]
    assert sorted(flat) == sorted(lengths)
    assert [lengths[i] for i in flat] == sorted(lengths.values(), reverse=True)
    for group in groups:
        longest = lengths[group[0]]
        assert len(group) == 1 or longest * len(group) <= budget
        assert len(group) == 1 or alone is None or longest <= alone
