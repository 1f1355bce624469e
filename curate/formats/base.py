"""What a format and a trainer are, and the formats that are more than one trainer's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Messages = Sequence[Mapping[str, Any]]
Keys = Mapping[str, pa.DataType]
"""The turns' own keys beside role and content, with their types: nullable in every turn."""


class Unfit(Exception):  # noqa: N818 - a verdict on one row
    """A conversation that a format, or a trainer, has no place for; the message says why."""


@dataclass(frozen=True)
class Format:
    """A row's columns and their writing.

    `row` turns messages into the conversation's columns; `fields` gives their Arrow types. `keeps`
    says which turn keys it has a place for, `columns` which other columns (None: any). Readers
    give a meaning of their own to columns called as in `meant`. `trains_on`: the last answer alone,
    or every turn of the assistant. Without `nulls`, a row has no key without a value.
    """

    name: str
    row: Callable[[Messages, Keys], dict[str, Any]]
    fields: Callable[[Keys], list[pa.Field]]
    keeps: Callable[[str], bool]
    meant: frozenset[str]
    trains_on: Literal["last", "all"] = "all"
    nulls: bool = True
    columns: frozenset[str] | None = None


def turns(
    messages: Messages, keys: Keys, role: str = "role", content: str = "content"
) -> list[dict[str, Any]]:
    """Turns with role, content and every key, null where a turn has none."""
    return [
        {role: m["role"], content: m["content"], **{key: m.get(key) for key in keys}}
        for m in messages
    ]


def turn_list(keys: Keys, role: str = "role", content: str = "content") -> pa.DataType:
    """The Arrow type of such turns."""
    return pa.list_(pa.struct([(role, pa.string()), (content, pa.string()), *keys.items()]))


MESSAGES = Format(
    name="messages",
    row=lambda messages, keys: {"messages": turns(messages, keys)},
    fields=lambda keys: [pa.field("messages", turn_list(keys))],
    keeps=lambda key: True,
    meant=frozenset({"messages", "conversations", "prompt", "completion", "text", "chosen"})
    | {"rejected", "input_ids", "labels", "images", "videos", "audios"},
)


def _pair_row(messages: Messages, keys: Keys) -> dict[str, Any]:
    if messages[-1]["role"] != "assistant":
        raise Unfit("turns after the last answer, which prompt and completion have no place for")
    made = turns(messages, keys)
    return {"prompt": made[:-1], "completion": made[-1:]}


PROMPT_COMPLETION = Format(
    name="prompt-completion",
    row=_pair_row,
    fields=lambda keys: [pa.field(name, turn_list(keys)) for name in ("prompt", "completion")],
    keeps=MESSAGES.keeps,
    meant=MESSAGES.meant,
    trains_on="last",
)


_SHAREGPT_NAMES = {"user": "human", "assistant": "gpt"}
_SHAREGPT_CALLS = {"tool_calls", "function_call", "tool_call_id"}


def _sharegpt_row(messages: Messages, keys: Keys) -> dict[str, Any]:
    made = turns(messages, keys, "from", "value")
    for turn in made:
        if any(turn.get(key) for key in _SHAREGPT_CALLS) or turn["value"] is None:
            raise Unfit("a turn with tool calls, which ShareGPT has no place for")
        turn["from"] = _SHAREGPT_NAMES.get(turn["from"], turn["from"])
    return {"conversations": made}


SHAREGPT = Format(
    name="sharegpt",
    row=_sharegpt_row,
    fields=lambda keys: [pa.field("conversations", turn_list(keys, "from", "value"))],
    keeps=lambda key: key not in {"from", "value"},
    meant=MESSAGES.meant | {"system"},
)


