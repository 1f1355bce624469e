"""The vLLM backend: one engine for a model and its adapters, in processes of their own.

An engine doesn't give its memory back reliably inside a process, so each lives in a child
(`curate.backends.vllm.worker`), which ends with it. Several of them share the work where
`data_parallel` asks for it: scoring needs no exchange between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.backends.base import Compute, Found, Prompt, Sampling, Written, check_ids
from curate.backends.vllm.adapters import layers, why_merged
from curate.backends.vllm.job import (
    check,
    devices_of_engines,
    dtype_of,
    environment,
    job_of,
    precision,
    vocabulary,
)
from curate.backends.vllm.processes import Child, answering, merge
from curate.backends.vllm.worker import Request, WriteRequest
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model
from curate.system import scratch
from curate.system.stopping import check_cancelled

WORKER = "curate.backends.vllm.worker"
AHEAD, SHARE = 2_048, 128
"""Prompts that an engine holds, twice as many as it answers at a time, and how many it is sent."""
# All that vLLM says of a layer whose adapters it leaves out (vllm/lora/model_manager.py, 0.32).
_LEFT_OUT = re.compile(r"LoRA target module (?:\S+\.)?(?P<layer>[^\s.]+) .*could not be wrapped")


class VllmBackend:
    """A model, or an aligned model and adapters over it, in one vLLM engine or several alike."""

    name = "vllm"

    def __init__(
        self, group: Sequence[Model], compute: Compute, note: Callable[[str], None]
    ) -> None:
        check(compute, group)
        self.group = list(group)
        self.dtype = precision(compute)
        self._vocabulary = vocabulary(group[0].path)
        self._children: list[Child] = []
        with ExitStack() as stack:
            job = job_of(group, compute, _weights(group[0], compute, note, stack))
            for devices in devices_of_engines(compute):
                self._children.append(Child(WORKER, job, environment(compute, devices)))
                stack.callback(self._children[-1].close)
            for child in self._children:
                self._ask(child)
                _refuse_left_out(group, child.log.read_text(errors="replace"))
            self._held = stack.pop_all()
        self.engines = len(self._children)

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Found]]:
        """Score a window, requests for all models mixed; see `Backend.score`."""
        ids = _ids(encoded)
        highest = max((int(one.max()) for one in ids if one.size), default=0)
        check_ids(highest, self._vocabulary, self.group[0])
        shares: list[list[Request]] = [[] for _ in self._children]
        # As many tokens to each engine, in order: neighbors stay together, as they may share a
        # prompt, and an example's models its ids.
        sizes = np.array([item.stop for item in encoded])
        engines = (np.cumsum(sizes) - sizes / 2) * len(shares) // sizes.sum()
        for index, engine in enumerate(engines.astype(int)):
            place = models[index] if models else 0
            shares[engine].append(Request(index, place, ids[index], encoded[index].start))
        left = {}
        for child, share in zip(self._children, shares, strict=True):
            if share:
                child.send(share)
                left[child] = len(share)
        while left:
            check_cancelled()
            for child in answering(left):
                scored = self._ask(child)
                left[child] -= len(scored)
                if not left[child]:
                    del left[child]
                yield from scored

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts, each engine sent more whenever it has room; see `Backend.generate`."""
        waiting = enumerate(prompts)
        open_ = dict.fromkeys(self._children, 0)
        while True:
            for child in sorted(open_, key=lambda child: open_[child]):
                if open_[child] > AHEAD - SHARE:
                    continue
                share = []
                for index, prompt in islice(waiting, SHARE):
                    check_ids(max(prompt.ids), self._vocabulary, self.group[0])
                    share.append(WriteRequest(index, 0, prompt, sampling))
                if share:
                    child.send(share)
                    open_[child] += len(share)
            busy = [child for child in open_ if open_[child]]
            if not busy:
                return
            check_cancelled()
            for child in answering(busy):
                written = self._ask(child)
                open_[child] -= len(written)
                yield from written

    def close(self) -> None:
        """End the engines, which gives all their memory back, and remove a merged checkpoint."""
        self._held.close()

    def _ask(self, child: Child) -> list[tuple[int, Any]]:
        """The child's next answer; what it can't do is a `CurateError`."""
        answer = child.receive()
        if answer is None or isinstance(answer, str):
            names = ", ".join(model.name for model in self.group)
            raise CurateError(f"vLLM failed with {names}: {child.why(answer)}")
        return list(answer)


def _weights(model: Model, compute: Compute, note: Callable[[str], None], stack: ExitStack) -> Path:
    """The checkpoint to load: the model's own, or one with an adapter that vLLM can't take in it.

    That one is made here, and goes with `stack`.
    """
    reason = why_merged(model, compute.engine)
    if reason is None:
        return model.path
    note(
        f"{model.name}: {reason}, which vLLM can't score as an adapter; it is merged into a "
        "checkpoint of its own"
    )
    folder = stack.enter_context(scratch.temporary("merged"))
    merge(model, dtype_of(compute), folder)
    return folder


def _refuse_left_out(group: Sequence[Model], log: str) -> None:
    """Such an adapter would get the aligned model's numbers in these layers, without a word."""
    left_out = {match["layer"] for match in _LEFT_OUT.finditer(log)}
    for model in group:
        if model.adapter and (found := left_out & set(layers([model.adapter]))):
            raise CurateError(
                f"{model.name}: vLLM leaves out what it changes in {min(found)}; merge it into a "
                "checkpoint and name that, or use --backend transformers"
            )


def _ids(encoded: Sequence[Encoded]) -> list[npt.NDArray[np.int32]]:
    """Each example's ids [stop]. What several models score is made, and sent to an engine, once.

    The engines have nothing to do meanwhile: pickling writes an array that comes again as a number.
    """
    made: dict[int, npt.NDArray[np.int32]] = {}
    for item in encoded:
        if id(item) not in made:
            made[id(item)] = np.asarray(item.ids[: item.stop], np.int32)
    return [made[id(item)] for item in encoded]
