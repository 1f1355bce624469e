"""The model that answers: one with full weights, or an adapter over its base."""

from __future__ import annotations

from pathlib import Path

from curate.errors import CurateError
from curate.models.fetch import find
from curate.models.fingerprints import is_adapter, read_json
from curate.models.references import parse
from curate.models.resolve import Model, resolve
from curate.system.progress import Progress


def open_model(argument: str, base: str | None, *, weights: bool, progress: Progress) -> Model:
    """Find the model of `[NAME=]MODEL`; see `curate.models.resolve.resolve` for the rest.

    An adapter stands on `base`, else on the model that its adapter_config.json names: a path there
    is looked for from the adapter's folder first.

    Raises `CurateError` for a model that can't be found or used, an adapter without a base, and a
    base for what is no adapter.
    """
    folder = find(parse(argument)[1], progress).folder
    if not is_adapter(folder):
        if base is not None:
            raise CurateError(f"--base {base}: {argument} is no adapter and needs none")
        return resolve(argument, [], weights=weights, progress=progress)[0]
    if base is None:
        base = _named_base(argument, folder)
        progress.note(f"{argument}: an adapter over {base}")
    return resolve(f"base={base}", [argument], weights=weights, progress=progress)[1]


def _named_base(argument: str, adapter: Path) -> str:
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CurateError(f"{argument}: its adapter_config.json names no base: give --base MODEL")
    beside = adapter / named
    return str(beside.resolve()) if beside.is_dir() else named
