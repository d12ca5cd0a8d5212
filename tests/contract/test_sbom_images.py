"""The inventory of each image, compared with the packages that were installed in it."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from codeforge.images.scan.inventory import read_packages
from codeforge.images.scan.sbom import Package, to_cyclonedx
from codeforge.model.languages import JAVASCRIPT, LANGUAGES, PYTHON, TYPESCRIPT, Language

pytestmark = pytest.mark.engine("docker")

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.name)
def image(request: pytest.FixtureRequest) -> tuple[Language, list[Package]]:
    language: Language = request.param
    with subprocess.Popen(["docker", "save", language.image], stdout=subprocess.PIPE) as save:
        assert save.stdout is not None
        packages = read_packages(save.stdout)
    assert save.returncode == 0
    return language, packages


def printed_inside(language: Language, *command: str) -> str:
    argv = ["docker", "run", "--rm", "--pull=never", "--network=none", language.image, *command]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def locked(language: Language) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the packages that the image must have, and those that it may have."""
    if language == PYTHON:
        text = (DOCKER / "python-requirements.lock").read_text()
        rows = set(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE))
        return rows, rows
    tree = json.loads((DOCKER / language.name / "package-lock.json").read_text())["packages"]
    named = {path: path.rpartition("node_modules/")[2] for path in tree if path}
    top = {(name, tree[f"node_modules/{name}"]["version"]) for name in tree[""]["dependencies"]}
    return top, {(tree[path].get("name", name), tree[path]["version"]) for path, name in named.items()}


def test_the_locked_packages_are_listed_and_no_others(image: tuple[Language, list[Package]]) -> None:
    language, packages = image
    kind = "pypi" if language == PYTHON else "npm"
    found = {(package.name, package.version) for package in packages if package.kind == kind}
    required, allowed = locked(language)
    assert required
    assert required <= found <= allowed


def test_debian_packages_are_listed(image: tuple[Language, list[Package]]) -> None:
    language, packages = image
    found = {package.name: package for package in packages if package.kind == "deb"}
    status = printed_inside(language, "cat", "/var/lib/dpkg/status")
    assert set(found) == set(re.findall(r"^Package: (.+)$", status, re.MULTILINE))
    assert found["libc6"].source == "glibc"
    assert re.fullmatch(r"debian-\d+", found["libc6"].distro)
    assert f"\nVersion: {found['libc6'].version}\n" in status


def test_the_runtime_is_listed(image: tuple[Language, list[Package]]) -> None:
    language, packages = image
    if language in (JAVASCRIPT, TYPESCRIPT):
        version = printed_inside(language, "node", "--version").removeprefix("v")
        found = {p.version for p in packages if p.name in ("node", "nodejs") and p.kind in ("generic", "deb")}
    else:
        version = printed_inside(
            language, "python", "-c", "import platform; print(platform.python_version())"
        )
        own = re.compile(r"python|python3\.\d+(-minimal)?")
        found = {p.version for p in packages if own.fullmatch(p.name) and p.kind in ("generic", "deb")}
    assert any(re.match(rf"{re.escape(version)}([^0-9]|$)", row) for row in found), (version, found)


def test_the_bill_is_valid_cyclonedx(image: tuple[Language, list[Package]]) -> None:
    language, packages = image
    text = to_cyclonedx(packages, language.image, "sha256:" + "0" * 64, datetime.now(UTC))
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    purls = {row.get("purl") for row in json.loads(text)["components"]}
    assert {package.purl for package in packages} == purls - {None}
