"""`prompt` and `completion` as message lists: TRL takes the loss on the completion alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curate.formats.format import Format, Keys, Messages, Unfit, turn_list, turns
from curate.formats.messages import MESSAGES


def _row(messages: Messages, keys: Keys) -> dict[str, Any]:
    if messages[-1]["role"] != "assistant":
        raise Unfit("turns after the last answer, which prompt and completion have no place for")
    made = turns(messages, keys)
    return {"prompt": made[:-1], "completion": made[-1:]}


PROMPT_COMPLETION = Format(
    name="prompt-completion",
    row=_row,
    fields=lambda keys: [pa.field(name, turn_list(keys)) for name in ("prompt", "completion")],
    keeps=MESSAGES.keeps,
    meant=MESSAGES.meant,
    trains_on="last",
)
