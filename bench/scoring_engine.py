"""The side of bench/scoring.py that is vLLM without curate: its `generate`, asked as curate asks.

The engine's options, each request's parameters and the reading of the answers are those of curate's
worker: what is left between the two sides is curate's process, socket and order of requests.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np


def vllm(job: dict[str, Any]) -> tuple[float, dict[str, list[float]]]:
    """Return seconds, and nats per answer token: NaN where vLLM left one out."""
    from curate.backends import base
    from curate.backends.vllm import worker
    from curate.backends.vllm.job import environment, job_of
    from curate.chat.encode import Encoded, encode
    from curate.models.resolve import resolve
    from curate.scoring.members import open_members
    from curate.system.progress import Silent

    compute = base.Compute("vllm", job["device"], job["dtype"], max_length=job["max_length"])
    os.environ.update(environment(compute, None))
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    resolved = resolve(f"base={job['base']}", job["adapters"])
    made = job_of(resolved, compute)
    token_ids, defaults = worker.suited(made)
    llm = LLM(**{**defaults, **made.arguments})
    lora: list[Any] = [None]
    lora += [LoRARequest(str(n), n, str(path)) for n, path in made.adapters.items()]
    first = open_members(resolved, None, {}, Silent())[0]

    def run(encoded: list[Any]) -> list[float]:
        requests = [
            worker.Request(0, place, np.asarray(item.ids[: item.stop], np.int32), item.start)
            for item in encoded
            for place in range(len(lora))
        ]
        outputs = llm.generate(
            [{"prompt_token_ids": request.ids.tolist()} for request in requests],
            [worker.sampling(request, token_ids) for request in requests],
            lora_request=[lora[request.place] for request in requests],
            use_tqdm=False,
        )
        pairs = zip(outputs, requests, strict=True)
        found = [worker.read_logprobs(*pair, token_ids) for pair in pairs]
        return [np.nan if n is None else -float(n.mean(dtype="float64")) for n in found]

    run([Encoded([1, 2, 3], 1, 3, False)])
    began = time.perf_counter()
    nll = run(encode(first.tokenizer, first.template, job["conversations"], max_length=None))
    seconds = time.perf_counter() - began
    names = [job["base"], *job["adapters"]]
    return seconds, {name: nll[place :: len(lora)] for place, name in enumerate(names)}
