"""Rows of every layout that data sets have become the right conversation, or say why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from curate.errors import CurateError
from curate.reading import layouts
from curate.reading.known import Known, known_layouts
from curate.reading.layouts import check_answer, messages_of
from curate.reading.turns import Skip

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
PLAIN = [USER, ANSWER]
HARMLESS = "\n\nHuman: q\n\nAssistant: a\n\nHuman: q\n\nAssistant: a"
THOUGHT = [USER, {**ANSWER, "reasoning_content": "t"}]
NULLS = {"name": None, "arguments": None}
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "q"}]}
CHATML = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
JOINED = [{"role": "user", "content": "q\ni"}, ANSWER]
NO_ROLES = {"role": None, "content": None, "from": None, "value": None}


def conversation(row: dict[str, Any], **columns: str) -> list[dict[str, Any]]:
    """A row's messages, the answer last."""
    messages = parsed(row, known_layouts(columns))
    check_answer(messages)
    return messages


def parsed(row: dict[str, Any], known: Known) -> list[dict[str, Any]]:
    """A row's messages by these layouts."""
    return messages_of(layouts.conversation(row, known).turns, known)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": PLAIN}, PLAIN),
        ({"messages": [USER, {**ANSWER, "weight": 1, "tool_calls": None}]}, PLAIN),
        ({"messages": [SYSTEM, *PLAIN, USER, ANSWER]}, [SYSTEM, *PLAIN, USER, ANSWER]),
        ({"messages": [*PLAIN, USER]}, PLAIN),
        ({"messages": [USER, {**ANSWER, "thinking": "t"}]}, THOUGHT),
        ({"messages": [USER, {**ANSWER, "reasoning_content": "t", "reasoning": None}]}, THOUGHT),
        ({"messages": [{**USER, "weight": 0}, {**ANSWER, "weight": 1.0}]}, PLAIN),  # SlimOrca
        ({"messages": [USER, {**ANSWER, "tool_calls": [], "function_call": NULLS}]}, PLAIN),
        ({"messages": [{"role": "developer", "content": "s"}, *PLAIN]}, [SYSTEM, *PLAIN]),
        ({"messages": [{"role": "Human", "text": "q"}, {"role": "AI", "text": "a"}]}, PLAIN),
        ({"messages": [NO_ROLES | SHAREGPT[0], NO_ROLES | ANSWER]}, PLAIN),
        ({"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}}, PLAIN),
        ({"messages": {"from": ["human", "gpt"], "value": ["q", "a"], "id": None}}, PLAIN),
        ({"messages": [orjson.dumps(turn).decode() for turn in PLAIN]}, PLAIN),
        ({"messages": [["human", "q"], ["gpt", "a"]]}, PLAIN),
        ({"messages": [["q", "a"], ["q", "a"]]}, [*PLAIN, *PLAIN]),
        ({"messages": ["q", "a"]}, PLAIN),  # LIMA
        ({"conversation": [{"input": "q", "output": "a"}] * 2}, [*PLAIN, *PLAIN]),  # Capybara
        ({"conversation": [{"human": "q", "assistant": "a"}]}, PLAIN),
        ({"conversation": PLAIN, "model": "m", "turn": 1}, PLAIN),  # LMSYS, WildChat
        ({"system": "s", "messages": PLAIN}, [SYSTEM, *PLAIN]),
        ({"system_prompt": "s", "conversations": PLAIN}, [SYSTEM, *PLAIN]),  # OpenHermes
        ({"system": None, "messages": PLAIN}, PLAIN),
        ({"Messages": PLAIN}, PLAIN),
        ({"text": "### Human: q### Assistant: a"}, PLAIN),  # Guanaco
        ({"text": "### Human: q\n### Assistant: a### Human: q"}, PLAIN),
        ({"text": CHATML}, PLAIN),
        ({"messages": orjson.dumps(PLAIN).decode()}, PLAIN),
        ({"messages": PLAIN, "prompt": "x", "response": "y"}, PLAIN),
        ({"messages": None, "prompt": "q", "response": "a"}, PLAIN),
        ({"messages": [{"from": "User", "value": "q"}, {"from": "GPT", "value": "a"}]}, PLAIN),
        ({"messages": [PARTS, ANSWER]}, PLAIN),
        (
            {"messages": [USER, ANSWER | {"content": [{"text": "a"}, "b"]}]},
            [USER, ANSWER | {"content": "ab"}],
        ),
        ({"conversations": SHAREGPT}, PLAIN),
        ({"conversations": SHAREGPT, "system": "s"}, [SYSTEM, *PLAIN]),
        ({"conversations": [SYSTEM, *PLAIN], "system": "other"}, [SYSTEM, *PLAIN]),
        ({"conversations": PLAIN, "system": ""}, PLAIN),
        ({"instruction": "q", "input": "", "output": "a"}, PLAIN),
        ({"instruction": "q", "output": "a"}, PLAIN),
        ({"instruction": "q", "input": "i", "output": "a", "system": "s"}, [SYSTEM, *JOINED]),
        ({"instruction": "q", "output": "a", "history": [["q", "a"]]}, [*PLAIN, *PLAIN]),
        ({"instruction": "q", "response": "a", "input": None}, PLAIN),  # Magpie
        (
            {"instruction": "q", "context": "i", "response": "a", "category": "c"},  # Dolly
            [{"role": "user", "content": "q\n\ni"}, ANSWER],
        ),
        ({"instruction": "q", "context": " ", "response": "a"}, PLAIN),
        ({"question": "q", "answer": "a"}, PLAIN),
        ({"Question": "q", "Answer": "a"}, PLAIN),
        ({"system_prompt": "s", "question": "q", "response": "a"}, [SYSTEM, *PLAIN]),  # OpenOrca
        ({"query": "q", "response": "a", "history": [["q", "a"]]}, [*PLAIN, *PLAIN]),
        ({"query": "q", "response": "a", "history": '[["q", "a"]]'}, [*PLAIN, *PLAIN]),
        (
            {"query": "q", "response": "a", "history": PLAIN, "system": "s"},
            [SYSTEM, *PLAIN, *PLAIN],
        ),
        ({"inputs": "q", "targets": "a"}, PLAIN),  # FLAN
        ({"input": [USER], "output": "a"}, PLAIN),  # Nemotron
        ({"problem": "q", "solution": "a"}, PLAIN),
        ({"human": "q", "assistant": "a"}, PLAIN),
        ({"prompt": "q", "response": "a"}, PLAIN),
        ({"prompt": "q", "response": ["a"]}, PLAIN),
        ({"prompt": orjson.dumps([USER]).decode(), "completion": "a"}, PLAIN),
        ({"prompt": "q", "response": None, "completion": "a"}, PLAIN),
        ({"prompt": "q", "completion": "a"}, PLAIN),
        ({"instruction": "q", "generation": "a"}, PLAIN),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, [SYSTEM, *PLAIN]),
        ({"prompt": [USER], "response": "a"}, PLAIN),
    ],
)
def test_known_formats(row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    """Each layout becomes the same messages, the answer last."""
    assert conversation(row) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "response": None}, "no answer (null)"),
        ({"prompt": None, "response": "a"}, "no prompt (null)"),
        ({"prompt": "q", "response": " \n\t"}, "empty answer"),
        ({"prompt": "q", "response": 42}, "non-text content (int)"),
        ({"instruction": "q", "input": 3, "output": "a"}, "non-text content (int)"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "the history is not a list"),
        ({"instruction": "q", "output": "a", "history": "old"}, "the history is not a list"),
        ({"messages": []}, "no assistant turn"),
        ({"messages": [USER]}, "no assistant turn"),
        ({"messages": None}, "no messages (null)"),
        ({"messages": "hello"}, "the messages are text that is not JSON"),
        ({"messages": {"a": 1}}, "the messages are not a list"),
        ({"messages": [3]}, "a turn is not an object with role and content"),
        ({"messages": ["hello"]}, "no assistant turn"),
        ({"messages": [ANSWER]}, "no prompt: the conversation begins with the answer"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "no answer (null)"),
        ({"messages": [USER, {"role": "assistant"}]}, "no answer (null)"),
        ({"messages": [{"role": "user"}, ANSWER]}, "a turn without content (null)"),
        ({"messages": [USER, {"content": "a"}]}, "a turn without a role"),
        ({"messages": [{"role": "narrator", "content": "q"}, ANSWER]}, "unknown role 'narrator'"),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}, ANSWER]},
            "a tool turn (role 'to",
        ),
        ({"messages": [{"from": "function_call", "value": "x"}, *PLAIN]}, "a tool turn (role 'fu"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "a turn with tool calls"),
        (
            {"messages": [USER | {"content": [{"type": "image_url"}]}, ANSWER]},
            "non-text content (i",
        ),
        ({"messages": [USER | {"content": [{"text": None}]}, ANSWER]}, "non-text content (text)"),
        ({"question": "q", "reply": "a"}, "unknown format: the columns are question, reply"),
        ({"text": "no marks"}, "unknown format: the columns are text"),
        (
            {"message_id": "1", "parent_id": None, "text": "q", "role": "prompter", "lang": "en"},
            "one message, not a conversation: join the rows",
        ),
        ({"prompt": "q", "response": ["a", "b"]}, "a list of 2 texts"),
        ({"prompt": "q", "response": """['it\\'s "a"', "b"]"""}, "a list of texts printed as one"),
        ({"prompt": "q", "response": '["a",\n "b"]'}, "a list of texts printed as one"),
        ({"prompt": "q", "response": {"text": ["a"]}}, "non-text content (dict)"),
        (
            {"prompt": "[{'id': 1, 'role': 'user', 'content': 'q'}]", "completion": "a"},
            "turns printed as Python, as Dataset.to_csv does",
        ),
        (
            {"messages": "[{'content': 'q', 'role': 'user'}\n {'content': 'a', 'role': 'gpt'}]"},
            "turns printed as Python, as Dataset.to_csv does",
        ),
        (
            {"prompt": "q", "response": [{"role": "user", "content": "other"}, ANSWER]},
            "the answer is a whole conversation, but not that of the prompt",
        ),
        ({"messages": {"role": ["user"], "content": ["q", "a"]}}, "the messages' lists differ"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "the answer has weight 0"),
        ({"messages": [USER, {**ANSWER, "weight": 0.0}]}, "the answer has weight 0.0"),
        ({"messages": [USER, {**ANSWER, "train": False}]}, "the answer has train False"),
        ({"a\n b": "q", "\n": "a"}, r"unknown format: the columns are a b, '\n'"),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], reason: str) -> None:
    """What can't be scored says why."""
    with pytest.raises(Skip) as caught:
        conversation(row)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"chat": PLAIN, "messages": [USER]}, {"messages": "chat"}, PLAIN),
        ({"QA": "q", "output": "a"}, {"prompt": "QA"}, PLAIN),
        ({"messages": PLAIN, "page": "i"}, {"context": "page"}, JOINED),
        ({"prompt": "q", "response": "a", "why": "t"}, {"reasoning": "why"}, THOUGHT),
        ({"prompt": "q", "chosen": PLAIN, "rejected": [USER]}, {"answer": "chosen"}, PLAIN),
        (
            {"prompt": [SYSTEM, USER], "chosen": [SYSTEM, *PLAIN], "rejected": []},
            {"answer": "chosen"},
            [SYSTEM, *PLAIN],
        ),
        ({"prompt": "q", "chosen": [ANSWER]}, {"answer": "chosen"}, PLAIN),
        ({"prompt": "q", "chosen": ANSWER}, {"answer": "chosen"}, PLAIN),
        ({"chosen": PLAIN, "rejected": [USER]}, {"messages": "chosen"}, PLAIN),
        ({"chosen": HARMLESS, "rejected": ""}, {"messages": "chosen"}, [*PLAIN, *PLAIN]),
        ({"prompt": "q", "chosen": HARMLESS}, {"answer": "chosen"}, [*PLAIN, *PLAIN]),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a"}, {"answer": "chosen"}, PLAIN),
        ({"data": ["q", "a", "q", "a"]}, {"messages": "data"}, [*PLAIN, *PLAIN]),
        ({"question": "q", "reply": "a"}, {"prompt": "question", "answer": "reply"}, PLAIN),
        ({"question": "q", "output": "a"}, {"prompt": "question"}, PLAIN),
        ({"prompt": "q", "best": "a", "messages": [USER]}, {"answer": "best"}, PLAIN),
        ({"instruction": "q", "best": "a", "input": "i"}, {"answer": "best"}, JOINED),
        ({"messages": PLAIN, "persona": "s"}, {"system": "persona"}, [SYSTEM, *PLAIN]),
        ({"prompt": "q", "response": "a", "x": "s"}, {"system": "x"}, [SYSTEM, *PLAIN]),
        (
            {"q": "q", "response": "a", "text": "i", "before": [["q", "a"]]},
            {"prompt": "q", "context": "text", "history": "before"},
            [*PLAIN, *JOINED],
        ),
        ({"prompt": [USER], "completion": "a", "text": "i"}, {"context": "text"}, JOINED),
        (
            {"messages": [USER], "conversations": PLAIN, "system": "s"},
            {"messages": "conversations"},
            [SYSTEM, *PLAIN],
        ),
        ({"instruction": "x", "q": "q", "output": "a", "input": "i"}, {"prompt": "q"}, PLAIN),
    ],
)
def test_columns_can_be_named(
    row: dict[str, Any], columns: dict[str, str], expected: list[dict[str, str]]
) -> None:
    """Named columns go before the usual ones; what is not named is found as usual."""
    assert conversation(row, **columns) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"reply": "x"}, "unknown role. The roles are messages, prompt, answer, system, context"),
        ({"messages": "m", "history": "h"}, "Remove --column history"),
    ],
)
def test_columns_that_make_no_layout(columns: dict[str, str], message: str) -> None:
    """An unknown role, or two that exclude each other, is one line."""
    with pytest.raises(CurateError, match=message):
        known_layouts(columns)


