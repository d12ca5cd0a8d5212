"""Layers: imports point down only. The order below is the architecture; a new module gets its place in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "codeforge"

LAYERS = [  # top to bottom; a module imports only from layers below its own
    {"execution.docker_executor"},
    {"__main__"},
    {"cli"},
    {"cli.app"},
    {"cli.image_commands", "cli.repl"},
    {
        "cli.audit",
        "cli.batch",
        "cli.bench",
        "cli.doctor",
        "cli.environments",
        "cli.images",
        "cli.languages",
        "cli.prompt",
        "cli.run",
    },
    {"cli.engine", "cli.request_line"},
    {"cli.terminal"},
    {"__init__"},
    {"bench.report", "blocking"},
    {"bench.measure"},
    {"audit.selftest"},
    {"audit.auditor"},
    {"audit.effect", "audit.pairs"},
    {"audit.inside", "audit.mutations", "audit.outside"},
    {"audit.cases", "audit.daemon", "audit.facts", "audit.host", "audit.lab", "audit.probes"},
    {"audit.checks"},
    {"executor"},
    {"blocking_session"},
    {"session"},
    {"family"},
    {"link", "session_files"},
    {"cell", "extract"},
    {"cells", "session_wire"},
    {"progress"},
    {"images.store", "options", "pool", "testing"},
    {"stock"},
    {"sandbox"},
    {"conduct", "engines.choose"},
    {"engines.bubblewrap", "engines.gvisor", "engines.podman"},
    {"engines.docker"},
    {"engines.oom"},
    {"engines.cgroups", "environments.making"},
    {"environments.store", "engines.connection", "engines", "verdict", "images.scan"},
    {"environments.npm", "environments.etc"},
    {"environments.pip", "policy"},
    {"journal", "request", "images.archive", "images.osv", "images.scanners"},
    {"environments.build"},
    {"languages", "result"},
    {"evidence"},
    {"wire"},
    {"limits"},
    {"images.sbom", "images.tar", "images.context", "images.scan_answer"},
    {"bench.figures", "images.scan_report"},
    {"user_ids", "engines.addresses", "environments.identity"},
    {"environments", "environments.binaries", "shipped", "steps"},
    {"errors", "_version", "fanout", "audit", "audit.canary", "bench", "bench.chart", "images"},
]
RANK = {module: rank for rank, layer in enumerate(reversed(LAYERS)) for module in layer}


def name_of(path: Path) -> str:
    """``cli.run``, ``engines`` for a package, and ``execution.docker_executor`` for the other package."""
    parts = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {
    name_of(path): path
    for path in sorted(SRC.rglob("*.py"))
    if not {"guest", "payloads"} & set(path.parts) and path != SRC / "execution/__init__.py"
}


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, wherever in it: of ``from a import b``, ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(imported: str) -> str | None:
    """The module of ours that an import reaches, if it is one of ours."""
    first, _, rest = imported.partition(".")
    if first != "codeforge":
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    assert module in RANK, f"{module} has no place among the layers"
    reached = {found for name in imports(MODULES[module]) if (found := module_of(name))}
    assert {found for found in reached if RANK[found] >= RANK[module]} == set()


def test_every_place_among_the_layers_is_taken() -> None:
    assert RANK.keys() == MODULES.keys()


def test_only_four_files_talk_to_docker() -> None:
    found = {(module, name) for module, path in MODULES.items() for name in imports(path)}
    users = {module for module, name in found if name.partition(".")[0] == "aiodocker"}
    assert users == {"engines.connection", "engines.docker", "engines.podman", "images.store"}


def test_values_and_policy_do_no_io() -> None:
    pure = ["errors", "limits", "languages", "request", "result", "wire", "policy", "verdict"]
    pure += [
        "cells",
        "session_wire",
        "bench.chart",
        "bench.figures",
        "images.sbom",
        "images.scan_answer",
        "images.scan_report",
    ]
    io = {"asyncio", "socket", "subprocess", "os", "pathlib", "aiohttp", "tempfile", "shutil", "io", "time"}
    found = {(module, name) for module in pure for name in imports(MODULES[module])}
    assert {(module, name) for module, name in found if name.partition(".")[0] in io} == set()


def test_the_guest_knows_nobody_and_nobody_knows_the_guest() -> None:
    for path in (PACKAGE / "guest").rglob("*.py"):
        ours = {name for name in imports(path) if name.startswith(("codeforge", "execution"))}
        assert not {name for name in ours if not name.startswith("codeforge.guest.")}  # of each other: types
    found = {name for path in MODULES.values() for name in imports(path)}
    assert not [name for name in found if name.startswith("codeforge.guest")]


def test_the_documented_import_path_re_exports_and_does_nothing_else() -> None:
    body = ast.parse((SRC / "execution/docker_executor.py").read_text()).body
    assert {type(node) for node in body} <= {ast.Expr, ast.ImportFrom, ast.Assign}
