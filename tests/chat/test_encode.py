"""The chat room: which tokens are the answer's, and what is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers, processors

from curate.chat.encode import Encoded, encode
from curate.chat.templates import REASONING_KEYS, parse_args, template_of
from curate.chat.tokens import tokenizer_digest
from curate.cli.options import read_template
from curate.errors import CurateError
from tests.tiny import qwen_split, trained_tokenizer

Fast: Any = transformers.PreTrainedTokenizerFast  # their own types are not ours to check
Slow: Any = transformers.PreTrainedTokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen3's think block, in short; test_trl_templates.py has the whole, and Qwen2.5's system prompt.
QWEN3 = """{%- for m in messages %}
{%- set content = m.content %}
{%- if m.role == 'assistant' %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}
{%- if loop.last %}{% set content = '<think>\n\n</think>\n\n' + content.lstrip('\n') %}{% endif %}
{%- endif %}
{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\n\n</think>\n\n' }}
{%- endif %}
{%- endif %}"""
EMPTY = "<think>\n\n</think>\n\n"
# Templates whose prompts open a think block, and what finished turns make of it: Qwen3.5 writes it
# empty or with the reasoning, Nemotron puts marks before an answer without them, DeepSeek R1 drops.
OPENS = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
ANSWERS = "{% if m.role == 'assistant' %}BLOCK{% endif %}{{ m.content }}"
CLOSES = OPENS.replace("{{ m.content }}", ANSWERS).replace(
    "BLOCK", "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n"
)
MARKS = OPENS.replace("{{ m.content }}", ANSWERS).replace(
    "BLOCK", "{% if '<think>' not in m.content %}<think></think>{% endif %}"
)
DROPS = OPENS.replace("m.content", "m.content.split('</think>')[-1]")
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|h|>{{ m.role }}<|/h|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|h|>assistant<|/h|>\n\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
SPECIALS = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|h|>", "<|/h|>", "<|eot|>",
    "<think>", "</think>", "[INST]", "[/INST]",
]  # fmt: skip
TEXT = [
    "The user asks.\n\nThe assistant says hello, and more.\n\n\nGrüße, 日本語 🙂  two  spaces"
] * 3
ASK = {"role": "user", "content": "Say hello."}
THOUGHT = {"content": "Hello.", "reasoning_content": "Hm."}


def trained(split: Any, decoder: Any, after: Any = None) -> Any:
    """A small BPE tokenizer with the special tokens of the templates above."""
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return trained_tokenizer(TEXT, SPECIALS, split, decoder, after, **names)


@cache
def qwen_like() -> Any:
    """Byte-level, with Qwen's words: two newlines are one token."""
    return trained(*qwen_split())


@cache
def gpt2_like() -> Any:
    """Byte-level, with offsets that leave out the space before a word."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(split, decoders.ByteLevel(), processors.ByteLevel(trim_offsets=True))


@cache
def llama_like(adds_bos: bool = False) -> Any:
    """Words begin with ▁, put before each piece of text; may add a BOS of its own."""
    bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    split = pre_tokenizers.Metaspace(prepend_scheme="always")
    decoder = decoders.Metaspace(prepend_scheme="always")
    return trained(split, decoder, bos if adds_bos else None)


class Letters(Slow):  # type: ignore[misc]
    """A tokenizer in Python, without offsets: a token a letter, and "ab" as one token."""

    def __init__(self, **kwargs: Any) -> None:
        """Make the vocabulary from ASCII."""
        self.words = {chr(i): i for i in range(128)} | {"ab": 128}
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """The number of tokens before those added."""
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        """All tokens and their ids."""
        return {**self.words, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return ["ab" if c == "\0" else c for c in text.replace("ab", "\0")]

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.get(token, 63)

    def _convert_id_to_token(self, index: int) -> str:
        return next((word for word, i in self.words.items() if i == index), "?")


def talk(answer: str, *before: dict[str, str]) -> list[dict[str, str]]:
    """A conversation with the answer at its end."""
    return [*(before or (ASK,)), {"role": "assistant", "content": answer}]


def one(tokenizer: Any, text: str, answer: str, **options: Any) -> Encoded | str:
    """Encode one conversation with a template given as text."""
    max_length = options.pop("max_length", None)
    template = template_of(tokenizer, override=text, **options)
    return encode(tokenizer, template, [talk(answer)], max_length=max_length)[0]


def parts(tokenizer: Any, result: Encoded | str) -> tuple[str, str]:
    """The text of the prompt's and of the answer's tokens."""
    assert isinstance(result, Encoded), result
    ids = result.ids
    return tokenizer.decode(ids[: result.start]), tokenizer.decode(ids[result.start : result.stop])


def test_the_answer_and_its_end_of_turn() -> None:
    """The answer's tokens follow the generation prompt, to the end of the turn; all before is not.

    System prompt and earlier turns belong to the prompt; only the last answer counts.
    """
    before = [{"role": "system", "content": "Be kind."}, *talk("No."), ASK]
    template = template_of(qwen_like(), override=CHATML)
    (result,) = encode(qwen_like(), template, [talk("Hello, you.", *before)])
    prompt, answer = parts(qwen_like(), result)
    assert prompt.startswith("<|im_start|>system\nBe kind.<|im_end|>\n") and "No." in prompt
    assert prompt.endswith("user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    assert answer == "Hello, you.<|im_end|>\n"


def test_one_bos() -> None:
    """A tokenizer that adds a BOS of its own doesn't double the template's."""
    tokenizer = llama_like(adds_bos=True)
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    result = one(tokenizer, LLAMA, "Hello.")
    assert isinstance(result, Encoded)
    assert result.ids.count(tokenizer.bos_token_id) == 1


def test_a_merge_over_the_border_is_refused() -> None:
    """Two newlines are one token: an answer that begins with one has no first token of its own."""
    result = one(qwen_like(), CHATML, "\nHello.")
    assert result == "a token ('\\n\\n') crosses the boundary of prompt and answer"


def test_a_space_at_the_end_of_the_prompt_is_refused() -> None:
    """A space that ends the prompt merges with the answer's first word, also where trimmed."""
    text = CHATML.replace("assistant\n{% endif", "assistant: {% endif").replace(
        "{{ m.role }}\n", "{{ m.role }}: "
    )
    for tokenizer in (qwen_like(), gpt2_like()):
        result = one(tokenizer, text, "assistant")
        assert isinstance(result, str) and "crosses the boundary" in result


def test_words_that_bring_their_space() -> None:
    """Where the answer's turn begins with a space, the first token has it, in every tokenizer."""
    for tokenizer in (qwen_like(), gpt2_like(), llama_like()):
        result = one(tokenizer, INST, "assistant says hello")
        prompt, answer = parts(tokenizer, result)
        assert prompt.endswith("[/INST]") and answer.strip() == "assistant says hello</s>"
        assert isinstance(result, Encoded)
        assert (
            result.ids[result.start]
            not in tokenizer("[/INST]", add_special_tokens=False)["input_ids"]
        )


def test_a_tokenizer_without_offsets() -> None:
    """The prompt's ids must be the first of the whole's, else the example is refused."""
    tokenizer = Letters()
    text = "{% for m in messages %}{{ m.content }}{% if not loop.last %}>{% endif %}{% endfor %}"
    text += "{% if add_generation_prompt %}>{% endif %}"
    result = one(tokenizer, text, "Yes.")
    assert isinstance(result, Encoded)
    assert result.ids[result.start :] == [ord(c) for c in "Yes."]
    merged = one(tokenizer, text.replace(">", "a"), "b")
    assert merged == "a token crosses the boundary of prompt and answer"


@pytest.mark.parametrize(
    ("args", "given", "prompt_end", "answer"),
    [
        ({}, "Hello.", "assistant\n", EMPTY + "Hello.<|im_end|>\n"),
        ({}, EMPTY + "Hello.", "assistant\n", EMPTY + "Hello.<|im_end|>\n"),
        ({"enable_thinking": False}, "Hello.", EMPTY, "Hello.<|im_end|>\n"),
    ],
)
def test_the_empty_think_block(
    args: dict[str, Any], given: str, prompt_end: str, answer: str
) -> None:
    """Qwen3's empty think block is the answer's, once, or with thinking off the prompt's."""
    prompt, rest = parts(qwen_like(), one(qwen_like(), QWEN3, given, args=args))
    assert prompt.endswith(prompt_end) and rest == answer


@pytest.mark.parametrize(
    ("text", "given", "prompt_end", "answer"),
    [
        (CLOSES, {"content": "Hello."}, EMPTY, "Hello."),
        (CLOSES, {"content": EMPTY + "Hello."}, EMPTY, "Hello."),
        (CLOSES, THOUGHT, "assistant\n<think>\n", "Hm.\n</think>\n\nHello."),
        (MARKS, {"content": "Hello."}, "assistant\n<think></think>", "Hello."),
        (MARKS, {"content": "<think>Hm.</think>Hello."}, "<think>", "Hm.</think>Hello."),
        (DROPS, {"content": "Hello."}, "assistant\n", "Hello."),
        (DROPS, {"content": EMPTY + "Hello."}, "assistant\n", "Hello."),
        (DROPS, THOUGHT, "assistant\n", "Hello."),
    ],
)
def test_a_think_block_that_the_prompt_opens(
    text: str, given: dict[str, str], prompt_end: str, answer: str
) -> None:
    """What finished turns make of it is the prompt's, up to reasoning that the answer has."""
    template = template_of(qwen_like(), override=text)
    (result,) = encode(qwen_like(), template, [[ASK, {"role": "assistant", **given}]])
    prompt, rest = parts(qwen_like(), result)
    assert prompt.endswith(prompt_end) and rest == answer + "<|im_end|>\n"


@pytest.mark.parametrize("key", [*REASONING_KEYS, None])
def test_reasoning_under_the_key_that_a_template_reads(key: str | None) -> None:
    """A turn without any has no such key: a template that prints what is there would print None."""
    text = CHATML.replace("{{ m.content", "{% if 'KEY' in m %}({{ m.KEY }}){% endif %}{{ m.content")
    template = template_of(qwen_like(), override=text.replace("KEY", key or "other"))
    assert bool(template.reasoning) == bool(key)
    plain, thought = talk("Hello."), [ASK, {"role": "assistant", **THOUGHT}]
    stored = [turn | {"reasoning_content": None} for turn in plain]
    bare, same, other = encode(qwen_like(), template, [plain, stored, thought])
    assert bare == same
    assert parts(qwen_like(), other)[1] == ("(Hm.)" if key else "") + "Hello.<|im_end|>\n"


@pytest.mark.parametrize("text", [QWEN3, DROPS])
def test_an_answer_with_a_think_block_that_the_template_drops(text: str) -> None:
    """A template that cuts the answer's reasoning out would score another answer: refused."""
    result = one(qwen_like(), text, "I wonder.</think>\n\nHello.")
    assert result == "the chat template drops or rewrites a part of the answer"
    assert isinstance(one(qwen_like(), QWEN3, "</think>"), str)


def test_a_prompt_that_changes_with_the_answer() -> None:
    """A generation prompt that the whole conversation doesn't repeat leaves the place unclear."""
    text = CHATML.replace("assistant\n{% endif", "assistant\n<plan>{% endif")
    result = one(qwen_like(), text, "Hello.")
    assert isinstance(result, str)
    assert "'<plan>'" in result and "--chat-template" in result


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("strftime_now('%d %b %Y')", "26 Jul 2024"),
        ("strftime_now('%Y-%m-%d')", "2024-07-26"),
        ("strftime_now(format='%A, %B %-d, %Y %H:%M')", "Friday, July 26, 2024 00:00"),
        ("date_string", "26 Jul 2024"),
        ("strftime_now is defined", "True"),
    ],
)
def test_today_is_pinned(asked: str, given: str) -> None:
    """A template that asks for today's date gets the same day every day, in macros too."""
    for text in (
        f"{{{{ {asked} }}}}|",
        f"{{% macro m() %}}{{{{ {asked} }}}}|{{% endmacro %}}{{{{m()}}}}",
    ):
        prompt, _ = parts(qwen_like(), one(qwen_like(), text + CHATML, "Hello."))
        assert prompt.startswith(given + "|<|im_start|>")


