"""Which backend is used, and opening it: token ids in, the answer's log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

from curate.backends.base import NAMES, Backend, Compute, Engine
from curate.errors import CurateError
from curate.models.resolve import Model


def choose(compute: Compute, note: Callable[[str], None]) -> Compute:
    """Settle which backend is used; say what `auto` chose and why, and what GPUs are left idle.

    Raises `CurateError` for an unknown backend, and for options that belong to another one.
    """
    if compute.backend not in NAMES:
        raise CurateError(f"unknown backend {compute.backend!r}: choose {', '.join(NAMES)}")
    if compute.backend == "auto":
        from curate.backends.weights import choose_device

        name, why = "transformers", "vLLM is not installed"
        if compute.servers:
            name, why = "server", "--server names one"
        elif find_spec("vllm") and choose_device(compute.device).type == "cuda":
            name, why = "vllm", "it is installed and there is a GPU"
        elif find_spec("vllm"):
            why = "vLLM is installed, but no GPU is used"
        note(f"backend: {name} ({why})")
        compute = replace(compute, backend=name)
    if compute.servers and compute.backend != "server":
        raise CurateError(f"--server goes with --backend server, not {compute.backend}")
    if compute.backend == "server" and not compute.servers:
        raise CurateError("--backend server needs the address of one: give --server URL")
    if compute.backend == "server" and not find_spec("httpx"):
        raise CurateError("--backend server needs httpx: pip install '.[server]'")
    if compute.engine != Engine() and compute.backend != "vllm":
        raise CurateError(
            "--tensor-parallel, --data-parallel and --engine-arg are vLLM's: they go with "
            f"--backend vllm, not {compute.backend}"
        )
    if compute.backend == "transformers" and compute.dtype in (None, "auto"):
        from curate.backends.weights import choose_device, has_bfloat16

        if has_bfloat16(choose_device(compute.device)):
            note(
                "this CPU computes bfloat16 natively: --dtype bfloat16 is faster; "
                "its rounding may swap close ranks (curate verify --dtype bfloat16 --rows 200)"
            )
    if compute.backend == "vllm":
        from curate.backends.vllm.job import spare_gpus

        if spare := spare_gpus(compute):
            note(spare)
    return compute


def groups(models: Sequence[Model], compute: Compute) -> list[list[Model]]:
    """Split the models into those that are opened together and share an engine, in order."""
    if compute.backend == "server":
        return [list(models)] if models else []
    if compute.backend == "vllm":
        from curate.backends.vllm.adapters import share_engines

        return share_engines(models, compute.engine)
    return [[model] for model in models]


def open_backend(
    group: Sequence[Model],
    compute: Compute | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Load a group of `groups` into the backend that `choose` settled on.

    Raises `CurateError` for weights that cannot be loaded or don't fit into memory.
    """
    compute = compute or Compute()
    if compute.backend == "auto":
        compute = choose(compute, note)
    if compute.backend == "vllm":
        from curate.backends.vllm.engine import VllmBackend

        return VllmBackend(group, compute, note)
    if compute.backend == "server":
        from curate.backends.server.server import ServerBackend

        return ServerBackend(group, compute, note)
    from curate.backends.transformers import TransformersBackend

    (model,) = group
    return TransformersBackend(
        model, device=compute.device, dtype=compute.dtype, batch_tokens=compute.batch_tokens
    )


def check_models(models: Sequence[Model], compute: Compute) -> None:
    """Find out from names and shapes, in seconds, whether these models and options can be used.

    Raises `CurateError` as `open_backend` does.
    """
    from curate.backends import weights
    from curate.backends.vllm import adapters, job

    weights.choose_dtype(compute.dtype, weights.choose_device(compute.device))
    if compute.backend == "server":
        from curate.backends.server import served

        served.check(models, compute)
        return  # the weights are its own matter
    if compute.backend == "vllm":
        job.check(compute, models)
    for model in models:
        left = compute.backend == "vllm" and job.judges(model)
        if not left or adapters.why_merged(model, compute.engine):  # it is transformers that merges
            weights.check(model)
