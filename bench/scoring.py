"""How fast, how near the machine's limit and how exact: curate against what users run instead.

`python bench/scoring.py DATA_FOLDER --shape 100m --rounds 3`

The sides take turns, each in a process of its own, on the same examples: `loop`, the script that
most people write (transformers, one example at a time, adapters unmerged and switched); `lm_eval`,
lm-evaluation-harness's `loglikelihood`; `curate` on transformers; where vLLM is installed, `vllm`,
its bare `generate`, `curate-vllm`, and `curate-server`, on vLLM's server here. Prints medians;
`load` is what comes before and after the scoring that is timed: imports, weights, engines. The
share of the roofline is 2 x parameters x tokens (the output layer counted for answer tokens only)
over the time and the rate of a large matrix product, measured in the same process before and after;
`+ attention` counts the products of queries, keys and values too, which are no parameters and grow
with the length.
"""

from __future__ import annotations

import gzip
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scoring_shapes import family

NEEDS = {"lm_eval": "lm_eval", "vllm": "vllm", "curate-vllm": "vllm", "curate-server": "vllm"}
ONE_TOKEN = 30.0  # nats, more than a token costs: a random model's costs some 12
SIDES = ("loop", "lm_eval", "curate", "vllm", "curate-vllm", "curate-server")


def installed() -> list[str]:
    """Return the sides that can run here, and say which can't."""
    missing = {name: lib for name, lib in NEEDS.items() if find_spec(lib) is None}
    for name, lib in missing.items():
        print(f"{name}: left out, as {lib} is not installed")
    return [name for name in SIDES if name not in missing]


def conversations(data: Path, count: int) -> list[list[dict[str, str]]]:
    """Return every n-th of the instruct set's rows, so that lengths are those of the whole."""
    path = data / "instruct_messages.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; give the folder of the sets")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    if count > len(rows):
        raise SystemExit(f"{path} has {len(rows)} rows, fewer than --examples {count}")
    return rows[:: len(rows) // count][:count]


@dataclass(frozen=True)
class Work:
    """What all models together have to do; `answers` are the tokens of each example's answer."""

    flops: float
    attention: float  # FLOPs that are not in `flops`
    tokens: int
    answers: list[int]


def work(base: Path, rows: list[list[dict[str, str]]], models: int) -> Work:
    """Count the work of scoring these conversations under so many models of one shape."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from curate.chat.encode import encode
    from curate.chat.templates import template_of

    tokenizer = AutoTokenizer.from_pretrained(base)
    found = encode(tokenizer, template_of(tokenizer), rows, max_length=None)
    spans = [item for item in found if not isinstance(item, str)]
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    head = net.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in net.model.layers.parameters() if p.ndim == 2)
    tokens, answers = sum(s.stop for s in spans), [s.stop - s.start for s in spans]
    width = net.config.hidden_size * net.config.num_hidden_layers  # of all heads of all layers
    looks = sum(s.stop * (s.stop + 1) // 2 for s in spans)  # (token, earlier token) pairs
    return Work(
        flops=models * 2.0 * (body * tokens + head * sum(answers)),
        attention=models * 4.0 * width * looks,
        tokens=models * tokens,
        answers=answers,
    )


def run(side: str, job: Path) -> dict[str, Any]:
    """Run one side once, in a process of its own."""
    script = Path(__file__).with_name("scoring_sides.py")
    done = subprocess.run(
        [sys.executable, str(script), side, str(job)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: dict[str, list[dict[str, Any]]], todo: Work) -> Table:
    """Return a row per side: medians over the rounds, ratios against the loop of each round.

    The first side's numbers are those that the others' are compared with.
    """
    heads = ("side", "load s", "seconds", "tokens/s", "x loop", "roofline", "+ attention")
    reference, first = next(iter(results.items()))
    shown = Table(*heads, "peak MiB", f"max |dNLL| to {reference}")
    for side, rounds in results.items():
        seconds = _median(rounds, "seconds")
        share = statistics.median(todo.flops / r["seconds"] / r["rate"] for r in rounds)
        pairs = zip(results.get("loop", []), rounds, strict=False)
        ratios = [plain["seconds"] / mine["seconds"] for plain, mine in pairs]
        shown.add_row(
            side,
            f"{_median(rounds, 'load'):.1f}",
            f"{seconds:.2f}",
            f"{todo.tokens / seconds:,.0f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{share:.2f}",
            f"{share * (1 + todo.attention / todo.flops):.2f}",
            f"{_median(rounds, 'peak_mib'):,.0f}",
            f"{_furthest(rounds[0]['nll'], first[0]['nll']):.1e}",
        )
    return shown


def check_lm_eval(results: dict[str, list[dict[str, Any]]], todo: Work, noise: float) -> None:
    """End with an error where lm_eval's numbers can't be those of the loop's models.

    It takes the white space that ends a prompt for the answer's first token: its sums are larger by
    that token's nats. `noise`: nats that each token may be off besides.
    """
    pairs = zip(results.get("loop", []), results.get("lm_eval", []), strict=False)
    for plain, other in pairs:
        for name, nlls in plain["nll"].items():
            more = np.subtract(other["nll"][name], nlls) * todo.answers
            slack = noise * np.asarray(todo.answers)
            if not ((more >= -slack) & (more <= ONE_TOKEN + slack)).all():
                raise SystemExit(f"lm_eval scored another model than {name}: off by {more} nats")


def _median(rounds: list[dict[str, Any]], name: str) -> float:
    return statistics.median(found[name] for found in rounds)


def _furthest(mine: dict[str, list[float]], wanted: dict[str, list[float]]) -> float:
    """The largest difference of an example's nats per token; NaN where one is missing."""
    return float(np.max([np.abs(np.subtract(mine[name], wanted[name])) for name in wanted]))


def main(
    data: Annotated[Path, typer.Argument(help="Folder with instruct_messages.jsonl.gz.")],
    shape: Annotated[str, typer.Option(help="demo, 100m, 0.5b or 7b.")] = "demo",
    examples: Annotated[int, typer.Option(min=1, help="Examples, for every model.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every side.")] = 3,
    side: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    models: Annotated[Path | None, typer.Option(help="Where random models are kept.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Of lm_eval.")] = 8,
    output: Annotated[Path | None, typer.Option(help="Also write all numbers as JSON.")] = None,
) -> None:
    """Let the sides take turns and print one table."""
    if unknown := set(side or ()) - set(SIDES):
        raise SystemExit(f"--side: choose of {', '.join(SIDES)}, not {', '.join(sorted(unknown))}")
    rows = conversations(data, examples)
    with tempfile.TemporaryDirectory() as folder:
        made = family(shape, models or Path(folder), dtype)
        todo = work(made.base, rows, 1 + len(made.adapters))
        job = Path(folder) / "job.json"
        fields = {
            "base": str(made.base),
            "adapters": [str(path) for path in made.adapters],
            "conversations": rows,
            "answer_tokens": todo.answers,
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "batch_size": batch_size,
            "max_length": 8192,
        }
        job.write_text(json.dumps(fields))
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in side or installed()}
        for _ in range(rounds):
            for name, found in results.items():
                found.append(run(name, job))
    check_lm_eval(results, todo, 1e-4 if dtype == "float32" else 2e-2)
    print(f"{shape}, {dtype}, {device}: {examples} examples, {todo.tokens:,} tokens in all models")
    Console(width=112).print(table(results, todo))
    if output:
        output.write_text(json.dumps({"work": asdict(todo), "sides": results}))


if __name__ == "__main__":
    typer.run(main)
