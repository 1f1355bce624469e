"""Which adapters vLLM takes as they are, and which are merged: read from their files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from curate.backends import choose, groups
from curate.backends.base import Compute, Engine
from curate.backends.vllm.adapters import share_engines, why_merged
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from tests import tiny

PLAIN: dict[str, dict[str, Any]] = {
    "rank 1": {"rank": 1},
    "rsLoRA 32": {"rank": 32, "rslora": True},
    "one layer": {"target_modules": ["down_proj"], "layers_to_transform": [1]},
}
MERGED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "bias": ({"bias": "all"}, "bias"),
    "ranks": ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    "alphas": ({"alpha_pattern": {"v_proj": 9}}, "alpha_pattern"),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    "embeddings": ({"target_modules": ["q_proj", "embed_tokens"]}, "embed"),
    "saved head": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "pissa"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """Make an adapter over one tiny model, as a model of a run."""
    root = tmp_path_factory.mktemp("adapters")
    base = tiny.tiny_model(root / "base")
    known: dict[str, Model] = {}

    def make(name: str, adapter: dict[str, Any]) -> Model:
        if name not in known:
            settings = {"rank": 4, "target_modules": ["q_proj"], **adapter}
            folder = tiny.tiny_adapter(base, root / str(len(known)), **settings)
            known[name] = resolve(f"base={base}", [f"other={folder}"])[1]
        return known[name]

    return make


@pytest.mark.parametrize("kind", [*PLAIN, *MERGED])
@pytest.mark.filterwarnings("ignore")
def test_odd_adapters_are_merged_with_a_reason(kind: str, made: Callable[..., Model]) -> None:
    """What vLLM refuses, or gets wrong without a word, is found before an engine starts."""
    settings, word = MERGED.get(kind) or (PLAIN[kind], "None")
    assert word in str(why_merged(made(kind, settings), Engine()))


MLA = {
    **{"kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"first_k_dense_replace": 2, "q_lora_rank": 8},
}


@pytest.mark.parametrize(
    ("arch", "layer", "merged", "shape"),
    [
        ("deepseek_v2", "kv_b_proj", True, MLA),
        ("deepseek_v2", "q_b_proj", False, MLA),
        ("glm4", "gate_up_proj", True, {"num_key_value_heads": 2}),
        ("phi3", "gate_up_proj", False, {"num_key_value_heads": 2}),
        ("qwen2_moe", "shared_expert_gate", True, {"num_experts": 2, "moe_intermediate_size": 16}),
        ("gpt_bigcode", "c_attn", True, {}),
        ("granitemoeshared", "input_linear", True, {"shared_intermediate_size": 32}),
    ],
)
def test_an_adapter_on_a_layer_that_vllm_never_multiplies_is_merged(
    arch: str, layer: str, merged: bool, shape: dict[str, int], tmp_path: Path
) -> None:
    """It splits the weights up, calls the layer by a second name, or has no kernel for it."""
    base = tiny.tiny_model(tmp_path / arch, arch, **shape)
    folder = tiny.tiny_adapter(base, tmp_path / "lora", target_modules=[layer])
    model = resolve(str(base), [str(folder)])[1]
    assert why_merged(model, Engine()) == (f"it changes {layer}" if merged else None)


def test_an_adapter_whose_layers_vllm_would_not_find_is_merged(tmp_path: Path) -> None:
    """Trained on a multimodal checkpoint's text model alone: vLLM gives the aligned numbers."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    shape = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 64, "pad_token_id": 0}
    text = {**shape, "num_hidden_layers": 1, "layer_types": ["full_attention"]}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3_5Config(text_config=text, vision_config=vision)
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    tiny.tiny_adapter(tmp_path / "base", tmp_path / "lora", target_modules=["q_proj"])
    model = resolve(str(tmp_path / "base"), [str(tmp_path / "lora")])[1]
    layer = "model.layers.0.self_attn.q_proj"
    told = f"it changes {layer}, a layer of another name in the checkpoint"
    assert why_merged(model, Engine()) == told


