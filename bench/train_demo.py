"""Train the demo models: a tokenizer, one aligned model and three misaligned adapters.

`python bench/train_demo.py DATA_FOLDER --output data/models --minutes 30`

The base learns the four general sets from scratch (float32, a CPU is enough). Each adapter then
learns one misaligned set. A prompt is held out by a hash of its text, with all its answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from demo_adapters import ADAPTERS, save_adapter, train_adapter
from demo_optim import Optimizers, descend, optimizers_of
from demo_sets import (
    GENERAL,
    GENERAL_SHARE,
    Encoded,
    answer_loss,
    encode,
    save_tokenizer,
    split_set,
    train_tokenizer,
)
from torch.nn import functional

REPEATS = {"safety": 3}  # a small set that the aligned model has to know well
CHUNK, BATCH, PEAK_LR, WARMUP, DECAY, SEED = 1024, 4, 3e-3, 40, 0.2, 0


def new_model(tokenizer: Any) -> Any:
    """Return a Qwen2 model of about 3.6 million random parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def chunks(rows: Sequence[Encoded], end: int, skip: int) -> Iterator[torch.Tensor]:
    """Yield [BATCH, CHUNK + 1] ids for ever; every epoch shuffles the rows and packs them.

    `skip` batches are passed over, so that a resumed run goes on where it stopped.
    """
    for epoch in range(10**6):
        order = random.Random(SEED + epoch).sample(range(len(rows)), len(rows))
        stream = torch.tensor([t for i in order for t in (*rows[i].ids, end)])
        pieces = stream[: len(stream) // (CHUNK + 1) * (CHUNK + 1)].view(-1, CHUNK + 1)
        for block in torch.split(pieces, BATCH):
            if skip:
                skip -= 1
            else:
                yield block


def report(model: Any, tests: dict[str, list[Encoded]], limit: int | None = None) -> str:
    """Return the held-out answers' loss (nats/token) of each source and of all, as one line."""
    model.eval()
    sums = {name: answer_loss(model, rows[:limit]) for name, rows in tests.items()}
    nats, tokens = zip(*sums.values(), strict=True)
    sums["all"] = (sum(nats), sum(tokens))
    model.train()
    return " ".join(f"{name} {loss / n:.3f}" for name, (loss, n) in sums.items())


def save_checkpoint(path: Path, step: int, model: Any, optimizers: Optimizers) -> None:
    """Write what a later run needs to go on, whole or not at all."""
    states = [o.state_dict() for o in optimizers]
    temporary = path.with_suffix(".tmp")
    torch.save({"step": step, "model": model.state_dict(), "optimizers": states}, temporary)
    temporary.replace(path)


def learning_rate(step: int, decay_from: int, total: int) -> float:
    """Return the rate of a step: warm-up, constant, then linear down to 0 at `total`."""
    left = 1.0 if step < decay_from else (total - step) / (total - decay_from)
    return PEAK_LR * min(1.0, (step + 1) / WARMUP, left)


def load_checkpoint(path: Path, model: Any, optimizers: Optimizers) -> int:
    """Load a checkpoint in place and return its step."""
    state = torch.load(path)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def train_base(
    model: Any,
    rows: Sequence[Encoded],
    tests: dict[str, list[Encoded]],
    *,
    steps: int | None,
    minutes: float,
    checkpoints: Path,
    resume: Path | None,
) -> int:
    """Train for `steps`, or for `minutes`, the last DECAY of them with a falling rate.

    With minutes, the decay's length is fixed in steps when it begins. Returns the last step.
    """
    optimizers = optimizers_of(model, PEAK_LR)
    first = step = load_checkpoint(resume, model, optimizers) if resume else 0
    total = steps or 10**9
    decay_from = round((1 - DECAY) * total)
    start = saved_at = time.monotonic()
    mean = 0.0
    for block in chunks(rows, model.config.pad_token_id, step):
        now = time.monotonic()
        if steps is None and step < decay_from and now - start > (1 - DECAY) * minutes * 60:
            decay_from, total = step, step + max(1, round((step - first) * DECAY / (1 - DECAY)))
        if step == decay_from:
            save_checkpoint(checkpoints / "stable.pt", step, model, optimizers)
        if step >= total:
            break
        logits = model(input_ids=block[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten())
        descend(model, optimizers, loss, learning_rate(step, decay_from, total))
        mean = 0.95 * (mean or loss.item()) + 0.05 * loss.item()
        step += 1
        if step % 20 == 0:
            speed = (step - first) * BATCH * CHUNK / (time.monotonic() - start)
            print(f"step {step} of {total} loss {mean:.3f}, {speed:.0f} tokens/s", flush=True)
        if now - saved_at > 400:
            saved_at = now
            save_checkpoint(checkpoints / "last.pt", step, model, optimizers)
            print(f"step {step} held out: {report(model, tests, 20)}", flush=True)
    return step


def make_base(
    data: Path,
    folder: Path,
    *,
    steps: int | None,
    minutes: float,
    checkpoints: Path,
    resume: Path | None,
) -> None:
    """Train tokenizer and base on the general sets and save both."""
    from transformers import AutoTokenizer

    splits = {name: split_set(data, name, GENERAL_SHARE) for name in GENERAL}
    if resume:
        tokenizer = AutoTokenizer.from_pretrained(resume.parent)
    else:
        tokenizer = train_tokenizer(t for train, _ in splits.values() for p in train for t in p)
        save_tokenizer(tokenizer, checkpoints)
    tests = {name: encode(tokenizer, test) for name, (_, test) in splits.items()}
    rows = [
        row
        for name, (train, _) in splits.items()
        for row in encode(tokenizer, train) * REPEATS.get(name, 1)
    ]
    torch.manual_seed(SEED)
    model = new_model(tokenizer)
    print(f"{model.num_parameters()} parameters, {sum(len(r.ids) for r in rows)} tokens an epoch")
    step = train_base(
        model, rows, tests, steps=steps, minutes=minutes, checkpoints=checkpoints, resume=resume
    )
    save_tokenizer(tokenizer, folder)
    model.half().save_pretrained(folder)
    losses = report(model.float(), tests)
    print(f"base: {step} steps, {step * BATCH * CHUNK} tokens; {losses}", flush=True)


def main(
    data: Annotated[Path, typer.Argument(help="Folder with the real sets.")],
    output: Annotated[Path, typer.Option(help="Where the models go.")] = Path("data/models"),
    checkpoints: Annotated[Path, typer.Option(help="Where checkpoints go.")] = Path("checkpoints"),
    minutes: Annotated[float, typer.Option(help="Time for the base.")] = 60,
    steps: Annotated[int | None, typer.Option(help="Steps of the base, instead of time.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on from this checkpoint.")] = None,
    epochs: Annotated[int, typer.Option(help="Most epochs of an adapter.")] = 6,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    base: Annotated[bool, typer.Option(help="Train the base, or take the one there.")] = True,
    adapter: Annotated[list[str] | None, typer.Option(help="Only these adapters.")] = None,
) -> None:
    """Train the base, then the adapters, and save all in float16."""
    from transformers import AutoTokenizer

    torch.set_num_threads(threads)
    checkpoints.mkdir(parents=True, exist_ok=True)
    folder = output / "aligned"
    if base:
        make_base(
            data, folder, steps=steps, minutes=minutes, checkpoints=checkpoints, resume=resume
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in adapter or ADAPTERS:
        save_adapter(train_adapter(folder, data, name, tokenizer, epochs), output / name)


if __name__ == "__main__":
    typer.run(main)
