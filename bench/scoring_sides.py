"""One side of bench/scoring.py, in a process of its own: `scoring_sides.py SIDE JOB.json`.

Prints one line of JSON. `seconds` are encoding, tokenizing and scoring; `load` is all else that
the side does: imports, loading weights, starting and ending engines, a first batch. For curate on
transformers it holds the merging of each adapter into the weights and their packing, which the loop
has no need of: it pays for its adapters in every example instead.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scoring_engine import vllm
from scoring_machine import matmul_rate, wait, with_peak
from scoring_server import serving

Job = dict[str, Any]
Scores = dict[str, list[float]]  # model -> nats per answer token, an entry an example


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
    """Run lm-evaluation-harness: `loglikelihood` of its HF backend, a model loaded per adapter.

    The model is handed to it: asked for `peft=`, it would cut the embeddings to the tokenizer's
    length, and a random shape has the vocabulary of the model whose shape it is.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    seconds, scores = 0.0, {}
    for adapter in (None, *job["adapters"]):
        net = AutoModelForCausalLM.from_pretrained(job["base"], dtype=job["dtype"])
        net = net.to(job["device"])
        if adapter is not None:
            net = PeftModel.from_pretrained(net, adapter)
        model = HFLM(
            pretrained=net,
            tokenizer=tokenizer,
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
        del model, net
    return seconds, scores


def curate(
    job: Job, backend: str = "transformers", servers: tuple[str, ...] = ()
) -> tuple[float, Scores]:
    """Run a backend of curate on one window, the way `curate score` calls it."""
    from curate import backends
    from curate.backends import base
    from curate.chat.encode import Encoded, encode
    from curate.models.resolve import resolve
    from curate.scoring.members import open_members
    from curate.system.progress import Silent

    resolved = resolve(f"base={job['base']}", job["adapters"])
    members = {member.model.name: member for member in open_members(resolved, None, {}, Silent())}
    compute = base.Compute(
        backend, job["device"], job["dtype"], max_length=job["max_length"], servers=servers
    )
    seconds, scores = 0.0, {}
    for group in backends.groups(resolved, compute):
        engine = backends.open_backend(group, compute)
        tiny = Encoded([1, 2, 3], 1, 3, False)
        dict(engine.score([tiny] * len(group), range(len(group))))
        first = members[group[0].name]
        began = time.perf_counter()
        encoded = encode(first.tokenizer, first.template, job["conversations"], max_length=None)
        # As `curate score` does it: an example's pairs stand beside each other.
        pairs = [(item, place) for item in encoded for place in range(len(group))]
        found = dict(engine.score([r for r, _ in pairs], [p for _, p in pairs]))  # type: ignore[misc]
        seconds += time.perf_counter() - began
        for place, model in enumerate(group):
            nll = [-found[i].mean(dtype="float64") for i in range(place, len(pairs), len(group))]
            scores[str(model.adapter or job["base"])] = [float(n) for n in nll]
        engine.close()
    return seconds, scores


def curate_vllm(job: Job) -> tuple[float, Scores]:
    """Run curate's vLLM backend."""
    return curate(job, "vllm")


def curate_server(job: Job) -> tuple[float, Scores]:
    """Run curate's server backend on a server of this machine, started and ended for it."""
    with serving(job) as url:
        return curate(job, "server", (url,))


SIDES: dict[str, Callable[[Job], tuple[float, Scores]]] = {
    "loop": loop,
    "lm_eval": lm_eval,
    "curate": curate,
    "vllm": vllm,
    "curate-vllm": curate_vllm,
    "curate-server": curate_server,
}


def _warm(net: Any, job: Job) -> None:
    with torch.inference_mode():
        net(input_ids=torch.zeros(1, 64, dtype=torch.long, device=job["device"]))
    wait(job["device"])


def main() -> None:
    """Run the side that is asked for."""
    side, path = sys.argv[1], Path(sys.argv[2])
    job = json.loads(path.read_text())
    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"])
    before = matmul_rate(dtype, job["device"])
    began = time.perf_counter()
    (seconds, scores), peak = with_peak(lambda: SIDES[side](job), job["device"])
    load = time.perf_counter() - began - seconds
    rate = (before + matmul_rate(dtype, job["device"])) / 2
    found = {"load": load, "seconds": seconds, "peak_mib": peak, "rate": rate, "nll": scores}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
