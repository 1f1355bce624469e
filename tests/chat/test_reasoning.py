"""A turn's reasoning and chat templates."""

from __future__ import annotations

from curate.chat.encode import encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from tests.conftest import Family

PRINTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if 'reasoning_content' in m %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_turn_without_reasoning_has_no_such_key(family: Family) -> None:
    """As stored, its value is null; a template that prints what is there must not print None."""
    tokenizer = load_tokenizer(str(family.aligned))
    template = template_of(tokenizer, override=PRINTS, args={})
    bare = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    stored = [turn | {"reasoning_content": None} for turn in bare]
    thought = [bare[0], bare[1] | {"reasoning_content": "Hm."}]
    plain, same, other = encode(tokenizer, template, [bare, stored, thought])
    assert not isinstance(plain, str)
    assert plain == same != other
