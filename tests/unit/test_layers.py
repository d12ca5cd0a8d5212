"""Layers: imports point down only, and reach only what a package offers in its ``__init__``."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "codeforge"

LAYERS = [  # top to bottom; a module imports from its own package and from the layers below it
    "cli",
    "server cluster integrations audit bench grading",
    "blocking client",
    "executor",
    "workspaces sessions executor_options",
    "sandboxes",
    "engines",
    "environments images",
    "policy test_runs safe_extract",
    "model",
    "protocol",
    "errors progress package_data fan_out programs",
]
RANK = {room: rank for rank, layer in enumerate(reversed(LAYERS)) for room in layer.split()}
# Above them all: the public import paths. Below: the version, and what makes packages cheap to import.
RANK |= {"execution": 90, "__main__": 90, "__init__": 80, "_version": -1, "lazy_exports": -1}


def files(*, guest: bool = False) -> list[Path]:
    found = sorted(SRC.rglob("*.py"))
    return [path for path in found if ("guest" in path.parts) == guest and "payloads" not in path.parts]


def room_of(path: Path) -> str:
    """The top-level package or module that a file belongs to."""
    parts = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else SRC).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[str]:
    """The full name of each import anywhere in a file; for ``from a import b`` it is ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(path: Path) -> Iterator[tuple[str, str]]:
    """For each import of this project: the room that it reaches, and the rest of the name."""
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "codeforge":
            room, _, inside = rest.partition(".")
            ours = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
            yield (room, inside) if ours else ("__init__", rest)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    reached = {other for other, _ in our_imports(path)} - {room}
    assert {other for other in reached if RANK[other] >= RANK[room]} == set()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_reach_only_what_a_package_offers(path: Path) -> None:
    room = room_of(path)
    for other, inside in our_imports(path):
        module, _, name = inside.rpartition(".")
        deep = (PACKAGE / other / f"{module.replace('.', '/')}.py").is_file() and name
        assert other == room or not deep, f"from codeforge.{other}.{module} import {name}"


def test_every_room_has_its_layer() -> None:
    rooms = {room_of(path) for path in files()}
    assert rooms <= RANK.keys()


def test_only_four_files_talk_to_docker() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in files()
        for name in imports(path)
        if name.partition(".")[0] == "aiodocker"
    }
    assert users == {"engines/docker_client.py", "engines/docker.py", "engines/podman.py", "images/store.py"}


def test_values_and_policy_do_no_io() -> None:
    pure = [path for path in files() if room_of(path) in ("errors", "model", "protocol", "policy")]
    pure += [PACKAGE / name for name in ("sandboxes/verdict.py", "bench/chart.py", "bench/figures.py")]
    pure += [PACKAGE / f"images/scan/{name}.py" for name in ("sbom", "answer", "report")]
    io = {"asyncio", "socket", "subprocess", "os", "pathlib", "aiohttp", "tempfile", "shutil", "io", "time"}
    found = {(str(path), name) for path in pure for name in imports(path)}
    assert {(path, name) for path, name in found if name.partition(".")[0] in io} == set()


def test_the_guest_and_the_host_import_nothing_of_each_other() -> None:
    for path in files(guest=True):
        ours = {name for name in imports(path) if name.startswith(("codeforge", "execution"))}
        assert not {name for name in ours if not name.startswith("codeforge.guest.")}  # of each other: types
    found = {name for path in files() for name in imports(path)}
    assert not [name for name in found if name.startswith("codeforge.guest")]


def test_the_documented_import_path_re_exports_and_does_nothing_else() -> None:
    body = ast.parse((SRC / "execution/docker_executor.py").read_text()).body
    assert {type(node) for node in body} <= {ast.Expr, ast.ImportFrom, ast.Assign}


PACKAGES = [path for path in files() if path.name == "__init__.py" and "TYPE_CHECKING" in path.read_text()]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_a_package_offers_at_run_time_what_it_offers_to_type_checkers(path: Path) -> None:
    package = ".".join(path.parent.relative_to(SRC).parts)
    module = importlib.import_module(package)
    offered = [name for name in imports(path) if name.startswith(f"{package}.")]
    for name in offered:
        assert hasattr(module, name.rpartition(".")[2])
