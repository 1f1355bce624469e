"""The model that answers: one with full weights, or an adapter over its base."""

from __future__ import annotations

from pathlib import Path

from curate.errors import CurateError
from curate.models.fetch import find
from curate.models.fingerprints import is_adapter, read_json
from curate.models.references import parse
from curate.models.resolve import Model, find_all, opened
from curate.system.progress import Progress


def open_model(argument: str, base: str | None, *, weights: bool, progress: Progress) -> Model:
    """Find the model of `[NAME=]MODEL`, as `curate.models.resolve` does.

    The base of an adapter is `base`, or the model that its adapter_config.json names; a path there
    is looked up in the adapter's folder first.

    Raises `CurateError` if a model can't be found or used, an adapter has no base, or a full model
    is given one.
    """
    name, at = parse(argument)
    found = [(name, find(at, progress))]
    folder = found[0][1].folder
    if is_adapter(folder):
        if base is None:
            base = _named_base(argument, folder)
            progress.note(f"{argument}: an adapter over {base}")
        found = [*find_all(f"base={base}", [], progress), *found]
    elif base is not None:
        raise CurateError(f"--base {base}: {argument} is not an adapter. Remove --base.")
    return opened(found, weights=weights, progress=progress)[-1]


def _named_base(argument: str, adapter: Path) -> str:
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CurateError(f"{argument}: its adapter_config.json names no base. Give --base MODEL.")
    beside = adapter / named
    return str(beside.resolve()) if beside.is_dir() else named
