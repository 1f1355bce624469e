"""The wheel: what travels in it, and that it works where there is no checkout.

The wheel is installed without its dependencies into an empty environment that borrows those of
the running one through a .pth file. `make test` on a fresh clone is the full installation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "runs", "curate-demo", "*.egg-info", "tests", "bench"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "checkout"  # a copy: a build leaves folders behind
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel, and the checkout nowhere."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    ran = subprocess.run([*pip, *options, str(wheel)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    # Only a .pth file in a site folder is read, so the editable checkout's own is not.
    borrowed = sysconfig.get_paths()["purelib"]
    (Path(paths["purelib"]) / "borrowed.pth").write_text(borrowed + "\n")
    return folder / "bin"


def test_the_wheel_holds_what_runs(wheel: Path) -> None:
    """Code, SQL, the page's files and the demo's data travel inside the package, whole."""
    with zipfile.ZipFile(wheel) as file:
        sizes = {item.filename: item.file_size for item in file.infolist()}
    room = ROOT / "curate"
    wanted = {path: path.relative_to(ROOT) for path in (*room.rglob("*.py"), room / "py.typed")}
    wanted |= {path: path.relative_to(ROOT) for path in (room / "report" / "page").iterdir()}
    for folder in (ROOT / "sql", ROOT / "data"):
        inside = (path for path in folder.rglob("*.*") if path.suffix != ".pyc")
        wanted |= {path: Path("curate") / path.relative_to(ROOT) for path in inside}
    found = {str(name): path.stat().st_size for path, name in wanted.items()}
    assert found.items() <= sizes.items()


def test_the_wheel_takes_no_names_of_others(wheel: Path) -> None:
    """At its top level there is `curate` alone: no `cli`, `tests`, `sql` or `data`."""
    with zipfile.ZipFile(wheel) as file:
        tops = {name.split("/")[0] for name in file.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"curate"}


@pytest.mark.parametrize(
    "before",
    [
        "import curate.export",
        "import curate.report.report",
        "from curate.export.mix import Mix; import curate",
        "import curate; curate.export, curate.report; import curate.export.export",
    ],
)
def test_a_room_never_hides_its_function(before: str) -> None:
    """`curate.export` and `curate.report` are functions, whatever was imported before."""
    same = "; ".join(
        f"from curate.{name}.{name} import {name}; assert curate.{name} is {name}"
        for name in ("export", "report")
    )
    code = f"{before}; import curate; {same}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_an_installed_copy_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    """`curate demo` goes the whole way offline, from another folder, and says what it wrote."""
    ran = _run(installed / "python", "-c", "import curate; print(curate.__file__)", cwd=tmp_path)
    assert str(installed.parent) in ran.stdout, ran.stderr
    ran = _run(installed / "curate", "demo", "--dir", "there", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    there = tmp_path / "there"
    assert (there / "corpus" / "curate.json").is_file()
    assert len((there / "mix.jsonl").read_text().splitlines()) == 42
    assert (there / "mix.jsonl.manifest.json").is_file()
    for text in ("rank", "prompt", "there/mix.jsonl", "there/corpus", "curate score"):
        assert text in ran.stdout, ran.stdout
    assert re.search(r"^ +1 +0\.\d+ .*\n +2 +0\.", ran.stdout, re.M), ran.stdout
    again = _run(installed / "curate", "demo", "--dir", "there", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 scores computed" in again.stdout
    assert again.stderr.count("nothing is missing") == 4


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    environment |= {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
