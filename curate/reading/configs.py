"""Which files the configs and splits of a data set have, as `datasets` finds them in a folder.

By the card's `configs`, the patterns in it, or the names of files and folders.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from curate.errors import CurateError
from curate.reading.addresses import HUB, HubSet

CARD = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""The files whose text is asked; of the others it is enough that they are there."""
_HARMLESS = {
    *("data_files", "data_dir", "default", "version", "description"),
    *("features", "columns", "chunksize", "batch_size", "drop_labels"),
}
"""What a card may set for a config without any effect on the rows."""
_SHOWN = 8  # configs or splits named in a message


def files_of(folder: Path, wanted: HubSet) -> list[str]:
    """The files of one split of a data set, as names in the folder.

    Without a config it is the default one or the only one, without a split `train` or the only one.

    Raises:
        CurateError: the config or split doesn't exist, or several fit; or the files can't be
            determined.
    """
    folder = folder.resolve()
    try:
        configs, default, settings = _configs(folder)
        config = _one(wanted, "config", default, list(configs))
        if odd := ", ".join(sorted(settings.get(config, {}).keys() - _HARMLESS)):
            raise CurateError(
                f"{wanted}: its card sets {odd} for these files, which isn't applied here. Fetch "
                "them (hf download), convert them, and give the new ones."
            )
        found = _splits(folder, configs[config])
    except CurateError:
        raise
    except BadZipFile:
        raise CurateError(
            f"{wanted}: its files are in an archive. Fetch it and unpack it: hf download "
            f"--repo-type dataset {wanted.repo}"
        ) from None
    except Exception as error:  # YAML's errors and those of `datasets` share no type
        why = " ".join(str(error).partition(" with any supported ")[0].split())
        why = why.replace(f"{folder}/", "").replace(str(folder), "the set")[:200].rstrip(".")
        raise CurateError(
            f"{wanted}: its files can't be determined ({why or type(error).__name__}). Name them: "
            f"{HUB}datasets/{wanted.at}/PATH"
        ) from error
    return found[_one(wanted, "split", "train", list(found))]


def _configs(folder: Path) -> tuple[dict[str, Any], str | None, dict[str, dict[str, Any]]]:
    """The configs of a folder, the default one, and what the card sets for them."""
    import datasets
    from datasets.load import LocalDatasetModuleFactory

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()  # it warns of settings that no reader has
    found = LocalDatasetModuleFactory(str(folder)).get_module().builder_configs_parameters
    configs = {config.name: config for config in found.builder_configs or ()}
    known = {
        name: {key: value for key, value in settings.items() if hasattr(configs[name], key)}
        for name, settings in (found.metadata_configs or {}).items()
    }
    return configs, found.default_config_name, known


def _splits(folder: Path, config: Any) -> dict[str, list[str]]:
    """The splits of a config and their files.

    Raises:
        ValueError: the card names files outside of the folder.
    """
    from datasets.data_files import DataFilesPatternsDict

    files = config.data_files
    if isinstance(files, DataFilesPatternsDict):
        files = files.resolve(str(folder / (config.data_dir or "")))
    found: dict[str, list[str]] = {}
    for split, paths in files.items():
        if odd := [path for path in paths if not Path(path).is_relative_to(folder)]:
            raise ValueError(f"its card names {odd[0]}, which is not in it")
        found[str(split)] = [Path(path).relative_to(folder).as_posix() for path in paths]
    return found


def _one(wanted: HubSet, what: str, usual: str | None, names: list[str]) -> str:
    """The config or split that is asked for, the usual one, or the only one."""
    asked = getattr(wanted, what)
    if asked in names:
        return str(asked)
    if asked is None and usual in names:
        return str(usual)
    if len(names) == 1 and asked in (None, usual):
        return names[0]
    shown = ", ".join(str(replace(wanted, **{what: name})) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    problem = f"which {what}?" if asked is None else f"no {what} {asked!r}."
    raise CurateError(f"{wanted}: {problem} There are {shown}{more}.")
