"""The transformers backend gives the numbers of a plain loop, and clear errors for bad weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from curate.backends import open_backend
from curate.backends.base import Backend, Compute
from curate.backends.batching import batches
from curate.backends.transformers import TransformersBackend
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from tests import tiny

MODELS = sorted(tiny.ARCHITECTURES)
ADAPTERS: dict[str, dict[str, Any]] = {
    "rank 1": {"rank": 1},
    "rsLoRA 32": {"rank": 32, "rslora": True},
}
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
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads, above all where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make each model and adapter once for all tests."""
    root = tmp_path_factory.mktemp("models")
    known: dict[str, Path] = {}

    def make(arch: str, adapter: dict[str, Any] | None = None) -> Path:
        key = f"{arch} {json.dumps(adapter)}"
        if key not in known:
            base = make(arch) if adapter is not None else None
            folder = root / str(len(known))
            if base is None:
                known[key] = tiny.tiny_model(folder, arch)
            else:
                known[key] = tiny.tiny_adapter(base, folder, **(adapter or {}))
        return known[key]

    return make


@pytest.fixture(scope="module")
def window() -> list[Encoded]:
    """Random ids: 64 examples of 2 to 90 tokens, with prompts and answers of any length."""
    return examples(64, 90)


def examples(count: int, longest: int) -> list[Encoded]:
    """Random spans; some end before their ids do, as answers cut at the end of a turn do."""
    random = np.random.default_rng(7)
    found = []
    for _ in range(count):
        n = int(random.integers(2, longest + 1))
        start = int(random.integers(1, n))
        stop = int(random.integers(start + 1, n + 1))
        found.append(Encoded(random.integers(0, tiny.VOCAB, n).tolist(), start, stop, False))
    return found


def models(base: Path, adapter: Path | None = None) -> Model:
    """The aligned model, or the misaligned one that is an adapter over it."""
    return resolve(f"base={base}", [f"other={adapter}"] if adapter else [])[-1]


def opened(model: Model, **options: Any) -> Backend:
    """The backend with this model loaded."""
    return open_backend([model], Compute(**{"backend": "transformers", **options}))


