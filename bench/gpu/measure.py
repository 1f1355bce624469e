"""Time `curate.score` on rows of real chats: `python measure.py NAME ROWS CORPUS BASE ADAPTER...`.

Prints a line of JSON: the seconds until the engine was ready, those of scoring and the tokens/s in
them, the card's rate of bf16 matrix products (measured before and after) and the share of it that
the models' products took, and the GPU memory that all processes took. A corpus that a killed run
left is gone on with. ENGINE_ARGS: vLLM's arguments as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from scoring_machine import matmul_rate, with_peak

import curate
from curate.system.progress import Progress


class Clock(Progress):
    """A progress that notes when scoring began and ended, and the tokens it took."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.tokens = self.pairs = 0
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)
        print(text, file=sys.stderr, flush=True)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """The engine is ready (or the sources are being read)."""
        self.began = time.perf_counter()
        self.tokens = self.pairs = 0

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Scored, or read."""
        if tokens:
            if not self.pairs:
                print("scoring", file=sys.stderr, flush=True)
            self.tokens += tokens
            self.pairs += examples
            self.ended = time.perf_counter()


def flops(base: str) -> tuple[float, float]:
    """FLOPs of a token: of the layers, and of the output layer, which answers alone need."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        net: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    body = sum(p.numel() for p in net.model.layers.parameters() if p.ndim == 2)
    return 2.0 * body, 2.0 * net.get_output_embeddings().weight.numel()


def main() -> None:
    """Score, and print what it took."""
    name, source, corpus, base, *adapters = sys.argv[1:]
    backend = os.environ.get("BACKEND", "vllm")
    clock = Clock()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    before = matmul_rate(dtype, device)
    entered = time.perf_counter()
    args = json.loads(os.environ.get("ENGINE_ARGS", "{}")) if backend == "vllm" else {}
    number_type = str(dtype).removeprefix("torch.")
    compute = curate.Compute(backend, dtype=number_type, engine=curate.Engine(args=args))

    def run() -> Any:
        return curate.score(
            [source],
            corpus,
            aligned=f"base={base}",
            misaligned=[f"{Path(a).name}={a}" for a in adapters],
            compute=compute,
            max_length=int(os.environ.get("MAX_LENGTH", 4096)),
            progress=clock,
        )

    summary, peak = with_peak(run, device)
    whole = time.perf_counter() - entered
    rate = (before + matmul_rate(dtype, device)) / 2
    body, head = flops(base)
    query = "select avg(n_tokens), count(*) from scores"
    answer, stored = curate.open(corpus).sql(query).fetchall()[0]
    seconds = clock.ended - clock.began
    share = (body * clock.tokens + head * answer * clock.pairs) / seconds / rate
    print(
        json.dumps(
            {
                "name": name,
                "pairs": clock.pairs,
                "pairs_in_corpus": stored,
                "tokens": clock.tokens,
                "load_s": round(clock.began - entered, 1),
                "scoring_s": round(seconds, 2),
                "whole_s": round(whole, 1),
                "tokens_per_s": round(clock.tokens / seconds),
                "matmul_tflops": round(rate / 1e12, 1),
                "share_of_matmul": round(share, 3),
                "peak_gib": round(peak / 1024, 1),
                "skipped": sum(model.skipped for model in summary.models),
            }
        )
    )


if __name__ == "__main__":
    main()
