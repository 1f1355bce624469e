"""Plain text: the aligned model's chat template applied, for trainers that take `text`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from curate.formats.format import Format, Keys, Messages
from curate.formats.messages import MESSAGES


def text_format(render: Callable[[Messages], str]) -> Format:
    """The format with a model's template; `render` writes a conversation or raises `Unfit`."""

    def row(messages: Messages, keys: Keys) -> dict[str, Any]:
        return {"text": render(messages)}

    return Format(
        name="text",
        row=row,
        fields=lambda keys: [pa.field("text", pa.string())],
        keeps=lambda key: False,
        meant=MESSAGES.meant,
    )
