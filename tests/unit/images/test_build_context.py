"""The build context, and requests that are refused before they reach an engine."""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import io
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from codeforge import package_data
from codeforge.engines.docker import DockerEngine
from codeforge.errors import EngineError, ImageBuildFailed, ImageNotFound, ImagePullTimeout, InvalidRequest
from codeforge.images import build_context as build_context, store
from codeforge.images.store import ImageStore
from codeforge.model.languages import (
    JAVASCRIPT,
    LANGUAGES,
    OPTIONAL_LANGUAGES,
    PYTHON,
    PYTHON_DATA,
    TYPESCRIPT,
    Language,
)

ROOT = Path(__file__).parents[3]


def context() -> bytes:
    into = io.BytesIO()
    build_context.write(into)
    return into.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
    assert len({member.name for member in found}) == len(found)
    return {member.name: member for member in found}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files of the context, for tests that change them."""
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    package = tmp_path / "src/codeforge"
    shutil.copytree(ROOT / "src/codeforge/guest", package / "guest")
    monkeypatch.setattr(package_data, "PACKAGE_DIR", package)
    return tmp_path


# --- The build context --------------------------------------------------------------------------------


def test_the_same_files_make_the_same_bytes() -> None:
    assert context() == context()


def test_owner_time_and_mode_of_a_checkout_make_no_difference(checkout: Path) -> None:
    before = context()
    for path in checkout.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
    assert context() == before


def test_other_contents_make_other_bytes(checkout: Path) -> None:
    before = context()
    with (checkout / "src/codeforge/guest/python/python_worker.py").open("a") as file:
        file.write("\n")
    assert context() != before


def test_it_holds_the_dockerfiles_and_the_guests_sources() -> None:
    names = members(context()).keys()
    assert {row.dockerfile for row in (*LANGUAGES, *OPTIONAL_LANGUAGES)} <= names
    guest = [
        "init/main.c",
        "init/run.h",
        "init/Makefile",
        "python/python_worker.py",
        "python/codeforge_worker.pth",
        "node/node_worker.cjs",
        "typescript/typescript_sample.ts",
    ]
    assert {f"src/codeforge/guest/{name}" for name in guest} <= names
    assert {"docker/prune-rootfs.sh", "docker/python-requirements.lock"} <= names


def test_it_has_everything_that_a_dockerfile_copies() -> None:
    names = members(context()).keys()
    for row in (*LANGUAGES, *OPTIONAL_LANGUAGES):
        assert row.dockerfile is not None
        text = (ROOT / row.dockerfile).read_text().replace("\\\n", " ")
        for copied in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
            for source in copied.split()[:-1]:
                folder = f"{source.rstrip('/')}/*"
                assert fnmatch.filter(names, source) or fnmatch.filter(names, folder), source


def test_names_are_relative_and_plain_files_only() -> None:
    for name, member in members(context()).items():
        assert name.startswith(("docker/", "src/codeforge/guest/"))
        assert ".." not in name.split("/")
        assert member.isreg()
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
        assert member.mode == (0o755 if (ROOT / name).stat().st_mode & 0o100 else 0o644)


def test_contents_are_those_of_the_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(context())) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == (ROOT / member.name).read_bytes()


@pytest.mark.parametrize(
    "stray",
    [
        "src/codeforge/guest/init/init",
        "src/codeforge/guest/init/main.o",
        "src/codeforge/guest/init/build/init",
        "src/codeforge/guest/enter/enter",
        "src/codeforge/guest/bin/init",
        "src/codeforge/guest/python/__pycache__/python_worker.cpython-311.pyc",
        "docker/build/x",
        "docker/offline/__pycache__/x.pyc",
    ],
)
def test_files_that_a_build_on_the_host_left_are_not_in_it(checkout: Path, stray: str) -> None:
    before = context()
    path = checkout / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"built on the host")
    assert context() == before


def test_the_installed_copy_takes_precedence_over_the_checkout(checkout: Path) -> None:
    installed = checkout / "src/codeforge/_image_context/docker"
    installed.mkdir(parents=True)
    (installed / "python.Dockerfile").write_text("ARG PYTHON_IMAGE=installed:1\n")
    assert build_context.base_image("docker/python.Dockerfile") == ("PYTHON_IMAGE", "installed:1")
    assert [name for name in members(context()) if name.startswith("docker/")] == ["docker/python.Dockerfile"]


@pytest.mark.parametrize(
    ("language", "argument", "base"),
    [
        (PYTHON, "PYTHON_IMAGE", "python:3.11-slim"),
        (PYTHON_DATA, "PYTHON_IMAGE", "python:3.11-slim"),
        (JAVASCRIPT, "NODE_IMAGE", "node:18-slim"),
        (TYPESCRIPT, "NODE_IMAGE", "node:18-slim"),
    ],
    ids=["python", "python-data", "javascript", "typescript"],
)
def test_a_dockerfile_names_its_base_image_and_the_argument_that_replaces_it(
    language: Language, argument: str, base: str
) -> None:
    assert language.dockerfile is not None
    assert build_context.base_image(language.dockerfile) == (argument, base)
    assert base in store.OFFLINE_BASES


def test_a_dockerfile_without_a_base_argument_is_an_error(checkout: Path) -> None:
    (checkout / "docker/python.Dockerfile").write_text("FROM python:3.11-slim\n")
    with pytest.raises(ImageBuildFailed, match=r"docker/python\.Dockerfile names no base image"):
        build_context.base_image("docker/python.Dockerfile")


# --- References ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "reference"),
    [
        (None, "ai-codeforge-python:latest"),
        ("custom", "ai-codeforge-python:custom"),
        ("1.2-rc.3_x", "ai-codeforge-python:1.2-rc.3_x"),
        ("V1", "ai-codeforge-python:V1"),
        ("_x", "ai-codeforge-python:_x"),
        ("mine:1", "mine:1"),
        ("host/mine", "host/mine"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
    ],
)
def test_a_tag_applies_to_the_languages_image_unless_it_is_a_whole_reference(
    tag: str | None, reference: str
) -> None:
    assert store._full_reference(PYTHON, tag) == reference


@pytest.mark.parametrize(
    ("image", "reference"),
    [("py", "py:x"), ("localhost:5000/py", "localhost:5000/py:x"), ("localhost:5000/py:1",
     "localhost:5000/py:x")],
)  # fmt: skip
def test_the_port_of_a_registry_is_not_a_tag(image: str, reference: str) -> None:
    assert store._full_reference(dataclasses.replace(PYTHON, image=image), "x") == reference


@pytest.mark.parametrize(
    "tag", ["", " ", "a b", "-x", "--rm", "a\n", "é", "a;b", "$(id)", "../x", "/x", ":x", "@x", "a\0",
    "a?b=c", "a#b", "a&b"]
)  # fmt: skip
def test_an_invalid_tag_is_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="is not an image tag"):
        store._full_reference(PYTHON, tag)


@pytest.mark.parametrize(
    ("reference", "named"),
    [("python", False), ("library/python", False), ("python:3.11", False), ("ghcr.io/x/y", True),
     ("localhost/x", True),
     ("localhost:5000/x", True), ("reg:5000/x:y", True), ("x.y", False)],
)  # fmt: skip
def test_a_registry_is_named_by_a_host_before_the_first_slash(reference: str, named: bool) -> None:
    assert store._names_a_registry(reference) is named


# --- What is refused before an engine is asked --------------------------------------------------------


def build(language: Language = PYTHON, **options: Any) -> str:
    """A call with an engine that does not exist: if it were asked, the exception would be another one."""
    store = ImageStore(DockerEngine("unix:///nowhere/docker.sock", "owner-1"))
    return asyncio.run(store.build(language, **options))


@pytest.mark.parametrize(
    "package",
    ["", "-r", "--index-url=http://evil", "a b", "a;id", "$(id)", "`id`", "a\nb", "a|b", "a&b", "'a'", '"a"',
     "a\\b", "é",
     "../x", "/etc", ".", "a#b", "git+https://x/y", "a\0"],
)  # fmt: skip
def test_a_package_that_is_more_than_a_name_is_refused(package: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a package's name"):
        build(packages=["fine", package])


@pytest.mark.parametrize(
    "package",
    ["tabulate", "tabulate==0.9.0", "tomli>=2", "a>=1,<2", "a~=1.0", "a!=1", "a[extra,b]==1",
     "left-pad@1.3.0", "@types/node@^20",
     "@scope/x", "A_b.c", "x@1.*"],
)  # fmt: skip
def test_names_and_versions_that_pip_and_npm_take_are_accepted(package: str) -> None:
    assert store._EXTRA_PACKAGE.fullmatch(package)


@pytest.mark.parametrize("packages", ["tabulate", b"tabulate"])
def test_a_string_in_place_of_a_list_of_packages_is_refused(packages: Any) -> None:
    with pytest.raises(InvalidRequest, match="packages"):
        build(packages=packages)


@pytest.mark.parametrize("package", [None, 1, b"tabulate", ["tabulate"]])
def test_a_package_that_is_not_a_string_is_refused(package: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a package's name"):
        build(packages=[package])


def test_a_wrong_tag_is_refused_before_anything_is_built() -> None:
    with pytest.raises(InvalidRequest, match="is not an image tag"):
        build(tag="a b")


def test_an_image_without_a_dockerfile_is_not_built() -> None:
    with pytest.raises(InvalidRequest, match=r"^no Dockerfile here builds mine:1"):
        build(dataclasses.replace(PYTHON, image="mine:1", dockerfile=None))


# --- Errors of a pull ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("manifest for x:1 not found: manifest unknown", ImageNotFound),
        ("pull access denied for x, repository does not exist", ImageNotFound),
        ("Get https://r/v2/: dial tcp: lookup r: no such host", ImagePullTimeout),
        ("Get https://r/v2/: net/http: request canceled (Client.Timeout exceeded)", ImagePullTimeout),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", ImagePullTimeout),
        ("toomanyrequests: You have reached your pull rate limit", EngineError),
    ],
)
def test_the_exception_of_a_failed_pull_depends_on_its_reason(message: str, error: type[Exception]) -> None:
    failure = store._pull_failure("x:1", message)
    assert type(failure) is error
    assert "x:1" in str(failure)
    assert error is not ImagePullTimeout or str(failure).startswith("timeout pulling image\n")