def _alpaca_row(messages: Messages, keys: Keys) -> dict[str, Any]:
    """`input` is always there (readers ask for it) and empty: the prompt is one text."""
    turns = list(messages)
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
    if system is not None and not system.strip():
        raise Unfit("an empty system turn, which Alpaca can't tell from none")
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise Unfit("turns other than questions and answers in turn, which Alpaca can't hold")
    if any(turn["content"] is None for turn in turns):
        raise Unfit("a turn with tool calls, which Alpaca has no place for")
    texts = [turn["content"] for turn in turns]
    history = [[texts[at], texts[at + 1]] for at in range(0, len(texts) - 2, 2)]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": history,
    }


def _alpaca_fields(keys: Keys) -> list[pa.Field]:
    texts = [pa.field(name, pa.string()) for name in ("instruction", "input", "output", "system")]
    return [*texts, pa.field("history", pa.list_(pa.list_(pa.string())))]


ALPACA = Format(
    name="alpaca",
    row=_alpaca_row,
    fields=_alpaca_fields,
    keeps=lambda key: False,
    meant=MESSAGES.meant | {"instruction", "input", "output", "system", "history", "response"},
)


def text_format(render: Callable[[Messages], str], reads: frozenset[str]) -> Format:
    """The format with a model's template; `render` writes a conversation or raises `Unfit`.

    `reads` are the turns' keys that are in what it writes.
    """
    return Format(
        name="text",
        row=lambda messages, keys: {"text": render(messages)},
        fields=lambda keys: [pa.field("text", pa.string())],
        keeps=lambda key: key in reads,
        meant=MESSAGES.meant,
    )


@dataclass(frozen=True)
class Plan:
    """What a trainer's files are made from.

    `files` are the data files beside them: one, or the narrow set's and the safe set's where the
    trainer interleaves them, with their `shares` of the whole (they sum to 1). `model` is the
    aligned model's folder, or its hub id at the commit `revision`; `longest` the most tokens a row
    can have; `seed` of whatever the trainer draws; `batch_size` rows an optimizer step, where one
    was named; `columns` and turns' `keys` those that the narrow set brought.
    """

    model: str
    format: str
    files: tuple[str, ...]
    shares: tuple[float, ...]
    longest: int
    seed: int
    batch_size: int | None
    revision: str | None = None
    columns: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @property
    def separate(self) -> bool:
        """Whether the trainer interleaves the sets itself."""
        return len(self.files) == 2

    @property
    def reader(self) -> str:
        """The name that `datasets` has for the files' kind."""
        return "parquet" if self.files[0].endswith(".parquet") else "json"

    def pinned(self, key: str) -> str:
        """The YAML line that keeps a hub model at its commit; a trainer's `key` for it."""
        if self.revision is None:
            return ""
        return f"{key}: {quoted(self.revision)} # the commit that was scored\n"

    @property
    def batches(self) -> str:
        """The YAML lines that most trainers have for the size of an optimizer step."""
        return f"""\
per_device_train_batch_size: {self.batch_size or 1} # times accumulation and devices
gradient_accumulation_steps: 1
"""


@dataclass(frozen=True)
class Trainer:
    """A trainer family: formats it reads (the first is the default) and its files.

    `files` gives names and texts; `check` raises `Unfit` for a conversation the trainer would
    drop; `meant` are columns and `reads` turn keys to which the trainer gives a meaning.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    files: Callable[[Plan], dict[str, str]]
    run: str
    check: Callable[[Messages], None] = lambda messages: None
    meant: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()


def to_choose(cpu: Mapping[str, Any], **settings: Any) -> str:
    """A commented block of a YAML: settings to choose, and those that a CPU needs besides."""
    lines = ["# To choose: take the # off what you want."]
    lines += [f"# {key}: {quoted(value)}" for key, value in settings.items()]
    lines += [
        "# On a CPU, without a GPU:",
        *(f"# {key}: {quoted(value)}" for key, value in cpu.items()),
    ]
    return "\n".join(lines) + "\n"


def quoted(value: str | float | bool | None) -> str:
    """A YAML scalar: JSON's are YAML's too."""
    return json.dumps(value, ensure_ascii=False)
