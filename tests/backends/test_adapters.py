"""Adapters whose names or starts are not today's give the numbers that PEFT itself gives."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

import curate
from curate.backends import weights
from curate.backends.base import Engine
from curate.backends.vllm.adapters import why_merged
from curate.errors import CurateError
from tests import tiny
from tests.backends.test_transformers import examples, model, off, opened
from tests.conftest import Cli, Family
from tests.files import write

pytestmark = pytest.mark.filterwarnings("ignore")
WEIGHTS = "adapter_model.safetensors"


def same_as_peft(base: Path, adapter: Path, merged: str | None) -> None:
    """It is found to fit, and scored as PEFT scores it, which is not as the base alone.

    `merged`: why vLLM needs it merged, which is known before.
    """
    chosen = model(base, adapter)
    weights.check(chosen)
    backend = opened(chosen)
    assert off(backend, chosen, examples(12)) < 1e-4
    assert off(backend, model(base), examples(12)) > 1e-3
    assert why_merged(chosen, Engine()) == merged


def test_experts_of_transformers_4(tmp_path: Path) -> None:
    """There each expert was a module with a LoRA of its own; now they are one parameter."""
    base = tiny.tiny_model(tmp_path / "base", "qwen3_moe")
    leaves = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    draw = torch.Generator().manual_seed(1)
    factors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.split(".")[-2] in leaves:
            layer, (rows, columns) = (
                f"base_model.model.{name.removesuffix('.weight')}",
                weight.shape,
            )
            factors[f"{layer}.lora_A.weight"] = torch.randn(2, columns, generator=draw) * 0.3
            factors[f"{layer}.lora_B.weight"] = torch.randn(rows, 2, generator=draw) * 0.3
    (tmp_path / "lora").mkdir()
    save_file(factors, tmp_path / "lora" / WEIGHTS)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": leaves}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    same_as_peft(base, tmp_path / "lora", "it changes single experts")


def test_gemma_3_before_its_multimodal_layout(tmp_path: Path) -> None:
    """The text model stood above `model` then, and the checkpoint's own names still say so."""
    text = {"vocab_size": tiny.VOCAB, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    base = tiny.tiny_tokenizer(tmp_path / "base")
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).save_pretrained(base)
    adapter = tiny.tiny_adapter(base, tmp_path / "lora", target_modules=r".*language.*q_proj")
    now, then = "model.language_model.", "language_model.model."
    tensors = load_file(adapter / WEIGHTS)
    save_file({name.replace(now, then): tensors[name] for name in tensors}, adapter / WEIGHTS)
    same_as_peft(base, adapter, None)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("VBLoRAConfig", {"num_vectors": 8, "vector_length": 8, "save_only_topk_weights": True}),
        ("VeraConfig", {"save_projection": False}),
        ("FrodConfig", {}),  # it computes with the weights when it is made
    ],
)
def test_layers_that_share_tensors(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """PEFT saves what they share once, or only the seed that it was drawn from."""
    base = tiny.tiny_model(tmp_path / "base", "llama")
    config = getattr(peft, kind)(target_modules=["q_proj", "v_proj"], **settings)
    torch.manual_seed(0)
    wrapped: Any = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape) * 0.3)
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    kind = kind.removesuffix("Config").upper()
    same_as_peft(base, tmp_path / "adapter", f"it is a {kind} adapter, not LoRA")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is pissa_niter_4, which peft"),
        ({}, r"gives NaN in float32"),
    ],
)
def test_adapters_with_no_numbers_to_compare(
    change: dict[str, str], told: str, family: Family, tmp_path: Path
) -> None:
    """A start that PEFT draws anew each time, and NaN: refused by the adapter's folder."""
    adapter = shutil.copytree(family.medical, tmp_path / "lora")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | change))
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: tensors[name] * float("nan") for name in tensors}, adapter / WEIGHTS)
    with pytest.raises(CurateError, match=f"{re.escape(str(adapter))}.*{told}"):
        opened(model(family.aligned, adapter))


def test_an_adapter_that_changes_nothing_is_told(family: Family, cli: Cli, tmp_path: Path) -> None:
    """As one is before its training; its scores are the aligned model's."""
    adapter = shutil.copytree(family.medical, tmp_path / "fresh")
    tensors = load_file(adapter / WEIGHTS)
    save_file({n: t * (0 if "lora_B" in n else 1) for n, t in tensors.items()}, adapter / WEIGHTS)
    source = write(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "a"}])
    misaligned = ["--misaligned", adapter, "--misaligned", family.legal]
    ran = cli("score", source, "-c", tmp_path / "c", "--aligned", family.aligned, *misaligned)
    assert [line for line in ran.err.splitlines() if "changes nothing" in line] == [
        "fresh: its adapter changes nothing, as one factor of each product is zero. "
        f"Was {adapter} trained?"
    ]
    gaps = curate.open(tmp_path / "c").sql("select gap from model_gaps where model = 'fresh'")
    assert gaps.fetchall() == [(0.0,)]
