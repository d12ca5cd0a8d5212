"""Host failures are typed and worded as documented; caller mistakes cost nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, CodeForgeError, InvalidRequest
from codeforge.errors import (
    EnginePermissionDenied,
    EngineUnavailable,
    ImageNotFound,
    ImagePullTimeout,
    PostureMismatch,
    SandboxLost,
)
from codeforge.images.store import ImageStore
from codeforge.progress.steps import Step
from observer import OBSERVER

NOT_AVAILABLE = "Docker is not available. Install Docker to use sandboxed execution."


@pytest.mark.engine("docker")
def test_no_engine(tmp_path: Path) -> None:
    with BlockingCodeExecutor(docker_host=f"unix://{tmp_path}/docker.sock") as executor:
        assert executor.is_docker_available() is False
        with pytest.raises(EngineUnavailable) as caught:
            executor.execute("print(1)")
    assert str(caught.value) == NOT_AVAILABLE
    assert caught.value.exit_code == 69


@pytest.mark.engine("docker")
def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    with (
        BlockingCodeExecutor(docker_host=f"unix://{path}") as executor,
        pytest.raises(EngineUnavailable) as caught,
    ):
        executor.execute("print(1)")
    assert str(caught.value) == NOT_AVAILABLE


@pytest.mark.engine("docker")
def test_permission_denied_on_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        assert stat.S_IMODE(path.stat().st_mode) == 0
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        message = _as_nobody(f"unix://{path}")
    first, advice = message.splitlines()
    assert (
        first
        == "EnginePermissionDenied: permission denied while trying to connect to the Docker daemon socket"
    )
    assert "sudo usermod -aG docker $USER" in advice
    assert issubclass(EnginePermissionDenied, EngineUnavailable)


def _as_nobody(docker_host: str) -> str:
    """Return the error of a process without privileges; root may connect to any socket."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                BlockingCodeExecutor(docker_host=docker_host).execute("print(1)")
            except CodeForgeError as error:
                os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        message = told.read()
    os.waitpid(child, 0)
    return message


@pytest.fixture
def silent_registry() -> Iterator[str]:
    """A registry that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.engine("docker")
def test_timeout_pulling_an_image(silent_registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeforge.images.store.PULL_STALL_S", 1.0)
    reference = f"{silent_registry}/python:latest"
    steps: list[Step] = []
    with BlockingCodeExecutor(images={"python": reference}) as executor:
        assert executor.pull_images(["python"], on_step=steps.append) == {"python": False}
        with pytest.raises(ImagePullTimeout) as caught:
            executor._loop.wait_for(_pull(executor, reference))
    first, advice = str(caught.value).splitlines()
    assert first == "timeout pulling image"
    assert "internet connection" in advice
    assert "registry" in advice
    assert any("timeout pulling image" in step.text for step in steps)


async def _pull(executor: BlockingCodeExecutor, reference: str) -> None:
    images: ImageStore = executor._executor.images
    await images.pull(reference)


@pytest.mark.engine("docker")
def test_missing_image_says_how_to_get_it() -> None:
    with (
        BlockingCodeExecutor(images={"python": "no-such-image:latest"}) as executor,
        pytest.raises(ImageNotFound) as caught,
    ):
        executor.execute("print(1)")
    assert "no-such-image:latest" in str(caught.value)
    assert "codeforge images" in str(caught.value)


@pytest.mark.engine("docker")
def test_an_image_that_is_not_ours_is_refused() -> None:
    with (
        BlockingCodeExecutor(images={"python": "python:3.11-slim"}) as executor,
        pytest.raises(CodeForgeError) as caught,
    ):
        executor.execute("print(1)")
    assert "init" in str(caught.value)


@pytest.mark.engine("docker")
def test_a_weaker_sandbox_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove one restriction behind the executor's back: it must notice before any code runs."""
    import codeforge.engines.docker
    from codeforge.policy import container_spec

    def weakened(*args: Any, **options: Any) -> dict[str, Any]:
        spec = container_spec(*args, **options)
        spec["HostConfig"]["SecurityOpt"] = []
        return spec

    monkeypatch.setattr(codeforge.engines.docker, "container_spec", weakened)
    with BlockingCodeExecutor() as executor, pytest.raises(PostureMismatch, match="no_new_privs is '0'"):
        executor.execute("print('ran')")


@pytest.mark.engine
def test_a_container_killed_from_outside_is_a_host_failure_and_not_a_result() -> None:
    with BlockingCodeExecutor(max_warm=0) as executor, pytest.raises(SandboxLost):
        executor.execute(
            "import time; print('x', flush=True); time.sleep(30)",
            on_stdout=lambda text: OBSERVER.kill(*OBSERVER.of(executor, running=True)),
        )


MISTAKES = [
    ({"code": b"print(1)"}, "code must be a string, not bytes"),
    ({"code": None}, "code must be a string"),
    ({"code": "print('\udc80')"}, "UTF-8"),
    ({"language": "pyton"}, "Did you mean 'python'"),
    ({"language": "cobol"}, "known: python, javascript, typescript"),
    ({"language": 3}, "language must be a string"),
    ({"timeout": -1}, "timeout must be a number of seconds"),
    ({"timeout": float("nan")}, "timeout"),
    ({"timeout": "5"}, "timeout"),
    ({"memory_limit": "lots"}, "must look like '512m' or '1g'"),
    ({"memory_limit": "1k"}, "must be between 16m and 1024g"),
    ({"cpu_quota": 10}, "cpu_quota"),
    ({"network_enabled": "yes"}, "network_enabled"),
    ({"env_vars": {"A B": "x"}}, "not a usable name"),
    ({"env_vars": {"A": 1}}, "must be a string"),
    ({"args": "one string"}, "args must be a list"),
    ({"args": ["a\0b"]}, "NUL"),
    ({"files": {"../escape": "x"}}, "not a usable path"),
    ({"files": {"/etc/passwd": "x"}}, "not a usable path"),
    ({"files": {"main.py": "x"}}, "the program itself"),
    ({"files": {"big": b"x" * (65 << 20)}}, "fit into /code"),
    ({"stdin": 5}, "stdin must be"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_are_refused_before_anything_starts(
    mistake: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"code": "print(1)", **mistake}
    # Without an engine: a request that reaches the engine would fail in another way.
    with BlockingCodeExecutor(engine="docker", docker_host=f"unix://{tmp_path}/none") as executor:
        with pytest.raises(InvalidRequest) as caught:
            executor.execute(**arguments)
        assert message in str(caught.value)
        assert caught.value.exit_code == 2
        assert executor.get_stats()["runs"] == 0


def test_mistakes_in_the_constructor() -> None:
    for options in (
        {"default_timeout": 0},
        {"default_memory_limit": "x"},
        {"default_cpu_quota": 0},
        {"images": {"cobol": "x"}},
        {"max_sandboxes": 0},
        {"max_output_bytes": -1},
    ):
        with pytest.raises(InvalidRequest):
            BlockingCodeExecutor(**options)


def test_every_failure_has_an_exit_code_and_a_status() -> None:
    def family(kind: type[CodeForgeError]) -> Iterator[type[CodeForgeError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from family(child)

    table = {kind.__name__: (kind.exit_code, kind.http_status) for kind in family(CodeForgeError)}
    assert all(1 < code < 126 and 400 <= status < 600 for code, status in table.values()), json.dumps(table)
