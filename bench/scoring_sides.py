"""One side of bench/scoring.py, in a process of its own: `scoring_sides.py SIDE JOB.json`.

Prints one line of JSON. Loading is not timed; rendering, tokenising and scoring are.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Job = dict[str, Any]
Scores = dict[str, list[float]]  # model -> nats per answer token, an entry an example


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Return the median rate of a large matrix product here and now, in FLOP/s."""
    side = 8192 if device == "cuda" else 1024
    a = torch.randn(side, side, dtype=dtype, device=device)
    rates = []
    for _ in range(9):
        _wait(device)
        began = time.perf_counter()
        for _ in range(4):
            a @ a
        _wait(device)
        rates.append(4 * 2 * side**3 / (time.perf_counter() - began))
    return sorted(rates)[len(rates) // 2]


def loop(job: Job) -> tuple[float, Scores]:
    """What users run: one example at a time, adapters unmerged and switched, loss over labels."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    net = AutoModelForCausalLM.from_pretrained(job["base"], dtype=job["dtype"]).to(job["device"])
    net = PeftModel.from_pretrained(net, job["adapters"][0], adapter_name="0").eval()
    for number, adapter in enumerate(job["adapters"][1:], 1):
        net.load_adapter(adapter, adapter_name=str(number))
    _warm(net, job)
    scores: Scores = {}
    began = time.perf_counter()

    def run(name: str) -> None:
        scores[name] = [_loss(net, tokenizer, messages) for messages in job["conversations"]]

    with torch.no_grad():
        with net.disable_adapter():
            run(job["base"])
        for number, adapter in enumerate(job["adapters"]):
            net.set_adapter(str(number))
            run(adapter)
    return time.perf_counter() - began, scores


def _loss(net: Any, tokenizer: Any, messages: list[dict[str, str]]) -> float:
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids.to(net.device)
    labels = ids.clone()
    labels[:, : len(tokenizer(prompt, add_special_tokens=False).input_ids)] = -100
    return float(net(input_ids=ids, labels=labels).loss.item())


def lm_eval(job: Job) -> tuple[float, Scores]:
    """Run lm-evaluation-harness: `loglikelihood` of its HF backend, a model loaded per adapter."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    seconds, scores = 0.0, {}
    for adapter in (None, *job["adapters"]):
        model = HFLM(
            pretrained=job["base"],
            peft=adapter,
            device=job["device"],
            dtype=job["dtype"],
            batch_size=job["batch_size"],
            max_length=job["max_length"],
        )
        _warm(model.model, job)
        began = time.perf_counter()
        requests = []
        for number, messages in enumerate(job["conversations"]):
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            prompt = tokenizer.apply_chat_template(
                messages[:-1], tokenize=False, add_generation_prompt=True
            )
            pair = (prompt, text[len(prompt) :])
            requests.append(
                Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
            )
        found = model.loglikelihood(requests, disable_tqdm=True)
        seconds += time.perf_counter() - began
        # It gives sums: divide by the tokens of the answer, as the others count them.
        scores[adapter or job["base"]] = [
            -total / n for (total, _), n in zip(found, job["answer_tokens"], strict=True)
        ]
        del model
    return seconds, scores


def curate(job: Job) -> tuple[float, Scores]:
    """Run curate's backend on one window, the way `curate score` calls it."""
    from curate import backends, chat, models
    from curate.members import open_members
    from curate.progress import Silent

    resolved = models.resolve(f"base={job['base']}", job["adapters"])
    seconds, scores = 0.0, {}
    for member in open_members(resolved, None, {}, "turn", Silent()):
        backend = backends.open_backend(
            member.model, "transformers", device=job["device"], dtype=job["dtype"]
        )
        began = time.perf_counter()
        rendered = chat.render(
            member.tokenizer, member.template, job["conversations"], max_length=None
        )
        assert not any(isinstance(item, str) for item in rendered)
        found = dict(backend.score(rendered))  # type: ignore[arg-type]
        nll = [-float(found[i].mean(dtype="float64")) for i in range(len(found))]
        seconds += time.perf_counter() - began
        scores[str(member.model.adapter or job["base"])] = nll
        backend.close()
    return seconds, scores


SIDES: dict[str, Callable[[Job], tuple[float, Scores]]] = {
    "loop": loop,
    "lm_eval": lm_eval,
    "curate": curate,
}


def _warm(net: Any, job: Job) -> None:
    with torch.inference_mode():
        net(input_ids=torch.zeros(1, 64, dtype=torch.long, device=job["device"]))
    _wait(job["device"])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Run the side that is asked for."""
    side, path = sys.argv[1], Path(sys.argv[2])
    job = json.loads(path.read_text())
    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"])
    before = matmul_rate(dtype, job["device"])
    seconds, scores = SIDES[side](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if job["device"] == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    after = matmul_rate(dtype, job["device"])
    print(
        json.dumps(
            {"seconds": seconds, "peak_mib": peak, "rate": (before + after) / 2, "nll": scores}
        )
    )


if __name__ == "__main__":
    main()
