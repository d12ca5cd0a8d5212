"""Providing images: from a real registry, or built from the package's Dockerfiles."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor
from codeforge.progress.steps import Step
from contract.support import docker, eventually

pytestmark = pytest.mark.engine("docker")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry, on a free port."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = folder / "config.yml"
    settings.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '{address}'}}\n"
        "log: {level: error}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(settings)], env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        host, port = address.split(":")
        assert eventually(lambda: _listens(host, int(port)), 20)
        yield address
        process.terminate()


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_an_image_is_pulled_if_a_registry_has_it(registry: str, tmp_path: Path) -> None:
    reference = f"{registry}/tools/python:1"
    (tmp_path / "Dockerfile").write_text("FROM ai-codeforge-python:latest\nENV PULLED=yes\n")
    docker("build", "--quiet", "--tag", reference, str(tmp_path))
    docker("push", "--quiet", reference)
    docker("image", "rm", reference)
    steps: list[Step] = []
    with BlockingCodeExecutor(images={"python": reference}) as executor:
        assert executor.pull_images(["python"], on_step=steps.append) == {"python": True}
        result = executor.execute("import os; print(os.environ['PULLED'])")
    assert result.stdout == "yes\n"
    assert any("Pull" in step.text or "Download" in step.text for step in steps)
    docker("image", "rm", reference)


def test_an_image_that_the_registry_does_not_have_is_reported(registry: str) -> None:
    reference = f"{registry}/tools/missing:1"
    steps: list[Step] = []
    with BlockingCodeExecutor(images={"python": reference}) as executor:
        assert executor.pull_images(["python"], on_step=steps.append) == {"python": False}
    assert f"no registry has {reference}" in steps[-1].text


def test_an_image_is_built_if_no_registry_has_it() -> None:
    reference = f"codeforge-test-{uuid.uuid4().hex[:8]}:latest"
    with BlockingCodeExecutor(images={"python": reference}) as executor:
        assert executor.pull_images(["python"], on_step=lambda step: None) == {"python": True}
        assert executor.execute("print('built')").stdout == "built\n"
    docker("image", "rm", reference)


def test_images_on_this_machine_are_ready_immediately(executor: BlockingCodeExecutor) -> None:
    steps: list[Step] = []
    assert executor.pull_images(on_step=steps.append) == {
        "python": True,
        "javascript": True,
        "typescript": True,
    }
    assert not steps


def test_an_image_with_extra_packages_gets_its_own_tag() -> None:
    from contract.test_cli import codeforge

    tag = f"test-{uuid.uuid4().hex[:8]}"
    done = codeforge("images", "build", "python", "--with", "tabulate>=0.9", "--tag", tag)
    assert done.returncode == 0, done.stderr
    reference = f"ai-codeforge-python:{tag}"
    assert reference in done.stdout
    with BlockingCodeExecutor(images={"python": reference}) as executor:
        result = executor.execute("import tabulate; print(tabulate.tabulate([[1, 2]], tablefmt='plain'))")
    assert result.stdout == "1  2\n"
    docker("image", "rm", reference)


def test_a_build_that_fails_shows_its_log() -> None:
    from contract.test_cli import codeforge

    done = codeforge(
        "images", "build", "python", "--with", "no-such-package-codeforge-test", "--tag", "broken"
    )
    assert done.returncode == 70
    assert "no-such-package-codeforge-test" in done.stderr
    assert "Traceback" not in done.stderr
