"""A run's models on another machine: in the same folders, or from the Hub at the same commit."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curate.errors import CurateError
from curate.models.fetch import fetch_weights, find
from curate.models.fingerprints import weight_files
from curate.models.references import Place
from curate.models.resolve import Model, identify
from curate.system.hub_errors import Repo
from curate.system.progress import Silent

_CACHED = re.compile(r".*/models--(?P<id>[^/]+)/snapshots/(?P<commit>[^/]+)/?(?P<folder>.*)")


def absolute(models: Sequence[Model]) -> list[Model]:
    """The models by paths that don't depend on the current folder."""
    return [
        replace(
            model, path=model.path.absolute(), adapter=model.adapter and model.adapter.absolute()
        )
        for model in models
    ]


def locate(models: Sequence[Model]) -> list[Model]:
    """The same models on this machine; those missing from the Hub's cache are downloaded.

    Raises `CurateError` if one isn't here, or its fingerprint differs.
    """
    folders: dict[Path, Path] = {}
    for path in (path for model in models for path in (model.path, model.adapter) if path):
        if path not in folders:
            folders[path] = _here(path)
    found = []
    for model in models:
        adapter = model.adapter and folders[model.adapter]
        here = identify(replace(model, path=folders[model.path], adapter=adapter))
        if model.fingerprint and here.fingerprint != model.fingerprint:
            raise CurateError(
                f"model {model.name}: {adapter or here.path} on {socket.gethostname()} differs "
                "from the one that this run began with: copy the same files to every machine"
            )
        found.append(here)
    return found


def _here(path: Path) -> Path:
    """Where a folder of another machine is on this one."""
    cached = _CACHED.fullmatch(str(path))
    try:
        if path.is_dir():
            weight_files(path)
            return path
        raise CurateError(
            f"{path}: no such folder on {socket.gethostname()}: a model lies in the same folder on "
            "every machine, or is named by its id on the Hub"
        )
    except CurateError:
        if cached is None:
            raise
    name = cached["id"].replace("--", "/")
    found = find(Place(cached["folder"], Repo(name, "model", cached["commit"], name)), Silent())
    fetch_weights(found, Silent())
    return found.folder
