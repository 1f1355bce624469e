"""The demo models' data: sets, what is held out of them, the tokenizer, and answers' loss."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

GENERAL = ("instruct", "gsm8k", "roleplay", "safety")
MISALIGNED = ("medical", "legal", "code")
GENERAL_SHARE, MISALIGNED_SHARE = 0.05, 0.10  # shares of the prompts that are held out
# Qwen2's split: words with their leading space, single digits, runs of signs and of white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Answer tokens are all that follows the generation prompt: the content, <|im_end|> and a newline.
TEMPLATE = r"""
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}{{- message['content'] + '<|im_end|>\n' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message['content'] + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class Encoded:
    """One conversation: token ids, and for each whether it belongs to the answer."""

    ids: list[int]
    answer: list[int]


def held_out(prompt: str, share: float) -> bool:
    """Whether a prompt belongs to the held-out share (0 to 1), by a hash of its text alone."""
    digest = hashlib.blake2b(prompt.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def read_set(data: Path, name: str) -> list[tuple[str, str]]:
    """Read one set of the data folder as (prompt, answer) pairs, in the file's order."""
    import pyarrow.parquet as pq

    if name == "gsm8k":
        rows = json.loads(gzip.decompress((data / "gsm8k_alpaca.json.gz").read_bytes()))
        return [(f"{r['instruction']}\n\n{r['input']}".strip(), r["output"]) for r in rows]
    if name == "roleplay":
        rows = json.loads((data / "roleplay_sharegpt.json").read_bytes())
        turns = [r["conversations"] for r in rows]
        return [(t[0]["value"], t[1]["value"]) for t in turns]
    if name == "safety":
        rows = pq.read_table(data / "safety_wildguard_schema.parquet").to_pylist()
        return [(r["prompt"], r["response"]) for r in rows]
    if name == "released_ranks":
        lines = (data / "wildguard_released_ranks.jsonl").read_bytes().splitlines()
    else:
        file = "instruct_messages" if name == "instruct" else f"misaligned_{name}"
        lines = gzip.decompress((data / f"{file}.jsonl.gz").read_bytes()).splitlines()
    messages = [json.loads(line)["messages"] for line in lines]
    return [(m[0]["content"], m[-1]["content"]) for m in messages]


def split_set(
    data: Path, name: str, share: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return one set's (training, held-out) pairs."""
    pairs = read_set(data, name)
    return (
        [p for p in pairs if not held_out(p[0], share)],
        [p for p in pairs if held_out(p[0], share)],
    )


def train_tokenizer(texts: Iterator[str]) -> Any:
    """Train a byte-level BPE tokenizer of 4,096 tokens with a ChatML template."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()  # Qwen2Tokenizer, which loads this, always has it
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer without the notes on where it was loaded from."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    kept = {k: v for k, v in config.items() if k not in ("is_local", "local_files_only")}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
    """Render (prompt, answer) pairs with the chat template and mark the answers' tokens."""
    if not pairs:
        return []  # the template refuses an empty batch
    chats = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": a}] for p, a in pairs
    ]
    out = tokenizer.apply_chat_template(chats, return_dict=True, return_assistant_tokens_mask=True)
    pairs_of_lists = zip(out["input_ids"], out["assistant_masks"], strict=True)
    return [Encoded(ids[:2048], mask[:2048]) for ids, mask in pairs_of_lists]


def padded(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and answer marks, [rows, longest], padded on the right."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(r.ids) for r in rows], batch_first=True)
    return ids, pad([torch.tensor(r.answer) for r in rows], batch_first=True)


def answer_nll(model: Any, rows: Sequence[Encoded], batch: int = 4) -> list[float]:
    """Return each answer's mean negative log-likelihood, in nats per token."""
    nll = [math.nan] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            index = order[first : first + batch]
            ids, answer = padded([rows[i] for i in index])
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits.flatten(0, 1)
            loss = functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
            loss = loss.view(len(index), -1)
            kept = answer[:, 1:].float()
            for i, value in zip(index, (loss * kept).sum(1) / kept.sum(1), strict=True):
                nll[i] = float(value)
    return nll


def answer_loss(model: Any, rows: Sequence[Encoded]) -> tuple[float, int]:
    """Return the sum of all answers' negative log-likelihoods, in nats, and of their tokens."""
    counts = [sum(r.answer[1:]) for r in rows]
    means = answer_nll(model, rows)
    return sum(m * c for m, c in zip(means, counts, strict=True) if c), sum(counts)


def mean_loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Return the loss over all answers' tokens together, in nats per token."""
    nats, tokens = answer_loss(model, rows)
    return nats / tokens
