"""The answer's span on every chat template that the trl package ships, checked by other means.

Each template meets a byte-level tokenizer whose special tokens are the template's own, and some
conversations. What `encode` gives must be right or a reason; nothing third.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from curate.chat.encode import Encoded, encode
from curate.chat.templates import PINNED_DATE, template_of
from tests.tiny import qwen_split, trained_tokenizer

# What was right when this was written (trl 1.16.0, 72 templates). More is fine, fewer is not.
RIGHT_PAIRS = 697  # of 720 with the templates' own defaults
RIGHT_TEMPLATES = 72
RIGHT_PAIRS_WITHOUT_THINKING = 279  # of 280, with enable_thinking=False, where templates ask for it
KNOWN = [
    "cohere", "gemma", "gemma3", "glm4moe", "gptoss", "lfm2", "llama3", "llama3_1", "llama3_2",
    "phi3", "phi3_5", "qwen2_5", "qwen2_5_training", "qwen3", "qwen3_training",
    "qwen3_instruct_2507",
]  # fmt: skip

SPECIAL = re.compile(
    r"<\|[^<>|\s'\"]+\|?>|<[^<>|\s'\"]+\|>|<｜[^｜\s]+｜>|</?[a-z_]+>|\[/?[A-Z_]+\]|<[bs/]+os>|</?s>"
)
BLOCK = re.compile(r"(<think>\s*)?(</think>\s*)?\Z")
READS_PARTS = re.compile(r"message\['content'\]\[0\]\['(type|text)'\]")
TEXT = """The user asks and the assistant answers in whole sentences.\n\nThe system says: be brief.
Grüße aus Köln, 日本語, emoji 🙂🙂. You are helpful.\n\n\n  Indented words, two  spaces.\n\n
"""
SYSTEM = {"role": "system", "content": "Answer in one sentence."}
FIRST = {"role": "user", "content": "What is a moon? "}
REPLY = {"role": "assistant", "content": "A body that goes round a planet."}
SECOND = {"role": "user", "content": "Which planet has none?\n"}


def answered(*before: dict[str, str], answer: str) -> list[dict[str, str]]:
    """The messages with an answer after them."""
    return [*before, {"role": "assistant", "content": answer}]


CONVERSATIONS = {
    "single": answered(FIRST, answer="A body that goes round a planet."),
    "system": answered(SYSTEM, FIRST, answer="A natural satellite."),
    "multi-turn": answered(FIRST, REPLY, SECOND, answer="Venus. And Mercury, too."),
    "system, multi-turn": answered(SYSTEM, FIRST, REPLY, SECOND, answer="Venus."),
    "unicode": answered(FIRST, answer="Grüße: 日本語 🙂‍↔️ e\u0301 \u00a0ﬁ"),
    "spaces inside": answered(FIRST, answer="One.\n\n  Two,  three\t.\r\n\n\nFour"),
    "spaces around": answered(FIRST, answer="  Venus. \n\n"),
    "newline first": answered(FIRST, answer="\n\nVenus."),
    "one letter": answered(FIRST, answer="m"),
    "template's words": answered(FIRST, answer="assistant"),
}


def shipped() -> list[Path]:
    """The package's template files, found without importing it."""
    spec = importlib.util.find_spec("trl")
    folders = spec.submodule_search_locations if spec else None
    found = [p for folder in folders or [] for p in Path(folder).glob("chat_templates/*.jinja")]
    return sorted(found)


@cache
def tokenizer_for(text: str) -> Any:
    """A byte-level tokenizer with Qwen's way of splitting words, and the template's specials."""
    specials = sorted({*SPECIAL.findall(text), "<bos>", "<eos>", "<pad>"})
    split, decoder = qwen_split()
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return trained_tokenizer([TEXT] * 3, specials, split, decoder, **names)


def shaped(text: str, messages: Any) -> Any:
    """The messages with contents as lists of parts, for the templates that only read those."""
    if not READS_PARTS.search(text):
        return messages
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def written(tokenizer: Any, text: str, messages: Any, values: Any, prompt: bool) -> str:
    """The template's text, asked of transformers without the code under test."""
    today = {"date_string": PINNED_DATE} if "date_string" in text else {}
    messages = shaped(text, messages)
    return str(
        tokenizer.apply_chat_template(
            messages, chat_template=text, add_generation_prompt=prompt, tokenize=False,
            **today, **values,
        )
    )  # fmt: skip


def fault(tokenizer: Any, text: str, messages: Any, values: Any, one: Encoded) -> str | None:
    """What is wrong with these tokens, if anything."""
    prompt = written(tokenizer, text, messages[:-1], values, True)
    whole = written(tokenizer, text, messages, values, False)
    if "strftime_now" in text:
        clock = r"(?<=Current date: )\d{4}-\d\d-\d\d"
        prompt, whole = (re.sub(clock, "2024-07-26", s) for s in (prompt, whole))
    before, after = tokenizer.decode(one.ids[: one.start]), tokenizer.decode(one.ids[one.start :])
    if one.stop != len(one.ids) or one.truncated:
        return "not the whole turn"
    head, answer = BLOCK.sub("", prompt), messages[-1]["content"].strip()
    behind = BLOCK.sub("", before) == head != prompt and after.lstrip().startswith(answer)
    if before != prompt and not behind:
        return f"the prompt's tokens are {before[-40:]!r}, not {prompt[-40:]!r}"
    if before + after != whole or answer not in after:
        return f"the answer's tokens are {after!r}"
    if one.ids != tokenizer.encode(whole, add_special_tokens=False):
        return "other tokens than the text's own"
    if one.ids.count(tokenizer.bos_token_id) > 1:
        return "more than one BOS"
    return None


def outcomes(path: Path, **values: Any) -> dict[str, str]:
    """For each conversation "right", or the reason of the refusal."""
    text = path.read_text()
    tokenizer = tokenizer_for(text)
    template = template_of(tokenizer, override=text, args=values)
    results = encode(tokenizer, template, list(CONVERSATIONS.values()))
    found = {}
    for (name, messages), result in zip(CONVERSATIONS.items(), results, strict=True):
        if isinstance(result, Encoded):
            wrong = fault(tokenizer, text, messages, values, result)
            assert wrong is None, f"{path.stem}, {name}, {values}: {wrong}"
        found[name] = "right" if isinstance(result, Encoded) else result
    return found


pytestmark = pytest.mark.skipif(not shipped(), reason="trl is not installed")


@pytest.mark.slow
def test_every_template_is_right_or_refused() -> None:
    """Each of trl's templates gives the right tokens, or a reason, on every conversation."""
    right = [[*outcomes(path).values()].count("right") for path in shipped()]
    assert sum(right) >= RIGHT_PAIRS
    assert sum(map(bool, right)) >= RIGHT_TEMPLATES


def test_thinking_switched_off() -> None:
    """With enable_thinking=False the empty think block belongs to the prompt."""
    asking = [path for path in shipped() if "enable_thinking" in path.read_text()]
    tables = [[*outcomes(path, enable_thinking=False).values()] for path in asking]
    assert sum(table.count("right") for table in tables) >= RIGHT_PAIRS_WITHOUT_THINKING


@pytest.mark.parametrize("name", KNOWN)
def test_known_templates_are_right(name: str) -> None:
    """The templates people use most are right on every plain conversation."""
    path = next(path for path in shipped() if path.stem == name)
    found = outcomes(path)
    del found["newline first"]
    if "System role not supported" in path.read_text():
        del found["system"], found["system, multi-turn"]
    assert set(found.values()) == {"right"}, found
