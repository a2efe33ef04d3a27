"""The package as it is shipped: its public names, its wheel, what importing it brings along."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import aiosess

ROOT = Path(__file__).parent.parent

MODULES = [
    each.name
    for each in pkgutil.walk_packages(aiosess.__path__, "aiosess.")
    if not each.name.endswith("__main__")
]
# Where users import from; everything else is how it is done, and may change.
INSIDE = "aiosess.storages._"
PUBLIC = [
    "aiosess.errors",
    "aiosess.principals",
    *(
        name
        for name in MODULES
        if name.startswith("aiosess.storages.") and not name.startswith(INSIDE)
    ),
]
COLLECTIONS = ["aiosess", "aiosess.storages", "aiosess.testing"]
STAND_INS = [name for name in MODULES if re.fullmatch(r"aiosess\.compat(\.\w+_storage)?", name)]
PROMISED = {*PUBLIC, *COLLECTIONS, *STAND_INS, "aiosess.testing.pytest"}

# What a back-end, an encrypted cookie or a test needs, and nobody else.
LEFT_OUT = (
    "aiosess.compat",
    "aiosess.principals",
    "aiosess.storages.memcached",
    "aiosess.storages.redis",
    "aiosess.testing",
)
NOT_IMPORTED = [
    "redis",
    "hiredis",
    "aiomcache",
    "emcache",
    "cryptography",
    "nacl",
    "pytest",
    *(name for name in MODULES if name.startswith(LEFT_OUT)),
]

GUIDES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]

FRONT_DOOR = [
    "Makefile",
    ".ci/run",
    ".ci/uv",
    ".ci/apt-install",
    "constraints.txt",
    "pyproject.toml",
]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHON = re.compile(r"^Programming Language :: Python :: 3\.\d+$")
# Where the project is at home: the only addresses that may stand there.
HOME = re.compile(r"https://(github\.com/aiosess/aiosess(/.+)?|aiosess\.readthedocs\.io)")
ADDRESSES = {each for each in PROJECT["urls"].values() if HOME.fullmatch(each)}


def printed_by(code: str) -> set[str]:
    """Return the words that *code* prints in an interpreter of its own."""
    finished = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return set(finished.stdout.split())


def tree(module: str) -> ast.Module:
    path = importlib.import_module(module).__file__
    assert path is not None
    return ast.parse(Path(path).read_text())


def defined(module: str) -> set[str]:
    """Return the names without an underscore that *module* defines, but for its type variables."""
    names: set[str] = set()
    for node in tree(module).body:
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                names.add(name)
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


def imported(module: str) -> set[str]:
    """Return the names that *module* takes from the rest of the package."""
    return {
        alias.asname or alias.name
        for node in tree(module).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiosess")
        for alias in node.names
    }


def as_sorted(names: list[str]) -> list[str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_promises_what_it_defines(name: str) -> None:
    promised = set(importlib.import_module(name).__all__)

    assert defined(name) == promised - imported(name)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection_promises_what_it_collects(name: str) -> None:
    promised = importlib.import_module(name).__all__

    assert set(promised) == defined(name) | imported(name)


@pytest.mark.parametrize("name", ["aiosess", *MODULES])
def test_promises_are_sorted(name: str) -> None:
    promised = importlib.import_module(name).__all__

    assert list(promised) == as_sorted(promised)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_imports_only_from_where_users_may(page: Path) -> None:
    modules = set(re.findall(r"(?:from|import) (aiosess(?:\.\w+)*)", page.read_text()))

    assert modules <= PROMISED


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names of the files in a wheel that was built just now."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_says_that_it_is_typed(wheel: list[str]) -> None:
    assert "aiosess/py.typed" in wheel


def test_the_wheel_holds_the_package_and_what_describes_it(wheel: list[str]) -> None:
    folders = {name.split("/")[0] for name in wheel}

    assert folders == {"aiosess", "_aiosess_pytest.py", f"aiosess-{version()}.dist-info"}


@pytest.fixture(scope="module")
def imported_at_once() -> set[str]:
    """Return the modules that are there after ``import aiosess``."""
    return printed_by("import aiosess, sys; print(*sys.modules)")


@pytest.mark.parametrize("module", NOT_IMPORTED)
def test_importing_aiosess_brings_no_client_along(imported_at_once: set[str], module: str) -> None:
    assert module not in imported_at_once


def test_importing_aiosess_brings_only_what_it_requires() -> None:
    packages = "{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names"

    brought = printed_by(
        "import aiohttp.web, aiohttp_session, msgspec, sys; "
        f"before = {packages}; import aiosess; print(*{packages} - before)"
    )

    assert brought == {"aiosess"}


def test_the_change_log_knows_the_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert version() in headings


@pytest.mark.parametrize("name", FRONT_DOOR)
def test_no_address_of_a_package_index_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()

    addresses = set(re.findall(r"(?:https?|file)://(?!127\.0\.0\.1)[^\s\"]+", text))

    assert addresses - ADDRESSES == set()


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"])
def test_there_is_no_lock_file_that_would_write_addresses(name: str) -> None:
    assert not (ROOT / name).exists()


def version() -> str:
    number: str = PROJECT["version"]
    return number


# How the package describes itself.


def test_the_version_is_that_of_what_is_installed() -> None:
    assert aiosess.__version__ == importlib.metadata.version("aiosess") == version()


def test_the_version_is_looked_up_only_where_somebody_asks(imported_at_once: set[str]) -> None:
    assert "importlib.metadata" not in imported_at_once


def test_another_name_is_an_attribute_error_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match=r"^module 'aiosess' has no attribute 'nothing'$"):
        aiosess.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("label", ["Documentation", "Source", "Issues", "Changelog"])
def test_the_package_index_links_to_each_place_where_the_project_is_at_home(label: str) -> None:
    assert HOME.fullmatch(PROJECT["urls"][label])


def test_a_python_is_named_where_it_is_tried() -> None:
    told = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if PYTHON.search(each)]

    assert re.findall(r"^PYTHONS \?= (.+)$", MAKEFILE, re.MULTILINE) == [" ".join(told)]


# What GitHub does for the project.

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)


@each_workflow
def test_an_action_is_pinned_by_its_commit_and_says_its_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.+)", workflow.read_text())

    assert uses
    assert [each for each in uses if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", each)] == []


@each_workflow
def test_a_workflow_may_do_nothing_but_what_a_job_says(workflow: Path) -> None:
    assert re.search(r"^permissions: \{\}$", workflow.read_text(), re.MULTILINE)


@each_workflow
def test_a_workflow_runs_what_anybody_can_run(workflow: Path) -> None:
    targets = set(re.findall(r"run: make (\S+)", workflow.read_text()))

    assert targets
    assert targets <= set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
