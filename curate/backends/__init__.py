"""Chooses and opens a backend: token ids in, log-probabilities of the answer out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from curate.backends.base import NAMES, Backend, Compute, Engine
from curate.errors import CurateError
from curate.models.resolve import Model
from curate.system.progress import Progress

Result = TypeVar("Result")


def choose(compute: Compute, note: Callable[[str], None]) -> Compute:
    """Choose the backend; note what `auto` chose and why, and which GPUs are left idle.

    Raises `CurateError` for an unknown backend, and for options of another one.
    """
    if compute.backend not in NAMES:
        raise CurateError(f"unknown backend {compute.backend!r}. Choose from {', '.join(NAMES)}.")
    if compute.ray is not None:
        from curate.backends.ray import cluster

        cluster.check_options(compute)
        cluster.connect(compute.ray)
        (chosen,) = cluster.on_workers(_choose, [], compute, note)
        return replace(compute, backend=chosen.backend)
    if compute.workers is not None:
        raise CurateError("--workers needs --ray.")
    if compute.backend == "auto":
        from curate.backends.weights import choose_device

        name, why = "transformers", "vLLM is not installed"
        if compute.servers:
            name, why = "server", "--server is given"
        elif find_spec("vllm") and choose_device(compute.device).type == "cuda":
            name, why = "vllm", "it is installed and there is a GPU"
        elif find_spec("vllm"):
            why = "vLLM is installed, but there is no GPU to use"
        note(f"backend: {name} ({why})")
        compute = replace(compute, backend=name)
    if compute.servers and compute.backend != "server":
        raise CurateError(f"--server needs --backend server, not {compute.backend}")
    if compute.backend == "server" and not compute.servers:
        raise CurateError("--backend server needs an address: add --server URL")
    if compute.backend == "server" and not find_spec("httpx"):
        raise CurateError("--backend server needs httpx: pip install '.[server]'")
    if compute.engine != Engine() and compute.backend != "vllm":
        raise CurateError(
            "--tensor-parallel, --data-parallel and --engine-arg need "
            f"--backend vllm, not {compute.backend}"
        )
    if compute.backend == "transformers" and compute.dtype in (None, "auto"):
        from curate.backends.weights import choose_device, has_amx

        if has_amx(choose_device(compute.device)):
            note(
                "this CPU has AMX: --dtype bfloat16 is likely faster, but rounding swaps close "
                "ranks (see curate verify --dtype bfloat16 --rows 200)"
            )
    if compute.backend == "vllm":
        from curate.backends.vllm.job import spare_gpus

        if spare := spare_gpus(compute):
            note(spare)
    return compute


def _choose(_: Sequence[Model], compute: Compute, progress: Progress) -> Compute:
    return choose(compute, progress.note)


def groups(models: Sequence[Model], compute: Compute) -> list[list[Model]]:
    """Split the models into groups that are opened together and share an engine, in order."""
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
    windows: int = 1,
) -> Backend:
    """Load a group of `groups` into the backend that `choose` returned.

    `windows`: about how many are to come; no more workers are asked for at once.

    Raises `CurateError` for weights that cannot be loaded or don't fit into memory.
    """
    compute = compute or Compute()
    if compute.backend == "auto":
        compute = choose(compute, note)
    if compute.ray is not None:
        from curate.backends.ray.backend import RayBackend

        return RayBackend(group, compute, note, open_backend, windows)
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
    """Check from names and shapes, in seconds, whether these models and options can be used.

    Raises `CurateError` as `open_backend` does.
    """
    if compute.ray is not None:
        from curate.backends.ray import cluster

        cluster.check_machines(models, compute)
        cluster.on_workers(_check_models, models, compute, lambda _: None)
        return
    from curate.backends import weights
    from curate.backends.vllm import adapters, job

    weights.choose_dtype(compute.dtype, weights.choose_device(compute.device))
    if compute.backend == "server":
        from curate.backends.server import served

        served.check(models, compute)
        return  # the server has loaded the weights
    if compute.backend == "vllm":
        job.check(compute, models)
    for model in models:
        unknown = compute.backend == "vllm" and job.only_vllm_can_tell(model)
        if not unknown or adapters.why_merged(model, compute.engine):  # transformers merges them
            weights.check(model)


def _check_models(models: Sequence[Model], compute: Compute, _: Progress) -> None:
    check_models(models, compute)


def on_site(
    function: Callable[..., Result],
    models: Sequence[Model],
    compute: Compute,
    progress: Progress,
    *given: Any,
) -> list[Result]:
    """Call `function(models, compute, progress, *given)` where models are computed.

    That is here or, on a cluster, on every machine that has room for a worker.
    """
    if compute.ray is None:
        return [function(models, compute, progress, *given)]
    from curate.backends.ray import cluster

    return cluster.on_workers(function, models, compute, progress.note, *given, every=True)


def workers(compute: Compute) -> int:
    """How many workers a run would have, as far as it has work for them."""
    if compute.ray is None:
        return 1
    from curate.backends.ray import cluster

    return compute.workers or cluster.places(cluster.needs(compute))
