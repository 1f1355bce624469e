"""What an export writes, and where: format, trainer, placement and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from curate.errors import CurateError
from curate.formats import FORMATS, TRAINERS
from curate.formats.files import WRITERS
from curate.selection.recipe import check_choice
from curate.storage import documents, leftovers, parts
from curate.storage.documents import MANIFEST
from curate.system import buckets

Placement = Literal["even", "batch", "shuffle", "separate"]


@dataclass(frozen=True)
class Target:
    """How a selection is written.

    `placement` says where selected rows go: `even`; `batch` (every batch of `batch_size` rows has
    its share); `shuffle` (random places, by the recipe's seed); or `separate` (in their own file,
    which the trainer interleaves). `format`: messages, prompt-completion, sharegpt, alpaca, openai
    or text; None is the trainer's own, else messages. `trainer`: trl, axolotl, llamafactory or
    swift, to write a configuration for it.
    """

    placement: Placement = "even"
    batch_size: int | None = None
    format: str | None = None
    trainer: str | None = None


@dataclass(frozen=True)
class Output:
    """The place of a checked target: one data file with its manifest, or a folder.

    `address` is the place in a bucket; `path` is then only its name.
    """

    path: Path
    folder: bool
    ending: str
    format: str
    target: Target
    address: str | None = None

    def __str__(self) -> str:
        return self.address or str(self.path)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the data files: one in training order, or one for each kind of row."""
        if self.target.placement == "separate":
            return f"narrow{self.ending}", f"safe{self.ending}"
        return (f"train{self.ending}",) if self.folder else (self.path.name,)

    @property
    def manifest(self) -> Path:
        """Where the manifest is written."""
        beside = self.path.with_name(f"{self.path.name}.{MANIFEST}")
        return self.path / MANIFEST if self.folder else beside


def check(path: Path, target: Target, *, mixes: bool, force: bool) -> Output:
    """Check a target and its path; `mixes` says whether there is a narrow dataset.

    Raises:
        CurateError: options that don't go together, a path that exists without `force`, or an
            unknown extension. A folder is replaced only if an export made it.
    """
    address = buckets.address_of(path)
    named = address or path
    if address is None:
        parts.refuse_address(path)
    chosen = _format(target)
    _check_placement(target, mixes)
    folder = path.suffix not in WRITERS
    if folder and (path.suffix or path.name in ("", "..")) and not path.is_dir():
        raise CurateError(
            f"{named}: unknown extension. Give a .jsonl or .parquet file, or a folder."
        )
    if not folder and (target.trainer or target.placement == "separate"):
        why = f"--trainer {target.trainer}" if target.trainer else "--placement separate"
        raise CurateError(f"{named}: {why} writes several files. Give a folder.")
    if chosen == "openai" and path.suffix == ".parquet":
        raise CurateError(f"{named}: the fine-tuning API takes JSON Lines. Give a .jsonl file.")
    ending = path.suffix
    if folder:
        ending = ".jsonl" if target.trainer or chosen == "openai" else ".parquet"
    output = Output(path, folder, ending, chosen, target, address)
    _check_free(output, force)
    return output


def _format(target: Target) -> str:
    check_choice("--format", target.format or "messages", [*FORMATS, "text"])
    if target.trainer is None:
        return target.format or "messages"
    check_choice("--trainer", target.trainer, TRAINERS)
    formats = TRAINERS[target.trainer].formats
    if target.format is not None and target.format not in formats:
        raise CurateError(
            f"--format {target.format}: --trainer {target.trainer} reads {' or '.join(formats)}"
        )
    return target.format or formats[0]


def _check_placement(target: Target, mixes: bool) -> None:
    check_choice("--placement", target.placement, get_args(Placement))
    if target.placement != "even" and not mixes:
        raise CurateError(
            f"--placement {target.placement} needs a narrow dataset: add --into NARROW"
        )
    if target.batch_size is not None and target.batch_size < 1:
        raise CurateError(f"--batch-size {target.batch_size}: give at least 1")
    if target.placement == "batch" and target.batch_size is None:
        raise CurateError("--placement batch needs the batch size: add --batch-size B")


def _check_free(output: Output, force: bool) -> None:
    path = output.path
    if output.address:
        taken = buckets.exists(output.address, folder=output.folder)
        if taken and output.folder:
            raise CurateError(
                f"{output}: already exists, and a folder in a bucket can't be replaced. Choose "
                "another."
            )
        if taken and not force:
            raise CurateError(f"{output}: already exists. Choose another, or use --force.")
        return
    if not output.folder:
        for each in (path, output.manifest):
            parts.refuse_existing(each, force)
        return
    leftovers.put_back(path)  # what a killed export was replacing
    exists = path.exists() or path.is_symlink()
    if exists and not force:
        raise CurateError(f"{path}: already exists. Choose another, or use --force.")
    if exists and not _is_export(path):
        raise CurateError(
            f"{path}: already exists, and no export made it, so --force does not replace "
            "it. Choose another."
        )


def _is_export(path: Path) -> bool:
    """Whether a folder holds an export and nothing else."""
    try:
        record = documents.load(path / MANIFEST)
        known = {MANIFEST, *record["output"]["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return path.is_dir() and {each.name for each in path.iterdir()} <= known
