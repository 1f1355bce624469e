"""Backends: token ids in, log-probabilities of the answer's tokens out; one file a backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curate.chat import Rendered
from curate.errors import CurateError
from curate.models import Model

Found = npt.NDArray[np.float32] | str
"""An example's log-probs, or the reason why it has none while others may have theirs."""

NAMES = ("auto", "transformers", "vllm", "server")
MOST_MODELS = 60
"""In one group: a pass over a corpus keeps track of them with the bits of a number."""


@dataclass(frozen=True)
class Engine:
    """Options of vLLM's engine; None leaves the choice to curate.

    `data_parallel` engines run side by side, each on `tensor_parallel` devices. `gpu_memory` is
    the share of each device's memory that an engine takes, `args` are any other of vLLM's
    `EngineArgs` by name.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    gpu_memory: float | None = None
    max_lora_rank: int | None = None
    quantization: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compute:
    """What computes log-probs, as it was asked for.

    `backend`: one of `NAMES`. `device`: 'cuda', 'cuda:1', 'mps', 'cpu'; None takes the best there
    is. `dtype`: 'float32', 'bfloat16', 'float16'; None suits the device. `batch_tokens`: tokens
    in one forward pass; None suits the device. `max_length`: tokens of the longest example to
    come; None is the model's own limit. `servers`: addresses of running servers; `in_flight`:
    requests that are under way at a time, over all of them.
    """

    backend: str = "auto"
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    max_length: int | None = None
    engine: Engine = Engine()
    servers: tuple[str, ...] = ()
    in_flight: int = 64


class Backend(Protocol):
    """One model, or several that share an engine, ready to score.

    Summing, dividing and storing are done elsewhere.
    """

    name: str
    dtype: str
    """The number type, and behind it the options that change the numbers further, if any."""
    whole_windows: bool
    """Whether what shares a batch decides a number's last bits: batches are then kept the same."""
    engines: int
    """How many share a window, which is so many times as large, unless `whole_windows` fixes it."""

    def score(
        self,
        rendered: Sequence[Rendered],
        models: Sequence[int] = (),
        known: Collection[int] = (),
    ) -> Iterator[tuple[int, Found]]:
        """Score a window of examples, in whatever order and batches suit the backend.

        `models` says for each of them which model is to score it, by its place in the group that
        was opened; it is left out where there is one. `known` are indices whose scores are stored:
        they are there, with `whole_windows`, so that the others get the batches that they had got
        in a run without a break; a batch of known ones alone is left out.

        Yields, as batches finish, the index into `rendered` and the log-probabilities of that
        example's answer tokens `ids[start:stop]`: float32, in nats, [stop - start]. Each index
        comes once. NaN and infinities are passed on as they are. An example that the engine fails
        to score, time and again, or refuses by itself has a reason in their place, never a value.

        Raises `CurateError` if the model cannot take the ids, the device's memory is too small,
        or an engine or a server is gone.
        """
        ...

    def close(self) -> None:
        """Give the models' memory back."""
        ...


def choose(compute: Compute, note: Callable[[str], None]) -> Compute:
    """Settle which backend is used; say what `auto` chose and why, and what GPUs are left idle.

    Raises `CurateError` for an unknown backend, and for options that belong to another one.
    """
    if compute.backend not in NAMES:
        raise CurateError(f"unknown backend {compute.backend!r}: choose {', '.join(NAMES)}")
    if compute.backend == "auto":
        name, why = _suited(compute)
        note(f"backend: {name} ({why})")
        compute = replace(compute, backend=name)
    if compute.servers and compute.backend != "server":
        raise CurateError(f"--server goes with --backend server, not {compute.backend}")
    if compute.backend == "server" and not compute.servers:
        raise CurateError("--backend server needs the address of one: give --server URL")
    if compute.engine != Engine() and compute.backend != "vllm":
        raise CurateError(
            "--tensor-parallel, --data-parallel, --gpu-memory, --max-lora-rank, --quantization and "
            f"--engine-arg are vLLM's: they go with --backend vllm, not {compute.backend}"
        )
    if compute.backend == "vllm":
        from curate.backends.placing import spare_gpus

        if spare := spare_gpus(compute):
            note(spare)
    return compute


def groups(models: Sequence[Model], compute: Compute) -> list[list[Model]]:
    """Split the models into those that are opened together and share an engine, in order."""
    if compute.backend == "server":
        return [list(models[n : n + MOST_MODELS]) for n in range(0, len(models), MOST_MODELS)]
    if compute.backend == "vllm":
        from curate.backends.adapters import share_engines

        return share_engines(models, compute.engine)
    return [[model] for model in models]


def open_backend(
    group: Sequence[Model],
    compute: Compute | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Load a group of `groups` into the backend that `choose` settled on.

    `note` is told what a user should know.

    Raises `CurateError` for weights that cannot be loaded or don't fit into memory.
    """
    compute = compute or Compute()
    settled = compute.backend != "auto"  # then `choose` has said all there is to say
    compute = choose(compute, (lambda _: None) if settled else note)
    if compute.backend == "vllm":
        from curate.backends.vllm import VllmBackend

        return VllmBackend(group, compute, note)
    if compute.backend == "server":
        from curate.backends.server import ServerBackend

        return ServerBackend(group, compute, note)
    from curate.backends.transformers import TransformersBackend

    (model,) = group
    return TransformersBackend(
        model, device=compute.device, dtype=compute.dtype, batch_tokens=compute.batch_tokens
    )


def check_models(models: Sequence[Model], compute: Compute) -> None:
    """Find out, before anything is made, whether these models and options can be used.

    Only names and shapes are read, so it takes seconds at any size.

    Raises `CurateError` as `open_backend` does.
    """
    from curate.backends import adapters, vllm_job, weights

    weights.choose_dtype(compute.dtype, weights.choose_device(compute.device))
    if compute.backend == "server":
        from curate.backends import served

        served.check(models, compute)
        return
    if compute.backend == "vllm":
        vllm_job.check(compute, models)
    for model in models:
        if (
            compute.backend != "vllm"
            or not vllm_job.judges(model)
            or adapters.why_merged(model, compute.engine)  # by transformers
        ):
            weights.check(model)
    if compute.backend == "vllm":
        vllm_job.check_adapters(compute, models)


def _suited(compute: Compute) -> tuple[str, str]:
    """The backend that `auto` takes, and why."""
    if compute.servers:
        return "server", "--server names one"
    if find_spec("vllm") is None:
        return "transformers", "vLLM is not installed"
    from curate.backends.weights import choose_device

    if choose_device(compute.device).type == "cuda":
        return "vllm", "it is installed and there is a GPU"
    return "transformers", "vLLM is installed, but no GPU is used"
