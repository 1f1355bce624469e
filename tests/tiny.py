"""Small random models, adapters and a byte-level tokenizer: complete checkpoints, made offline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

VOCAB = 259  # 256 bytes and three special tokens

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>\n' }}"
    "{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
_GQA = {"num_key_value_heads": 2}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2": _GQA | {"tie_word_embeddings": True},
    "qwen3": _GQA | {"head_dim": 8},
    "llama": _GQA,
    "mistral": _GQA | {"sliding_window": 16},
    "gemma": _GQA | {"head_dim": 8},
    "gemma2": _GQA
    | {
        "head_dim": 8,
        "final_logit_softcapping": 2.0,
        "attn_logit_softcapping": 2.0,
        "sliding_window": 16,
        "query_pre_attn_scalar": 8,
    },
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": _GQA | {"sliding_window": None},
    "gpt_neox": {"rotary_pct": 0.5},
    "cohere": _GQA | {"logit_scale": 0.3},
    "granite": _GQA | {"logits_scaling": 4.0, "residual_multiplier": 0.5},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen3_moe": _GQA
    | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


def tiny_model(
    folder: Path,
    arch: str = "qwen2",
    *,
    vocab: int = VOCAB,
    seed: int = 0,
    tokenizer: bool = True,
    **config: Any,
) -> Path:
    """Save a random model of an architecture, with a tokenizer beside it; returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = _COMMON | ARCHITECTURES.get(arch, {}) | {"vocab_size": vocab} | config
    net = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():  # far from uniform, so that mistakes show
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
            else:
                weight.add_(noise * 0.1)
    net.save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer(folder)
    return folder


def tiny_adapter(
    base: Path, folder: Path, rank: int = 4, *, rslora: bool = False, seed: int = 0, **lora: Any
) -> Path:
    """Save a random LoRA adapter over a model, one that changes its numbers; returns the folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(base)
    settings = {"target_modules": "all-linear", "lora_alpha": 2 * rank} | lora
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # A is random: the same one whatever ran before
        wrapped = get_peft_model(net, LoraConfig(r=rank, use_rslora=rslora, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:  # B starts at zero
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(noise * 0.5 * (weight.shape[-1] * rank) ** -0.5)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def tiny_tokenizer(folder: Path) -> Path:
    """Save a tokenizer of one token a byte, with ChatML marks and template; returns the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    return folder


def qwen_split() -> tuple[Any, Any]:
    """Qwen's way of splitting text into words of bytes, where two newlines are one; its decoder."""
    from tokenizers import Regex, decoders, pre_tokenizers

    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    steps = [
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(steps), decoders.ByteLevel()


def trained_tokenizer(
    texts: list[str], specials: list[str], split: Any, decoder: Any, after: Any = None, **names: str
) -> Any:
    """A small BPE tokenizer, trained here, with these special tokens, some of them with names."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder, raw.post_processor = split, decoder, after
    trainer = trainers.BpeTrainer(
        vocab_size=600 + len(specials),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def zero_head(folder: Path, copy: Path) -> Path:
    """Copy a model and set its head to zero: every token then costs exactly log(vocab) nats."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def plain_nll(folder: Path, messages: list[dict[str, str]], adapter: Path | None = None) -> float:
    """The loop that curate replaces: one example, the adapter unmerged, nats per answer token."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        net = PeftModel.from_pretrained(net, adapter)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(whole, add_special_tokens=False).input_ids])
    labels = ids.clone()
    labels[:, : len(tokenizer(prompt, add_special_tokens=False).input_ids)] = -100
    with torch.no_grad():
        return float(net.eval()(input_ids=ids, labels=labels).loss)