DOCS = Path(__file__).parents[2] / "docs" / "input-formats.md"


def test_a_table_of_ones_own_goes_first(tmp_path: Path) -> None:
    """The table that the documentation shows adds columns, keys, roles and marks."""
    (example,) = re.findall("```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    (tmp_path / "own.toml").write_text(example)
    own = known_layouts(file=str(tmp_path / "own.toml"))
    turns = [{"speaker": "user", "text": "q"}, {"speaker": "Helper", "text": "a", "thought": "t"}]
    assert parsed({"ask": "q", "reply": "a", "prompt": "x", "response": "y"}, own) == PLAIN
    assert parsed({"prompt": "q", "response": "a"}, own) == PLAIN
    assert parsed({"messages": turns}, own) == THOUGHT
    assert parsed({"text": "Q: q A: a"}, own) == PLAIN


def test_the_page_names_every_column() -> None:
    """docs/input-formats.md has the table's layouts, in its order."""
    shown = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    layouts = known_layouts().layouts
    for line, layout in zip(shown, layouts, strict=True):
        names = {name for role, each in layout.items() if role != "system" for name in each}
        assert names == set(re.findall("`(\\w+)`", line.split("|")[1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[layouts]]\nprompt = ['q']", "a layout needs messages, a transcript, or prompt and"),
        ("[[layouts]]\nmessages = 'chat'", "layouts.0.messages"),
        ("[columns]\nprompt = ['q']", "columns: Extra inputs"),
        ("[turns]\npairs = [['q']]", "turns.pairs.0"),
        ("prompt = ", "Invalid value"),
        (None, "can't be read"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, text: str | None, message: str) -> None:
    """One line that names the file and the place in it."""
    path = tmp_path / "own.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CurateError) as caught:
        known_layouts(file=str(path))
    assert str(caught.value).startswith(f"--layouts {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