def test_another_date_is_given_by_an_argument() -> None:
    """As `--template-arg date_string=...` does."""
    text = "{{ date_string }}|" + CHATML
    result = one(qwen_like(), text, "Hello.", args={"date_string": "1 May 2025"})
    assert parts(qwen_like(), result)[0].startswith("1 May 2025|")


def test_truncation_cuts_the_answer_at_its_end() -> None:
    """At every max_length the answer loses its end, is marked, or is refused: never the prompt."""
    full = one(qwen_like(), CHATML, "Hello, and more.")
    assert isinstance(full, Encoded) and not full.truncated
    for length in range(1, len(full.ids) + 3):
        cut = one(qwen_like(), CHATML, "Hello, and more.", max_length=length)
        if length <= full.start:
            assert cut == (
                f"prompt of {full.start} tokens leaves no room for an answer in max_length {length}"
            )
            continue
        assert isinstance(cut, Encoded)
        assert (cut.start, cut.stop) == (full.start, min(length, full.stop))
        assert cut.truncated == (length < full.stop)
        assert cut.ids == full.ids[: cut.stop]


def test_one_bad_conversation_harms_no_other() -> None:
    """Bad conversations among good ones get their own reasons; order is kept."""
    text = (
        CHATML + "{% if 'BAD' in messages[0].content %}{{ raise_exception('roles!') }}{% endif %}"
    )
    no_prompt = "the conversation has no prompt, or its last message is not the assistant's"
    bad: list[tuple[Any, str]] = [
        (talk("Hello.", {"role": "user", "content": "BAD"}), "the chat template fails: roles!"),
        ([], no_prompt),
        ([ASK], no_prompt),
        ([{"role": "assistant", "content": "Hello."}], no_prompt),
        (talk(" \n"), "the answer is empty"),
        ([ASK, {"role": "assistant", "content": None}], "the answer is empty"),
        ([ASK, {"role": "assistant"}], "the answer is empty"),
    ]
    conversations = [talk("Hello."), *(one for one, _ in bad), talk("Hello.")]
    results = encode(qwen_like(), template_of(qwen_like(), override=text), conversations)
    assert isinstance(results[0], Encoded) and results[0] == results[-1]
    assert results[1:-1] == [reason for _, reason in bad]


