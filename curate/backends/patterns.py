"""Regular expressions of an adapter's configuration: whether they end on a model's names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.errors import CurateError

SECONDS = 10.0
"""A pattern that names layers takes some milliseconds; one made to backtrack takes for ever."""
# What peft 0.21 makes of them (tuners/tuners_utils.py, utils/other.py).
_FORMS = ("%s", r"(.*\.)?(%s)$", r"(^|.*\.)%s($|\..*)", r"(?:^|.*?\.)%s\.(?P<idx>\d+)\.")
# A process of its own, since nothing else ends a match from outside. It needs no package.
_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        compiled = re.compile(pattern)
    except Exception:
        continue
    for name in names:
        compiled.fullmatch(name)
        compiled.match(name)
"""


def refuse_endless(adapter: Path, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Try an adapter's patterns on the names of a model's modules before peft does.

    Raises:
        CurateError: they take longer than `SECONDS`. Those that are no patterns are left to peft.
    """
    texts = [text for text in _texts(config) if not re.fullmatch(r"[\w.-]*", text)]
    if not texts:
        return
    command = [sys.executable, "-I", "-S", "-c", _MATCH]
    asked = json.dumps([[form % text for form in _FORMS for text in texts], names])
    try:
        subprocess.run(command, input=asked, text=True, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise CurateError(
            f"adapter {adapter}: a pattern in its adapter_config.json takes more than "
            f"{SECONDS:.0f} s on the model's names, {max(texts, key=len)[:60]!r} perhaps: name "
            "the modules in a list instead"
        ) from None


def _texts(config: Mapping[str, Any]) -> list[str]:
    """All that peft takes for patterns; names in a list of `target_modules` are compared."""
    found: list[object] = [config.get("target_modules"), config.get("exclude_modules")]
    for key in ("layers_pattern", "modules_to_save", "rank_pattern", "alpha_pattern"):
        value = config.get(key)
        found += value if isinstance(value, list | dict) else [value]
    return [text for text in found if isinstance(text, str)]