def plain(base: Path, window: list[Encoded], adapter: Path | None = None) -> list[np.ndarray]:
    """The loop that everything is measured against: one example at a time, adapter unmerged."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        net = PeftModel.from_pretrained(net, str(adapter))
    net.eval()
    found = []
    with torch.no_grad():
        for r in window:
            logits = net(input_ids=torch.tensor([r.ids[: r.stop]])).logits[0].double()
            logprobs = logits.log_softmax(-1)
            found.append(np.array([logprobs[t - 1, r.ids[t]] for t in range(r.start, r.stop)]))
    return found


def scored(backend: Any, window: list[Encoded]) -> list[np.ndarray]:
    """All scores in the order of the window, each once."""
    pairs = list(backend.score(window))
    assert sorted(i for i, _ in pairs) == list(range(len(window)))
    found = dict(pairs)
    assert all(found[i].dtype == np.float32 for i in found)
    assert all(len(found[i]) == r.stop - r.start for i, r in enumerate(window))
    return [found[i] for i in range(len(window))]


def nll_error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The largest difference of mean nats per token."""
    return max(float(abs(f.mean() - w.mean())) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("arch", MODELS)
def test_plain_loop(arch: str, made: Callable[..., Path], window: list[Encoded]) -> None:
    """Batches of 1 to 64 examples give the plain loop's NLL on every architecture."""
    wanted = plain(made(arch), window)
    backend = opened(models(made(arch)))
    for budget in (1, 100, 333, 64 * 90):
        backend.batch_tokens = budget  # type: ignore[attr-defined]  # one load, many budgets
        found = scored(backend, window)
        assert nll_error(found, wanted) < 1e-4
        assert max(np.abs(f - w).max() for f, w in zip(found, wanted, strict=True)) < 1e-3


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("arch", MODELS)
def test_adapters(arch: str, kind: str, made: Callable[..., Path], window: list[Encoded]) -> None:
    """An adapter merged into the weights gives the NLL of the same adapter unmerged."""
    adapter = made(arch, ADAPTERS[kind])
    wanted = plain(made(arch), window[:24], adapter)
    found = scored(opened(models(made(arch), adapter), batch_tokens=300), window[:24])
    assert nll_error(found, wanted) < 1e-4
    assert nll_error(wanted, plain(made(arch), window[:24])) > 1e-2  # it does change something


@pytest.mark.parametrize("kind", ODD_ADAPTERS)
@pytest.mark.filterwarnings("ignore")
def test_odd_adapters(kind: str, made: Callable[..., Path], window: list[Encoded]) -> None:
    """Adapters of every kind, over a model whose head shares the embeddings' weights, hold too."""
    adapter = made("qwen2", {"rank": 4, "target_modules": ["q_proj"], **ODD_ADAPTERS[kind]})
    wanted = plain(made("qwen2"), window[:16], adapter)
    found = scored(opened(models(made("qwen2"), adapter)), window[:16])
    assert nll_error(found, wanted) < 1e-4
    assert nll_error(wanted, plain(made("qwen2"), window[:16])) > 1e-3


def test_order(made: Callable[..., Path], window: list[Encoded]) -> None:
    """The order of a window does not matter."""
    backend = opened(models(made("llama")), batch_tokens=500)
    order = np.random.default_rng(1).permutation(len(window))
    shuffled = scored(backend, [window[i] for i in order])
    straight = scored(backend, window)
    assert nll_error(shuffled, [straight[i] for i in order]) < 1e-5


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_rope_that_sees_the_batch(rope: str, tmp_path: Path, window: list[Encoded]) -> None:
    """Where rotary frequencies depend on the longest row, neighbours still change nothing."""
    parameters: dict[str, Any] = {"rope_type": rope, "rope_theta": 1e4}
    if rope == "longrope":
        parameters |= {"short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 3.0, 4.0]}
        parameters |= {"original_max_position_embeddings": 32}
        tiny.tiny_model(tmp_path, "phi3", rope_parameters=parameters)
    else:
        parameters |= {"factor": 4.0}
        tiny.tiny_model(tmp_path, "llama", rope_parameters=parameters, max_position_embeddings=32)
    wanted = [plain(tmp_path, [r])[0] for r in window[:32]]  # a fresh model each: it remembers
    backend = opened(models(tmp_path), batch_tokens=2000)
    for _ in range(2):
        assert nll_error(scored(backend, window[:32]), wanted) < 1e-4


def test_uniform_model(made: Callable[..., Path], tmp_path: Path, window: list[Encoded]) -> None:
    """A head of zeros costs exactly log(vocabulary) nats a token."""
    folder = tiny.zero_head(made("llama"), tmp_path / "zero")
    for found in scored(opened(models(folder)), window):
        np.testing.assert_allclose(found, -math.log(tiny.VOCAB), rtol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 32])
@pytest.mark.parametrize("arch", ["qwen2", "gemma2"])
def test_bfloat16(arch: str, rank: int, made: Callable[..., Path]) -> None:
    """In bfloat16 the NLL of answers of 16 tokens and more is within 2e-2 of float32."""
    window = [r for r in examples(128, 90) if r.stop - r.start >= 16]
    lora = made(arch, {"rank": rank}) if rank else None
    backend = opened(models(made(arch), lora), device="cpu", dtype="bfloat16")
    assert backend.dtype == "bfloat16"
    found, wanted = scored(backend, window), plain(made(arch), window, lora)
    assert nll_error(found, wanted) < 2e-2
    assert nll_error(found, wanted) > 1e-6  # it did compute in bfloat16


def test_rows_of_the_head(made: Callable[..., Path], window: list[Encoded]) -> None:
    """The head sees only answer rows, and in pieces of any size they give the same numbers."""
    backend = TransformersBackend(models(made("gemma2")))
    assert backend._rows is not None  # soft-capping goes through the model's own head
    whole = scored(backend, window)
    seen: list[int] = []
    backend._net.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-2]))
    backend._head_rows = 5
    assert nll_error(scored(backend, window), whole) < 1e-5
    assert max(seen) == 5
    assert sum(seen) == sum(r.stop - r.start for r in window)


def test_whole_forward(made: Callable[..., Path]) -> None:
    """A model whose forward reaches into its body falls back to the whole forward pass."""
    assert TransformersBackend(models(made("opt")))._rows is None


