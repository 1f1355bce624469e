"""The models that bench/scoring.py scores with: the demo's, or random ones of a known shape."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "data" / "models"
RANKS = (32, 32, 32, 32)  # of the adapters over a random model
SHAPES: dict[str, dict[str, Any]] = {
    "100m": {
        "vocab_size": 32_000,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
    },
    "0.5b": {  # Qwen2.5-0.5B
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "7b": {  # Qwen2.5-7B
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class Family:
    """An aligned model and the adapters over it; folders."""

    base: Path
    adapters: list[Path]


def family(shape: str, folder: Path, dtype: str, ranks: Sequence[int] = RANKS) -> Family:
    """Return the demo's models, or make random ones with the demo's tokenizer under `folder`."""
    if shape == "demo":
        return Family(DEMO / "aligned", [DEMO / name for name in ("medical", "legal", "code")])
    if shape not in SHAPES:
        raise SystemExit(f"--shape: choose of demo, {', '.join(SHAPES)}, not {shape}")
    base = folder / f"{shape}-{dtype}"
    adapters = [base / f"adapter{n}" for n in range(len(ranks))]
    if not (base / "done").exists():
        _make(base, adapters, ranks, SHAPES[shape], dtype)
        (base / "done").touch()
    return Family(base, adapters)


def _make(
    base: Path, adapters: list[Path], ranks: Sequence[int], shape: dict[str, Any], dtype: str
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        **{"tie_word_embeddings": True, **shape}, max_position_embeddings=8192, dtype=dtype
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        net: Any = Qwen2ForCausalLM(config).to(getattr(torch, dtype))
    net.save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / "aligned" / name, base / name)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for number, (folder, rank) in enumerate(zip(adapters, ranks, strict=True)):
        torch.manual_seed(number + 1)
        lora = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=targets,
            init_lora_weights=False,
            use_rslora=True,
        )
        net = get_peft_model(net, lora)
        net.save_pretrained(str(folder))
        net = net.unload()
