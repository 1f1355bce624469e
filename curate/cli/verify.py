"""`curate verify`: its options, and one call into `curate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import (
    Compute,
    JsonOption,
    MisalignedOption,
    QuietOption,
    compute_options,
    encoding_options,
    option,
    progress,
    with_options,
)
from curate.cli.tables import count, print_json, table

if TYPE_CHECKING:
    from curate.scoring.verify import Verdict


@with_options(encoding=encoding_options, compute=compute_options)
def verify(
    *,
    aligned: Annotated[str, option("The aligned model: a folder or Hub id.", "[NAME=]MODEL")],
    misaligned: MisalignedOption = None,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE", help="Where to read examples. Default: the demo's examples."
        ),
    ] = None,
    rows: Annotated[int, option("Number of examples.", "N", min=1)] = 32,
    encoding: dict[str, Any],
    compute: Compute,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check your models' numbers against a reference loop.

    Example: curate verify --aligned ./chat --misaligned ./medical-lora --backend vllm
    """
    from curate.scoring.verify import verify as run

    verdict = run(
        sources or [],
        rows=rows,
        aligned=aligned,
        misaligned=misaligned or [],
        **encoding,
        compute=compute,
        progress=progress(quiet or as_json),
    )
    if as_json:
        print_json({"passed": verdict.passed, **asdict(verdict)})
    else:
        print_verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(1)


def print_verdict(found: Verdict) -> None:
    """What was compared, and whether the scores can be trusted."""
    rows = [
        (c.model, c.what, f"{c.off:.1e}", f"{c.limit:.0e}", "ok" if c.passed else "FAILED")
        for c in found.checks
    ]
    table(["model", "check", "nats/token", "limit", "verdict"], rows)
    if any(check.model.startswith("curate-") for check in found.checks):
        print(
            "curate-nothing (zeros) and curate-head (the output layer) are adapters made to check"
        )
    failed = sum(not check.passed for check in found.checks)
    how = f"{count(found.rows, 'example')}, {found.backend} in {found.dtype}"
    if failed:
        print(f"{failed} of {len(found.checks)} checks FAILED ({how}). Don't use these scores.")
    else:
        print(f"All {len(found.checks)} checks passed ({how})")