def test_templates_that_write_no_answer_or_no_prompt() -> None:
    """A template without the answer, or with nothing before it, gives a reason."""
    nothing = one(qwen_like(), "{{ messages[0].content }}", "Hello.")
    assert nothing == "the chat template drops or rewrites a part of the answer"
    bare = one(
        qwen_like(), "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "Hi"
    )
    assert bare == "the prompt has no tokens, so nothing predicts the answer's first token"


def test_no_template() -> None:
    """A tokenizer without a template says what to give; an override or its own is taken."""
    tokenizer = qwen_like.__wrapped__()
    with pytest.raises(CurateError, match="--chat-template FILE"):
        template_of(tokenizer)
    tokenizer.chat_template = CHATML
    assert template_of(tokenizer).text == CHATML
    assert template_of(tokenizer, override=LLAMA).text == LLAMA
    tokenizer.chat_template = {"tool_use": LLAMA, "default": CHATML}
    assert template_of(tokenizer).text == CHATML
    tokenizer.chat_template = {"tool_use": LLAMA, "rag": CHATML}
    with pytest.raises(CurateError, match=r"rag, tool_use.*--chat-template FILE"):
        template_of(tokenizer)


def test_broken_templates_and_arguments() -> None:
    """Broken syntax names its line; arguments that aren't the template's are refused."""
    with pytest.raises(CurateError, match="line 2: "):
        template_of(qwen_like(), override="{% if strftime_now %}{% endif %}\n{% for %}")
    for key in ("messages", "tokenize", "add_generation_prompt", "not a name"):
        with pytest.raises(CurateError, match="--template-arg"):
            template_of(qwen_like(), override=CHATML, args={key: 1})
    with pytest.raises(CurateError, match="not JSON"):
        template_of(qwen_like(), override=CHATML, args={"key": object()})


