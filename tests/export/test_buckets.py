"""Exports and reports to a bucket: the manifest last, and nothing replaced unasked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import Cli, fails
from tests.s3 import S3
from tests.s3 import s3 as s3
from tests.s3 import server as server


@pytest.mark.parametrize("name", ["mix.jsonl", "mix.parquet", "mix.jsonl.gz/mix", "trl"])
def test_an_export_to_a_bucket(s3: S3, cli: Cli, scored: Path, tmp_path: Path, name: str) -> None:
    """The bytes that it has on this disk; its manifest comes last and knows the address."""
    options = ("--trainer", "trl") if name == "trl" else ()
    command = ("export", "-c", scored, "--top", 5, *options)
    assert cli(*command, "-o", tmp_path / name).code == 0
    ran = cli(*command, "-o", f"s3://box/a/{name}")
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"s3://box/a/{name}: 5 rows")
    sent = [line.split()[1] for line in s3.log if line.startswith("PUT")]
    assert sent[-1].endswith("manifest.json")
    record = json.loads(s3.ask("GET", sent[-1].lstrip("/")))
    assert record["output"]["path"] == f"s3://box/a/{name}"
    for path, (file, digest) in zip(sent, sorted(record["output"]["files"].items()), strict=False):
        assert path.endswith(file)
        assert hashlib.sha256(s3.ask("GET", path.lstrip("/"))).hexdigest() == digest
    fails(cli(*command, "-o", f"s3://box/a/{name}"), f"s3://box/a/{name}: already exists")


def test_an_export_replaced(s3: S3, cli: Cli, scored: Path) -> None:
    """One file may be; broken off, no manifest stands beside another's rows. A folder may not."""
    command = ("export", "-c", scored, "-o", "s3://box/mix.jsonl", "--force")
    assert cli(*command, "--top", 5).code == 0
    s3.before = lambda line: s3.require_keys(line.startswith("PUT") and "manifest" in line)
    fails(cli(*command, "--top", 3), "s3://box: ", "refused (")
    s3.before = lambda _: None
    s3.require_keys(False)
    assert s3.names() == ["mix.jsonl"]
    dry = (*command[:-1], "--top", 3, "--dry-run")
    assert "s3://box/mix.jsonl exists: to replace it, add --force" in cli(*dry).out
    assert cli(*command, "--top", 3).code == 0
    assert s3.ask("GET", "box/mix.jsonl").count(b"\n") == 3
    fails(cli(*command, "--top", 3, "--into", "s3://box/mix.jsonl"), "this is the narrow dataset")
    folder = ("export", "-c", scored, "-o", "s3://box/mix", "--top", 3)
    assert cli(*folder).code == 0
    fails(cli(*folder, "--force"), "a folder in a bucket can't be replaced")


def test_a_report_to_a_bucket(s3: S3, cli: Cli, scored: Path) -> None:
    """One page, which a browser shows."""
    command = ("report", "-c", scored, "-o", "s3://box/r.html")
    ran = cli(*command)
    assert ran.out == "Wrote s3://box/r.html. Open it in a browser.\n", ran
    assert s3.ask("GET", "box/r.html").startswith(b"<!doctype html>")
    fails(cli(*command), "s3://box/r.html: already exists")
    fails(cli("report", "-c", scored, "--plots", "s3://box/p"), "files are written to this disk")