def test_empty_answers(made: Callable[..., Path]) -> None:
    """An answer without tokens gives no numbers, and no window gives nothing."""
    backend = opened(models(made("llama")))
    assert scored(backend, []) == []
    assert [len(s) for s in scored(backend, [Encoded([1, 2], 2, 2, True)])] == [0]


def test_out_of_memory(
    made: Callable[..., Path], window: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory halves the batches and loses nothing."""
    backend = TransformersBackend(models(made("llama")), batch_tokens=5000)
    whole, score = scored(backend, window), backend._score

    def small(batch: list[Encoded]) -> list[np.ndarray]:
        if len(batch) > 1 and max(r.stop for r in batch) * len(batch) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return score(batch)

    monkeypatch.setattr(backend, "_score", small)
    assert nll_error(scored(backend, window), whole) < 1e-5
    assert backend.batch_tokens < 5000


@pytest.mark.parametrize("arch", ["qwen2", "gpt_neox", "opt"])
def test_threads(
    made: Callable[..., Path],
    window: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
) -> None:
    """Batches computed beside each other give bit for bit what they give one after the other."""
    alone = scored(TransformersBackend(models(made(arch)), batch_tokens=300), window)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    backend = TransformersBackend(models(made(arch)), batch_tokens=300)
    assert backend._pool
    for _ in range(3):
        assert nll_error(scored(backend, window), alone) == 0
    backend.close()


@pytest.mark.parametrize(
    ("arch", "config", "beside"),
    [
        (
            "recurrent_gemma",
            {"lru_width": 32, "num_hidden_layers": 3, "head_dim": 8, "attention_window_size": 16},
            False,
        ),
        ("mamba", {"state_size": 4}, True),
        ("llama", {}, True),
    ],
)
def test_modules_with_a_state_score_one_batch_after_the_other(
    tmp_path: Path,
    window: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    config: dict[str, Any],
    beside: bool,
) -> None:
    """Threads would share what RecurrentGemma's layers remember; Mamba's remember nothing."""
    tiny.tiny_model(tmp_path, arch, **config)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    backend = TransformersBackend(models(tmp_path), device="cpu", batch_tokens=300)
    assert bool(backend._pool) == beside
    for _ in range(3):
        assert nll_error(scored(backend, window), plain(tmp_path, window)) < 1e-4
    backend.close()


def test_no_memory_at_all(
    made: Callable[..., Path], window: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example that does not fit is an error that names the options; other errors pass."""
    backend = TransformersBackend(models(made("llama")))

    def fail(message: str) -> Callable[[list[Encoded]], None]:
        def score(batch: list[Encoded]) -> None:
            raise RuntimeError(message)

        return score

    monkeypatch.setattr(backend, "_score", fail("DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(CurateError, match=r"--max-length.*--batch-tokens"):
        list(backend.score(window))
    monkeypatch.setattr(backend, "_score", fail("an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        list(backend.score(window))


def test_wrong_ids(made: Callable[..., Path]) -> None:
    """Ids outside the vocabulary are a user's error, an answer at position 0 is a bug."""
    backend = opened(models(made("llama")))
    with pytest.raises(CurateError, match="259 is outside the vocabulary"):
        list(backend.score([Encoded([1, tiny.VOCAB], 1, 2, False)]))
    with pytest.raises(ValueError, match="token before it"):
        list(backend.score([Encoded([1, 2], 0, 2, False)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "abacus"}, "unknown backend"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"batch_tokens": 0}, "--batch-tokens"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, made: Callable[..., Path]) -> None:
    """Each unknown choice is refused by name."""
    with pytest.raises(CurateError, match=message):
        opened(models(made("llama")), **options)


def misfit(base: Path, adapter: Path) -> str:
    """The one line that refuses an adapter."""
    with pytest.raises(CurateError) as caught:
        opened(models(base, adapter))
    assert "\n" not in str(caught.value)
    assert str(adapter) in str(caught.value)
    return str(caught.value)


def test_adapters_that_do_not_fit(made: Callable[..., Path], tmp_path: Path) -> None:
    """Other shapes, other layers, other module names and missing tensors are each refused."""
    base = made("qwen2")
    wide = tiny.tiny_model(tmp_path / "wide", "qwen2", hidden_size=64)
    wrong = misfit(base, tiny.tiny_adapter(wide, tmp_path / "1"))
    assert "layers.0" in wrong and "[4, 64] and should be [4, 32]" in wrong
    deep = tiny.tiny_model(tmp_path / "deep", "qwen2", num_hidden_layers=3)
    assert "layers.2" in misfit(base, tiny.tiny_adapter(deep, tmp_path / "2"))
    assert "layers.2" in misfit(deep, made("qwen2", {"target_modules": ["q_proj"]}))
    assert "Target modules" in misfit(base, made("gpt_neox", {"rank": 1}))
    assert "no weights" in misfit_file(base, tiny.tiny_adapter(base, tmp_path / "3"))


def misfit_file(base: Path, adapter: Path) -> str:
    """As `misfit`, for an adapter whose weights vanish after it was found."""
    model = models(base, adapter)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CurateError) as caught:
        opened(model)
    return str(caught.value)


def test_an_adapter_is_never_rounded_away(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged into four bits, most of it would be lost, and peft only warns."""
    from curate.backends import weights

    class Quantized(torch.nn.Parameter):
        """What bitsandbytes has in the place of weights."""

    def load(*given: Any) -> Any:
        net = unquantized(*given)
        layer = net.model.layers[1].mlp.up_proj
        layer.weight = Quantized(layer.weight.detach(), requires_grad=False)
        return net

    unquantized = weights._load_full
    monkeypatch.setattr(weights, "_load_full", load)
    told = r"its model\.layers\.1\.mlp\.up_proj is quantized, .* before quantization"
    model = models(made("qwen2"), made("qwen2", {"rank": 4}))
    for find in (opened, weights.check):  # which is long before
        with pytest.raises(CurateError, match=told):
            find(model)
    weights.check(model, merged=False)
    opened(models(made("qwen2"))).close()


def test_quantized_layers_without_weights_are_told(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPTQ's and AWQ's hold integers in their place, and peft would fail when it merges."""
    from curate.backends import weights

    def attach(net: Any, adapter: Path) -> Any:
        wrapped = plain(net, adapter)
        layer = net.model.layers[1].mlp.up_proj.base_layer
        del layer.weight
        layer.register_buffer("qweight", torch.zeros(4, 8, dtype=torch.int32))
        return wrapped

    plain = weights._attach
    monkeypatch.setattr(weights, "_attach", attach)
    with pytest.raises(CurateError, match=r"its model\.layers\.1\.mlp\.up_proj is quantized"):
        weights.check(models(made("qwen2"), made("qwen2", {"rank": 4})))


def test_prompt_tuning(made: Callable[..., Path], tmp_path: Path) -> None:
    """An adapter of prompt tokens cannot be merged and is refused."""
    adapter = tiny.tiny_adapter(made("qwen2"), tmp_path)
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    assert "prompt tokens" in misfit(made("qwen2"), adapter)


def broken(
    folder: Path, copy: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> str:
    """Copy a model, change its weights and config, and return the one line that refuses it."""
    copy.mkdir()
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    change(weights, config)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CurateError) as caught:
        opened(models(copy))
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)
    return str(caught.value)


def test_broken_checkpoints(made: Callable[..., Path], tmp_path: Path) -> None:
    """Missing tensors, wrong shapes, unknown architectures and NaN are each refused."""
    norm = "model.norm.weight"
    changes: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
        f"lacks 1 .* {norm}": lambda w, c: w.pop(norm),
        "cannot be loaded": lambda w, c: w.update({norm: torch.ones(7)}),
        "cannot be loaded.*abacus": lambda w, c: c.update(model_type="abacus"),
        "gives NaN in float32": lambda w, c: w[norm].fill_(math.nan),
    }
    for i, (message, change) in enumerate(changes.items()):
        assert re.search(message, broken(made("llama"), tmp_path / str(i), change))


def test_not_causal(tmp_path: Path) -> None:
    """A model that looks at later tokens cannot score answers."""
    tiny.tiny_model(tmp_path, "bert", is_decoder=False, tokenizer=False)
    with pytest.raises(CurateError, match="not a causal language model"):
        opened(models(tmp_path))


def test_quiet(made: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    """Loading prints nothing and leaves transformers' settings as they were."""
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    model = models(made("llama"), made("llama", {"rank": 1}))
    capfd.readouterr()  # what making them printed
    opened(model).close()
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
