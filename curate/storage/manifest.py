"""`curate.json`: a corpus's models, settings and sources."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from curate.errors import CurateError
from curate.storage import parts
from curate.storage.documents import first_fault

FORMAT_VERSION: Final = 2
NAME = "curate.json"
NAME_OF_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A model's name is also a folder name, and appears in SQL, tables and reports."""
TEMPLATE = "chat_template.jinja"
"""The template given with --chat-template, stored so that a run can be resumed."""


@dataclass(frozen=True)
class ModelEntry:
    """One model of a corpus, as it was scored.

    `fingerprint` is the digest of the weights, `tokenizer` that of the tokenizer: models with
    equal `tokenizer` are comparable per token. `dtype` and `backend` are those of the last run.
    `commit` is that of the Hub repository of the model, or of its adapter.
    """

    role: Literal["aligned", "misaligned"]
    reference: str
    fingerprint: str
    tokenizer: str
    dtype: str
    backend: str
    commit: str | None = None

    @property
    def pinned(self) -> str:
        """The reference; for a Hub model, with the commit that was scored."""
        if self.commit is None:
            return self.reference
        return f"{self.reference.partition('@')[0]}@{self.commit}"


@dataclass(frozen=True)
class Settings:
    """The settings that all scores of a corpus share: the template and the length limit.

    `template` is the digest over template text, arguments and pinned date; `max_length` counts
    tokens of prompt and answer (None: no limit).
    """

    template: str
    template_args: dict[str, Any]
    max_length: int | None


@dataclass(frozen=True)
class Run:
    """A model's last run: examples, tokens of prompt and answer, seconds after loading."""

    examples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Only:
    """Why a model has not scored all: the condition, and the misaligned models of its gaps."""

    where: str
    over: list[str]


@dataclass(frozen=True)
class Race:
    """A race as it was asked for, and what came of it.

    `top` is a share below 1, or a count; `audit` counts the sample; `proxy` is the corpus whose
    ranking came first. The numbers of a race that ended: the examples of the top, and the passes
    made of those that a full run makes.
    """

    top: float
    recall: float
    audit: int
    seed: int
    proxy: str = ""
    depth: int | None = None
    passes: list[int] = field(default_factory=list)


@dataclass
class Manifest:
    """All that `curate.json` holds.

    `keep_tokens`: token log-probabilities are stored for every score. `columns` maps the sources'
    own columns to SQL types. `dropping` holds models and sources that are being removed, which
    after a kill are only partly gone. `only` holds, by model, the examples that it does not have to
    score; `race` does so for all models.
    """

    format_version: Literal[2]  # no default: other JSON files must be rejected
    settings: Settings | None = None
    models: dict[str, ModelEntry] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    keep_tokens: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    dropping: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, Only] = field(default_factory=dict)
    race: Race | None = None

    @property
    def aligned(self) -> ModelEntry | None:
        """The aligned model, if the corpus has one yet."""
        return next((e for e in self.models.values() if e.role == "aligned"), None)

    @property
    def misaligned(self) -> list[str]:
        """The names of the misaligned models."""
        return [name for name, e in self.models.items() if e.role == "misaligned"]

    def add_source(self, record: dict[str, Any]) -> None:
        """Record a source as given; recording it again changes nothing."""
        if record not in self.sources:
            self.sources.append(record)


def load(folder: Path, *, to_finish: bool = False) -> Manifest:
    """Read the manifest of a corpus folder.

    Raises:
        CurateError: there is none, it is broken, or another version wrote it; or a drop is
            unfinished, unless the caller is going `to_finish` it.
    """
    path = folder / NAME
    parts.refuse_address(folder, corpus=True)
    try:
        found = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CurateError(
            f"{folder}: not a corpus ({NAME} is missing). To make one, run "
            f"`curate score SOURCE --corpus {folder} --aligned ... --misaligned ...`"
        ) from None
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except ValidationError as error:
        raise CurateError(f"{path}: {_invalid(error)}") from None
    if wrong := [name for name in found.models if not NAME_OF_MODEL.fullmatch(name)]:
        why = f"{wrong[0][:40]!r} is not a valid model name"
        raise CurateError(f"{path}: not a curate manifest ({why})")
    if found.dropping and not to_finish:
        raise CurateError(
            f"{folder}: a `curate drop` is running or was interrupted. To finish it, run "
            f"`curate drop -c {shlex.quote(str(folder))}`."
        )
    return found


def save(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, whole or not at all."""
    parts.write_record(folder / NAME, manifest)


def _invalid(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["loc"] == ("format_version",) and first["type"] != "missing":
        return (
            f"has format {first['input']!r}, but this curate reads format {FORMAT_VERSION}. "
            "Upgrade curate, or score into a new folder."
        )
    return (
        f"not a curate manifest ({first_fault(error)}). Restore it from a backup, or score into a "
        "new folder."
    )