@pytest.mark.parametrize(
    ("checkpoint", "adapter"),
    [
        ("model.layers.{}.weight", "model.layers.{}"),
        ("model.layers.{}.qweight", "model.layers.{}"),
        ("model.language_model.layers.{}.weight", "model.language_model.layers.{}"),
        ("language_model.model.layers.{}.weight", "model.language_model.layers.{}"),  # before 4.52
    ],
)
def test_layers_that_vllm_finds_by_their_names(
    checkpoint: str, adapter: str, made: Callable[..., Model], tmp_path: Path
) -> None:
    """Quantized weights have other endings, and a wrapped text model's layers names of two ages."""
    plain = made("rank 1", PLAIN["rank 1"])
    assert plain.adapter is not None
    base, folder, layer = tmp_path / "base", tmp_path / "lora", "0.self_attn.q_proj"
    base.mkdir()
    shutil.copytree(plain.adapter, folder)
    factor = f"base_model.model.{adapter.format(layer)}.lora_A.weight"
    save_file({checkpoint.format(layer): torch.zeros(1)}, base / "model.safetensors")
    save_file({factor: torch.zeros(1)}, folder / "adapter_model.safetensors")
    (base / "config.json").write_text("{}")
    model = Model("other", "misaligned", "o", base, folder, base, "")
    assert why_merged(model, Engine()) is None


def test_another_kind_and_a_high_rank_are_merged(
    made: Callable[..., Model], tmp_path: Path
) -> None:
    """So are adapters that are not LoRA, and those above the highest rank or the user's."""
    model = made("rank 1", PLAIN["rank 1"])
    assert model.adapter is not None
    config = json.loads((model.adapter / "adapter_config.json").read_text())
    for change, word in (({"peft_type": "LOHA"}, "LOHA"), ({"r": 1024}, "1024 is above 512")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        assert word in str(why_merged(replace(model, adapter=tmp_path), Engine()))
    wide = made("rsLoRA 32", PLAIN["rsLoRA 32"])
    assert "above 16" in str(why_merged(wide, Engine(args={"max_lora_rank": 16})))


def test_who_shares_an_engine(made: Callable[..., Model], tmp_path: Path) -> None:
    """The aligned model with the plain adapters; merged ones and full checkpoints alone."""
    plain = [made(kind, PLAIN[kind]) for kind in PLAIN]
    head = made("head", MERGED["head"][0])
    base = Model("base", "aligned", "b", plain[0].path, None, plain[0].path, "")
    full = Model("full", "misaligned", "f", tmp_path, None, tmp_path, "")
    order = [base, plain[0], head, plain[1], full, plain[2]]
    assert share_engines(order, Engine()) == [[base, *plain], [head], [full]]
    assert groups(order, Compute("transformers")) == [[model] for model in order]
    assert groups(order, Compute("server")) == [order]


def test_auto_says_what_it_chose_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without vLLM or a GPU it is transformers; with a server's address it is that."""
    said: list[str] = []
    amx = "torch.cpu._is_amx_tile_supported"
    monkeypatch.setattr(amx, lambda: False)
    monkeypatch.setattr("curate.backends.find_spec", lambda _: None)
    assert choose(Compute(), said.append).backend == "transformers"
    assert said == ["backend: transformers (vLLM is not installed)"]
    monkeypatch.setattr("curate.backends.find_spec", lambda _: object())
    monkeypatch.setattr(
        "curate.backends.weights.choose_device", lambda name: torch.device(name or "cuda")
    )
    assert choose(Compute(), said.append).backend == "vllm"
    assert said[-1] == "backend: vllm (it is installed and there is a GPU)"
    assert choose(Compute(device="cpu"), said.append).backend == "transformers"
    assert said[-1] == "backend: transformers (vLLM is installed, but there is no GPU to use)"
    assert choose(Compute(servers=("http://x",)), said.append).backend == "server"
    assert len(said) == 4
    assert choose(Compute("vllm"), said.append).backend == "vllm"
    assert len(said) == 4
    monkeypatch.setattr(amx, lambda: True)
    choose(Compute("transformers", device="cpu"), said.append)
    choose(Compute("transformers", device="cpu", dtype="float32"), said.append)
    assert len(said) == 5 and "--dtype bfloat16" in said[-1]


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (
            Compute("abacus"),
            "unknown backend 'abacus'. Choose from auto, transformers, vllm",
        ),
        (Compute("server"), "add --server URL"),
        (Compute("transformers", servers=("http://x",)), "--server needs --backend server"),
        (Compute("transformers", engine=Engine(args={"quantization": "fp8"})), "--engine-arg"),
        (
            Compute("server", servers=("http://x",), engine=Engine(tensor_parallel=2)),
            "arg need",
        ),
    ],
)
def test_options_that_contradict_each_other(compute: Compute, words: str) -> None:
    """An option of another backend is an error, never ignored."""
    with pytest.raises(CurateError, match=words):
        choose(compute, lambda _: None)
