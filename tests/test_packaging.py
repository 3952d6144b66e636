"""The wheel holds what it must, and comes and goes without harm to Twisted."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Final

import pytest

from srrrs import __version__

ROOT: Final = Path(__file__).parent.parent
DEADLINE: Final = 300.0
#: What a wheel is built from.
SOURCES: Final = (
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "conf", "pyproject.toml"),
    *("setup.cfg", "setup.py", "srrrs", "twisted"),
)
TWISTD: Final = ("-c", "from twisted.scripts.twistd import run; run()")
OURS: Final = ("srrrs-agent", "srrrs-relay")


def python(program: Path | str, *words: str | Path, cwd: Path, **more: str) -> str:
    """Run an interpreter on nothing but its own packages; what it printed.

    :param more: variables of its environment.
    """
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SRRRS_", "PIP_REQUIRE"))
    }
    done = subprocess.run(
        [str(program), *map(str, words)],
        cwd=cwd,
        env={**plain, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(target: Path, *words: str | Path, cwd: Path, **more: str) -> None:
    """Run our pip on another environment."""
    python(sys.executable, "-m", "pip", "--python", target, "-q", *words, cwd=cwd, **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what wheels are built from: building leaves folders behind."""
    if shutil.which("git") is None and not (ROOT / "setup.cfg").exists():
        pytest.skip("the tests do not run from a checkout")
    folder = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info", "*.so")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    python(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source), cwd=folder
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The interpreter of a new environment with everything that srrrs needs, and no srrrs.

    Twisted is a copy, for its folder of plugins is what an installation changes; everything else
    is linked to.
    """
    folder = tmp_path / "venv"
    python(sys.executable, "-m", "venv", "--without-pip", folder, cwd=tmp_path)
    interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = Path(
        python(
            interpreter,
            *("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"),
            cwd=tmp_path,
        ).strip()
    )
    for here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(here).iterdir():
            if entry.name == "twisted":
                ignore = shutil.ignore_patterns("__pycache__", "test", "srrrs_*", "dropin.cache")
                shutil.copytree(entry, packages / entry.name, ignore=ignore)
            elif not entry.name.startswith(("srrrs", "__editable__")) and entry.suffix != ".pth":
                (packages / entry.name).symlink_to(entry)
    return interpreter


def plugins_shown(interpreter: Path, cwd: Path) -> list[str]:
    """Our plugins in twistd's help."""
    shown = python(interpreter, *TWISTD, "--help", cwd=cwd)
    assert "ftp" in shown  # one of Twisted's own
    return sorted(word for word in shown.split() if word in OURS)


def twisteds_plugins(interpreter: Path, cwd: Path) -> dict[str, bytes]:
    """The files of Twisted's folder of plugins, by name."""
    found = python(interpreter, "-c", "import twisted; print(twisted.__file__)", cwd=cwd)
    folder = Path(found.strip()).parent / "plugins"
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix == ".py"}


def test_every_package_is_listed() -> None:
    """setup.cfg names them one by one, and `twisted.plugins` with them."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = parser["options"]["packages"].split()
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "srrrs").rglob("__init__.py")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == {*there, "twisted.plugins"}


def test_no_file_would_replace_one_of_twisteds() -> None:
    """An `__init__.py` of ours would overwrite Twisted's, and uninstalling would delete it."""
    assert not (ROOT / "twisted" / "__init__.py").exists()
    names = {file.name for file in (ROOT / "twisted" / "plugins").glob("*.py")}
    assert names == {name for name in names if name.startswith("srrrs_")}
    assert {"srrrs_relay.py", "srrrs_agent.py"} <= names


def test_pyproject_holds_build_system_and_tools_only() -> None:
    """The metadata stand in setup.cfg."""
    import tomllib

    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"build-system", "tool"}


@pytest.mark.slow
def test_what_the_wheel_holds(wheel: Path) -> None:
    """Modules, types, the protocol's specification, the units; no tests."""
    assert wheel.name.startswith(f"srrrs-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        str(file.relative_to(ROOT))
        for folder in ("srrrs", "twisted/plugins")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert modules <= names
    assert "srrrs/py.typed" in names
    assert "srrrs/protocol/SPEC.md" in names
    assert "twisted/plugins/__init__.py" not in names
    assert not [name for name in names if name.startswith(("tests", "bench"))]
    shared = {name.partition("/data/share/srrrs/")[2] for name in names if "/data/share/" in name}
    conf = ROOT / "conf"
    assert shared == {str(file.relative_to(conf)) for file in conf.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_the_wheel_comes_and_goes(wheel: Path, fresh: Path, tmp_path: Path) -> None:
    """Installed, both plugins and the command are there; uninstalled, Twisted is as it was."""
    before = twisteds_plugins(fresh, tmp_path)
    assert plugins_shown(fresh, tmp_path) == []
    pip(fresh, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert plugins_shown(fresh, tmp_path) == list(OURS)
    command = fresh.parent / "srrrs-tunnel"
    form = "plain Python" if wheel.name.endswith("-none-any.whl") else "compiled"
    assert python(command, "--version", cwd=tmp_path) == f"srrrs {__version__} ({form})\n"

    pip(fresh, "uninstall", "-y", "srrrs", cwd=tmp_path)
    assert not command.exists()
    assert twisteds_plugins(fresh, tmp_path) == before
    python(fresh, "-c", "import twisted.plugins", cwd=tmp_path)
    assert plugins_shown(fresh, tmp_path) == []


@pytest.mark.slow
def test_an_editable_install_shows_the_plugins(source: Path, fresh: Path, tmp_path: Path) -> None:
    """twistd finds them in the checkout."""
    # Compiling takes long, and changes nothing of that.
    pip(fresh, "install", "--no-deps", "-e", source, cwd=tmp_path, SRRRS_PURE="1")
    assert plugins_shown(fresh, tmp_path) == list(OURS)