def test_arguments_from_the_command_line() -> None:
    """KEY=VALUE pairs are JSON or text, and Python's False is false."""
    given = parse_args(["a=false", "b=False", "c=26 Jul 2024", "d=3", 'e=["x"]', "f=x=y", "g="])
    assert given == {
        "a": False, "b": False, "c": "26 Jul 2024", "d": 3, "e": ["x"], "f": "x=y", "g": "",
    }  # fmt: skip
    for bad in ("", "key", "=value"):
        with pytest.raises(CurateError, match="KEY=VALUE"):
            parse_args([bad])


def test_a_template_that_begins_with_a_mark(tmp_path: Path) -> None:
    """Some editors write one; it is no part of any prompt."""
    (tmp_path / "t.jinja").write_bytes(b"\xef\xbb\xbf" + CHATML.replace("\n", "\r\n").encode())
    assert read_template(tmp_path / "t.jinja") == CHATML


def test_the_digest_names_everything_that_counts() -> None:
    """Text, arguments and the special tokens that the text names change the digest."""
    tokenizer, other = qwen_like(), qwen_like.__wrapped__()
    other.eos_token = "<|im_end|>"
    base = template_of(tokenizer, override=CHATML)
    assert base == template_of(other, override=CHATML)
    assert len(base.digest) == 64
    digests = {
        base.digest,
        template_of(tokenizer, override=CHATML + " ").digest,
        template_of(tokenizer, override=CHATML, args={"a": 1}).digest,
        template_of(tokenizer, override=INST).digest,
        template_of(other, override=INST).digest,
    }
    assert len(digests) == 5
    same = template_of(tokenizer, override=CHATML, args={"b": 1, "a": 2})
    assert same == template_of(tokenizer, override=CHATML, args={"a": 2, "b": 1})
    # Whatever another model calls its end of turn, it gets the aligned model's text.
    inst = template_of(tokenizer, override=INST)
    assert encode(other, inst, [talk("Hi.")]) == encode(tokenizer, inst, [talk("Hi.")])


