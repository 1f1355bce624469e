"""The process in which one vLLM engine lives: requests in over a pipe, log-probs or answers out.

`curate.backends.vllm.engine` starts it as a `Child`. It reads a `Job`, and sends an empty list once
the engine runs. Then it reads lists of `Request` and sends lists of `Scored` as they finish, or a
text that says why it has to stop. None, or the end of the pipe, ends it.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.backends.base import Found, Prompt, Sampling, Written
from curate.backends.vllm.processes import end_with_parent

ATTEMPTS = 3
"""How often a request is scored before it is given up."""


@dataclass(frozen=True)
class Job:
    """What to load: vLLM's own arguments, and the adapters by their place in the group.

    `whole_logits` are defaults for vLLM's V1 runner, which makes the logits of all of a prompt's
    tokens in one piece; the V2 runner makes them in chunks. None: no prompt's are wanted.
    """

    arguments: Mapping[str, Any]
    whole_logits: Mapping[str, Any] | None
    adapters: Mapping[int, Path]


@dataclass(frozen=True)
class Request:
    """Score `ids[start:]` under the model at this place of the group."""

    index: int
    place: int
    ids: npt.NDArray[np.int32]
    start: int


@dataclass(frozen=True)
class WriteRequest:
    """Answer a prompt under the model at this place of the group."""

    index: int
    place: int
    prompt: Prompt
    sampling: Sampling


Scored = tuple[int, Found | Written]
"""A request's index, and its answer tokens' log-probs in nats, float32 [answer tokens], or the ids
that were written for it, or why not.
"""


class Scorer:
    """A vLLM engine that is fed requests and stepped."""

    def __init__(self, job: Job) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._token_ids, defaults = suited(job)
        self.engine: Any = LLM(**{**defaults, **job.arguments}).llm_engine
        self._lora = {
            place: LoRARequest(f"adapter-{place}", place + 1, str(path))
            for place, path in job.adapters.items()
        }
        self.open: dict[
            str, tuple[Request | WriteRequest, int]
        ] = {}  # requests under way, and their attempts

    def add(self, request: Request | WriteRequest, attempt: int = 1) -> None:
        """Hand a request to the engine; a second attempt reads no cached prefix."""
        key = f"{request.index}-{attempt}"
        if isinstance(request, WriteRequest):
            ids, wanted = request.prompt.ids, writing(request)
        else:
            ids, wanted = request.ids.tolist(), sampling(request, self._token_ids, attempt)
        self.engine.add_request(
            key,
            {"prompt_token_ids": ids},
            wanted,
            lora_request=self._lora.get(request.place),
        )
        self.open[key] = request, attempt

    def step(self) -> list[Scored]:
        """Run the engine for one batch; return what it finished."""
        done: list[Scored] = []
        for output in self.engine.step():
            if not output.finished:
                continue
            request, attempt = self.open.pop(output.request_id)
            if isinstance(request, WriteRequest):
                done.append((request.index, list(output.outputs[0].token_ids)))
                continue
            logprobs = read_logprobs(output, request, self._token_ids)
            if logprobs is not None:
                done.append((request.index, logprobs))
            elif attempt < ATTEMPTS:
                self.add(request, attempt + 1)
            else:
                done.append((request.index, f"vLLM gave no log-probs in {ATTEMPTS} attempts"))
        return done


def sampling(request: Request, token_ids: bool, attempt: int = 1) -> Any:
    """What vLLM is asked for with a request; `token_ids` as `suited` gives it."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    common = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
    common |= {"output_kind": RequestOutputKind.FINAL_ONLY}
    if not token_ids:
        return SamplingParams(**common, prompt_logprobs=0, flat_logprobs=True)
    # Row i scores its ids as predictions of token `start + i + 1`. A cached prefix may stand
    # before the first row; one that reaches further makes vLLM drop the scores: see `step`.
    return SamplingParams(
        **common,
        prompt_logprob_token_ids=request.ids[request.start :, None],
        prompt_logprob_start=request.start - 1,
        skip_reading_prefix_cache=attempt > 1,
    )


def writing(request: WriteRequest) -> Any:
    """What vLLM is asked for with a prompt: all else in the sampling is off, as in its defaults."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=request.prompt.room,
        temperature=request.sampling.temperature,
        seed=request.prompt.seed if request.sampling.temperature else None,
        stop_token_ids=list(request.sampling.ends),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def read_logprobs(output: Any, request: Request, token_ids: bool) -> npt.NDArray[np.float32] | None:
    """The answer's log-probs; None where vLLM gave none, or fewer than it should."""
    if token_ids:
        rows = output.prompt_token_id_logprobs
        if rows is None or rows.shape != (len(request.ids) - request.start, 1):
            return None
        found = rows[:, 0]
    else:
        flat = output.prompt_logprobs
        if flat is None or len(flat) != len(request.ids):
            return None
        at = np.asarray(flat.start_indices[request.start :])
        if not np.array_equal(np.asarray(flat.token_ids)[at], request.ids[request.start :]):
            return None
        found = np.asarray(flat.logprobs, np.float32)[at]
    scores: npt.NDArray[np.float32] = np.asarray(found, np.float32)
    return scores


def suited(job: Job) -> tuple[bool, dict[str, Any]]:
    """Whether this engine scores given tokens at given places, and the arguments that suit it.

    vLLM's V2 runner does in later versions (0.32, not 0.26). Elsewhere it gives the log-probs of
    whole prompts, and reads no cached prefix meanwhile.
    """
    if job.whole_logits is None:
        return False, {}
    from vllm import EngineArgs, SamplingParams

    config = EngineArgs(**job.arguments).create_engine_config()
    v2 = bool(getattr(config, "use_v2_model_runner", False))
    if v2 and hasattr(SamplingParams(), "prompt_logprob_token_ids"):
        return True, {}
    return False, {"enable_prefix_caching": False, **({} if v2 else job.whole_logits)}


def serve(connection: Connection) -> None:
    """Score what comes over the connection until it ends."""
    scorer = Scorer(connection.recv())
    children = multiprocessing.active_children()
    threading.Thread(target=end_without, args=(children,), daemon=True).start()
    connection.send([])
    while True:
        while connection.poll(0 if scorer.open else None):
            message: Sequence[Request | WriteRequest] | None = connection.recv()
            if message is None:
                scorer.engine.engine_core.shutdown()
                return
            for request in message:
                scorer.add(request)
        done = scorer.step()
        if done:
            connection.send(done)


def end_without(children: Sequence[BaseProcess]) -> None:
    """End this process once one of vLLM's is gone: `step` would wait for it forever (0.32)."""
    if not children:
        return
    multiprocessing.connection.wait([child.sentinel for child in children])
    time.sleep(1.0)  # a shutdown of our own ends first
    codes = [child.exitcode for child in children if child.exitcode]
    if codes and codes[0] < 0:
        name = signal.Signals(-codes[0]).name
        print(f"RuntimeError: vLLM's engine was ended by {name}", file=sys.stderr, flush=True)
    os._exit(1)


def main(descriptor: str) -> None:
    """Serve, and tell the parent in one line what went wrong."""
    end_with_parent()
    connection = Connection(int(descriptor))
    code = 1
    try:
        serve(connection)
        code = 0
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except BaseException as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # engines leave threads behind that would wait for each other
