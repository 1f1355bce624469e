"""Datasets of the Hugging Face hub, streamed row by row (`hf://...`)."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.errors import CurateError

PREFIX = "hf://"
HOW = "Write hf://ORG/NAME[/CONFIG][@REVISION][:SPLIT], or hf:///FOLDER[:SPLIT] for a local one."
_REFERENCE = re.compile(r"(?P<name>[^@:]+)(?:@(?P<revision>[^@:]+))?(?::(?P<split>.+))?")


def hub_rows(reference: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index + 1, row) of one split of a dataset, streaming; images stay undecoded.

    Without a split it is `train`, or the only one.

    Raises:
        CurateError: the reference, the dataset, its config or its split can't be read.
    """
    name, config, revision, split = parse_reference(reference)
    import datasets

    data: Any = None
    try:
        data = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
        if split is None:
            data = _one_split(reference, data)
        yield from enumerate(data.decode(False), start=1)
    except CurateError:
        raise
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        cause = error.__cause__ or error
        text = (" ".join(str(cause).split()) or type(cause).__name__)[:500].rstrip(".")
        raise CurateError(f"{reference}: {text}. {HOW}") from error
    finally:
        data = None
        gc.collect()  # a file that Arrow still holds may end the process badly (apache/arrow 50482)


def parse_reference(reference: str) -> tuple[str, str | None, str | None, str | None]:
    """Split `hf://...` into dataset name or folder, config, revision and split.

    Raises:
        CurateError: it isn't of that form.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix(PREFIX))
    if match is None:
        raise CurateError(f"{reference}: not a dataset's address. {HOW}")
    name, config = match["name"].rstrip("/"), None
    if name.startswith(("/", ".")):
        if not Path(name).is_dir() and Path(name).parent.is_dir():
            name, config = str(Path(name).parent), Path(name).name
        if not Path(name).is_dir():
            raise CurateError(f"{reference}: there is no folder {name}. {HOW}")
    elif name.count("/") > 1:
        owner, name, config = name.split("/", 2)
        name = f"{owner}/{name}"
    return name, config, match["revision"], match["split"]


def _one_split(reference: str, splits: Any) -> Any:
    if "train" in splits:
        return splits["train"]
    if len(splits) == 1:
        return next(iter(splits.values()))
    names = ", ".join(f":{name}" for name in splits)
    raise CurateError(f"{reference}: which split? Add one of {names}.")
