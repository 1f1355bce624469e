"""Which adapters vLLM can score as they are, and which have to be merged into a checkpoint first.

vLLM rejects some kinds of adapters and silently scores others wrongly. Changes to `lm_head` never
reach the log-probabilities of prompt tokens (vllm issue 51594). Neither do changes to the
`kv_b_proj` of an MLA model, whose weights are split up and never multiplied as a layer
(mla_attention.py, 0.32). A layer not found under the adapter's name keeps the aligned weights
(vllm issues 34186 and 48019). Per-module ranks are scaled by one common factor, and there are no
kernels for DoRA, biases and saved modules. Configurations and tensor names show all of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from curate.backends.base import Engine
from curate.backends.batching import rope_limit
from curate.backends.weights import configuration
from curate.models.fingerprints import read_json, weight_files
from curate.models.resolve import Model

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's `max_lora_rank` takes (vllm/config/lora.py, 0.32)."""

# Fields of adapter_config.json that vLLM ignores or rejects. For their meanings, see
# https://huggingface.co/docs/peft/package_reference/lora
_UNREAD = (
    *("use_dora", "bias", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern"),
    *("layer_replication", "trainable_token_indices", "target_parameters", "use_qalora"),
    *("use_bdlora", "alora_invocation_tokens", "arrow_config", "fan_in_fan_out"),
    "megatron_config",
)
# Initializations that don't change the base weights.
_PLAIN_INITS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
_PLAIN = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_[AB]\.weight")
_ENDS = {"lm_head", "embed_out", "output", "embed_tokens", "wte", "wpe", "word_embeddings"}
# Layers that vLLM splits up, or knows by a second name that it never wraps (qwen2_moe.py,
# nemotron_h.py, 0.32).
_UNSEEN = {"kv_b_proj", "shared_expert_gate", "fc1_latent_proj", "fc2_latent_proj"}
# By model type, fused layers, for which vLLM needs one adapter per part, or has no kernel.
_FUSED = {
    "glm4": {"gate_up_proj"},
    "gpt_bigcode": {"c_attn"},
    "granitemoeshared": {"input_linear"},
    "granitemoe_swa": {"input_linear"},
}
_WRAPPED = "language_model."  # the text model of a multimodal checkpoint, in its layers' names


def share_engines(models: Sequence[Model], engine: Engine) -> list[list[Model]]:
    """Group models by the vLLM engine that scores them.

    The aligned model and all adapters that vLLM scores correctly share the first engine. Full
    checkpoints, and adapters that have to be merged, each have their own.
    """
    shared = [
        model
        for model in models
        if (model.adapter or model.role == "aligned") and not why_merged(model, engine)
    ]
    return [*filter(None, [shared]), *([model] for model in models if model not in shared)]


def why_merged(model: Model, engine: Engine) -> str | None:
    """Why vLLM can't score this adapter as it is; None if it can, or if there is no adapter."""
    if model.adapter is None:
        return None
    config = read_json(model.adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        return f"it is a {config.get('peft_type')} adapter, not LoRA"
    for key in _UNREAD:
        if config.get(key) not in (None, False, "none", [], {}):
            return f"{key} is set in it"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        return f"init_lora_weights is {init} in it"
    limit = min(int(engine.args.get("max_lora_rank", RANKS[-1])), RANKS[-1])
    if rank(model.adapter) > limit:
        return f"its rank {rank(model.adapter)} is above {limit}"
    return _odd_tensor(model.adapter, model.path)


def rank(adapter: Path) -> int:
    """The rank of a LoRA adapter."""
    return int(read_json(adapter / "adapter_config.json").get("r", 8))  # 8: PEFT's own default


def kernel_rank(adapters: Sequence[Path]) -> int:
    """The smallest `max_lora_rank` of vLLM that is enough for these adapters."""
    largest = max(map(rank, adapters))
    return next(size for size in RANKS if size >= largest)


def layers(adapters: Sequence[Path]) -> list[str]:
    """The last parts of the names of layers that plain adapters change, such as q_proj."""
    found = (_PLAIN.fullmatch(name) for adapter in adapters for name in _tensors(adapter))
    return sorted({match["module"].rpartition(".")[2] for match in found if match})


def _odd_tensor(adapter: Path, base: Path) -> str | None:
    """A tensor that isn't a plain LoRA factor of an inner linear layer, as a reason."""
    known = {name.rpartition(".")[0] for name in _tensors(base)}
    wrapped = any(_WRAPPED in layer for layer in known)
    fused = _FUSED.get(str(read_json(base / "config.json").get("model_type")), set())
    for name in sorted(_tensors(adapter)):
        match = _PLAIN.fullmatch(name)
        if match is None:
            return f"it holds {name}"
        layer = match["module"]
        parts = layer.split(".")
        if parts[-1] in _ENDS | _UNSEEN | fused:
            return f"it changes {parts[-1]}"
        if "experts" in parts:
            return "it changes single experts"
        # For a wrapped text model, vLLM knows both older and newer layer names.
        if layer not in known and not (wrapped and _WRAPPED in layer):
            return f"it changes {layer}, a layer of another name in the checkpoint"
    return None


def _tensors(folder: Path) -> Iterator[str]:
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="np") as file:
            yield from file.keys()


def short_limit(path: Path) -> int | None:
    """The most tokens for which a longrope checkpoint uses its short factors; None for others."""
    config = configuration(path)
    return None if config is None else rope_limit(config, ("longrope",))
