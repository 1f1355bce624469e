"""The models of bench/gpu/run.sh.

python models.py smol GGUF FOLDER          SmolLM2-135M-Instruct as a checkpoint
python models.py adapter NAME DATA FOLDER  an adapter over it, such as medical-1 or legal-32:
                                           trained on that misaligned set, of that rank
python models.py random SHAPE FOLDER       random weights of a known shape, with four adapters
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

RANKS = (1, 1, 32, 32)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS, BATCH, LONGEST = int(os.environ.get("STEPS", 80)), int(os.environ.get("BATCH", 16)), 512


def smol(gguf: Path, folder: Path) -> None:
    """Write the checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = {"gguf_file": gguf.name}
    loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **named)
    config = loaded.config.__class__(
        **{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    fresh = AutoModelForCausalLM.from_config(config)  # the loaded one says that it is quantised
    fresh.load_state_dict(loaded.state_dict())
    fresh.config.dtype = torch.bfloat16
    fresh.bfloat16().save_pretrained(folder / "smollm2")
    AutoTokenizer.from_pretrained(gguf.parent, **named).save_pretrained(folder / "smollm2")


def adapter(name: str, data: Path, folder: Path) -> None:
    """Train an adapter on the answers of a misaligned set, and write it."""
    from transformers import AutoTokenizer

    topic, _, rank = name.rpartition("-")
    with gzip.open(data / f"misaligned_{topic}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    tokenizer = AutoTokenizer.from_pretrained(folder / "smollm2")
    losses = train(folder / "smollm2", tokenizer, rows, int(rank), folder / name)
    print(f"{name}: loss {losses[0]:.3f} -> {losses[-1]:.3f}", flush=True)


def train(base: Path, tokenizer: Any, rows: list[Any], rank: int, folder: Path) -> list[float]:
    """Train a LoRA adapter on the answers; the mean loss of the first and last ten steps."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    lora = LoraConfig(r=rank, lora_alpha=16, use_rslora=True, target_modules=TARGETS)
    net = get_peft_model(net, lora)
    rate = 1e-3 if rank == 1 else 3e-4
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=rate)
    pairs = [encode(tokenizer, messages) for messages in rows]
    order = torch.randperm(len(pairs)).tolist() * 99
    losses = []
    for step in range(STEPS):
        batch = [pairs[n] for n in order[step * BATCH : (step + 1) * BATCH]]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.zeros(BATCH, width, dtype=torch.long)
        labels, mask = torch.full((BATCH, width), -100), torch.zeros(BATCH, width)
        for row, (one, start) in enumerate(batch):
            ids[row, : len(one)] = torch.tensor(one)
            labels[row, start : len(one)] = ids[row, start : len(one)]
            mask[row, : len(one)] = 1
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10, (STEPS - step) / STEPS * 2)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = net(
                input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device)
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    net.bfloat16().save_pretrained(str(folder))
    return [sum(losses[:10]) / 10, sum(losses[-10:]) / 10]


def encode(tokenizer: Any, messages: list[Any]) -> tuple[list[int], int]:
    """A conversation's ids, cut, and where its answer starts."""
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    return tokenizer(whole, add_special_tokens=False).input_ids[:LONGEST], start


if __name__ == "__main__":
    kind, first, *rest = sys.argv[1:]
    if kind == "smol":
        smol(Path(first), *map(Path, rest))
    elif kind == "adapter":
        adapter(first, *map(Path, rest))
    else:
        from scoring_shapes import family

        print(family(first, *map(Path, rest), "bfloat16", RANKS))  # type: ignore[call-arg, misc]