def test_saved_truncation_and_padding_are_ignored() -> None:
    """What a tokenizer file says about truncation and padding doesn't touch the ids."""
    tokenizer = qwen_like.__wrapped__()
    expected = one(tokenizer, CHATML, "Hello.")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=300)
    assert one(tokenizer, CHATML, "Hello.") == expected
    tokenizer.split_special_tokens = True
    assert one(tokenizer, CHATML, "Hello.") == expected


def test_tokenizer_digest_says_whether_ids_are_equal() -> None:
    """Truncation, padding and added BOS don't change it; another vocabulary or token does."""
    same = qwen_like.__wrapped__()
    same.backend_tokenizer.enable_truncation(3)
    same.backend_tokenizer.enable_padding(length=9)
    assert tokenizer_digest(same) == tokenizer_digest(qwen_like())
    assert tokenizer_digest(llama_like(adds_bos=True)) == tokenizer_digest(llama_like())
    same.add_tokens(["hello"])
    digests = {tokenizer_digest(t) for t in (qwen_like(), gpt2_like(), llama_like(), same)}
    assert len(digests) == 4
    slow = Letters()
    assert tokenizer_digest(slow) == tokenizer_digest(Letters())
    slow.add_tokens(["hello"])
    assert tokenizer_digest(slow) != tokenizer_digest(Letters())


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(question=texts, answer=texts)
def test_any_text(question: str, answer: str) -> None:
    """For any text the span decodes to the answer and its end of turn, or a reason is given."""
    ask = {"role": "user", "content": question}
    for tokenizer in (qwen_like(), gpt2_like()):
        template = template_of(tokenizer, override=CHATML)
        (result,) = encode(tokenizer, template, [talk(answer, ask)])
        if not answer.strip():
            assert result == "the answer is empty"
        elif isinstance(result, str):
            assert "crosses the boundary" in result and answer[0].isspace()
        else:
            prompt, rest = parts(tokenizer, result)
            assert rest == answer + "<|im_end|>\n"
            assert prompt == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
