"""What is special about Podman; the promises of all engines are in the other files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import codeforge.engines.docker
from codeforge import CodeExecutor, DockerCodeExecutor, ExecutionResult, Output
from codeforge.engines.docker import DockerEngine
from codeforge.engines.podman import PodmanEngine
from codeforge.errors import EngineError, EngineUnavailable, ImageNotFound
from codeforge.model.languages import LANGUAGES, LanguageTable
from codeforge.policy import LABEL, container_spec
from contract.podman_service import PodmanService, podman_service
from contract.support import eventually

pytestmark = [pytest.mark.engine("podman"), pytest.mark.core]

PYTHON = LanguageTable(LANGUAGES).find("python")
NOBODY = 65534

LOOK_AROUND = """
import json, os
def said(path):
    try:
        return sorted(os.listdir(path)) if os.path.isdir(path) else open(path, "rb").read(100).hex()
    except OSError as error:
        return error.errno
mounts = [line.split()[1:4] for line in open("/proc/self/mounts")]
print(json.dumps({
    "writable": sorted(place for place, kind, options in mounts if "rw" in options.split(",")
                       and os.access(place, os.W_OK) and os.path.isdir(place)),
    "masked": {path: said(path) for path in json.loads(os.environ["PATHS"])},
    "environment": sorted(set(os.environ) - {"PATHS"}),
    "resolver": said("/etc/resolv.conf"),
}))
"""


@pytest.fixture(scope="module")
def service() -> Iterator[PodmanService]:
    with podman_service() as running:
        running.load([PYTHON.image])
        yield running


@pytest.fixture
def podman(service: PodmanService) -> Iterator[DockerCodeExecutor]:
    with DockerCodeExecutor(engine="podman", docker_host=service.address, max_warm=0) as executor:
        yield executor


def sandboxes(service: PodmanService) -> set[str]:
    return set(service.podman("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}").split())


def test_a_sandbox_is_restricted_as_docker_restricts_it(
    podman: DockerCodeExecutor, executor: DockerCodeExecutor
) -> None:
    paths = json.dumps(codeforge.policy._MASKED_PATHS)
    seen: list[dict[str, Any]] = []
    postures = []
    for each in (podman, executor):
        result = each.execute(LOOK_AROUND, env_vars={"PATHS": paths})
        assert result.success, result.error
        seen.append(json.loads(result.stdout))
        postures.append({key: value for key, value in result.posture.items() if key != "uid"})
    assert postures[0] == postures[1]
    assert seen[0] == seen[1]


def test_out_of_memory_is_reported_even_if_the_output_is_read_much_later(service: PodmanService) -> None:
    async def run() -> list[ExecutionResult]:
        results = []
        async with CodeExecutor(engine="podman", docker_host=service.address, max_warm=0) as executor:
            stream = executor.stream("print(1, flush=True)\nbytearray(1 << 30)", memory_limit="64m")
            async with contextlib.aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Output):
                        await asyncio.sleep(2)
                    else:
                        results.append(event.result)
        return results

    [result] = asyncio.run(run())
    assert (result.status, result.oom_killed) == ("out_of_memory", True)


def test_out_of_memory_in_a_child_is_reported_and_a_signal_is_not_taken_for_it(
    podman: DockerCodeExecutor,
) -> None:
    child = "import subprocess as s, sys; s.run([sys.executable, '-c', 'bytearray(1 << 30)'])"
    assert podman.execute(child, memory_limit="96m").oom_killed
    killed = podman.execute("import os; os.kill(os.getpid(), 9)")
    assert (killed.status, killed.oom_killed) == ("killed", False)


def test_nothing_is_left_when_the_host_process_is_killed(service: PodmanService) -> None:
    program = (
        "import sys, time\n"
        "from codeforge import DockerCodeExecutor\n"
        "executor = DockerCodeExecutor(engine='podman', docker_host=sys.argv[1], max_warm=0)\n"
        "executor.execute('import os, time; print(1, flush=True); os.fork(); time.sleep(600)', timeout=600,"
        " on_stdout=lambda text: print(text, flush=True))\n"
    )
    host = subprocess.Popen([sys.executable, "-c", program, service.address], stdout=subprocess.PIPE)
    assert host.stdout is not None
    assert host.stdout.readline() == b"1\n"
    started = sandboxes(service)
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    assert started
    assert eventually(lambda: not sandboxes(service), 20)


def test_containers_that_were_never_started_are_swept(
    service: PodmanService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.engines.docker.STALE_S", -1.0)
    # Podman's own limits are more than it may give where root has not all capabilities.
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
    create = ("create", "--interactive", *limits, "--label", f"{LABEL}=an-executor-that-died", PYTHON.image)
    created, initialized = (service.podman(*create).strip() for _ in range(2))
    service.podman("init", initialized)
    assert {created, initialized} <= sandboxes(service)

    async def start() -> bool:
        engine = PodmanEngine(service.address, "owner-1")
        await engine.start()
        try:
            return await asyncio.to_thread(eventually, lambda: not sandboxes(service), 20)
        finally:
            await engine.close()

    assert asyncio.run(start())


def test_a_setting_without_a_translation_is_an_error(
    podman: DockerCodeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = container_spec

    def unmasked(*args: Any, **kwargs: Any) -> dict[str, Any]:
        spec = real(*args, **kwargs)
        spec["HostConfig"]["ReadonlyPaths"] = []
        spec["HostConfig"]["Binds"] = ["/etc:/host"]
        return spec

    monkeypatch.setattr(codeforge.engines.docker, "container_spec", unmasked)
    with pytest.raises(EngineError, match="no translation for Podman of Binds"):
        podman.execute("print(1)")


def test_the_error_names_a_missing_image(service: PodmanService) -> None:
    images = {"python": "ai-codeforge-missing:latest"}
    with (
        DockerCodeExecutor(engine="podman", docker_host=service.address, images=images) as executor,
        pytest.raises(ImageNotFound, match="ai-codeforge-missing"),
    ):
        executor.execute("print(1)")


async def _start(engine: DockerEngine) -> None:
    try:
        await engine.start()
    finally:
        await engine.close()


def test_if_no_service_answers_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    engine = PodmanEngine(f"unix://{tmp_path}/podman.sock", "owner-1")
    with pytest.raises(EngineUnavailable, match=r"systemctl --user start podman\.socket"):
        asyncio.run(_start(engine))


def test_docker_and_podman_are_not_taken_for_each_other(service: PodmanService) -> None:
    with pytest.raises(EngineUnavailable, match="engine='podman'"):
        asyncio.run(_start(DockerEngine(service.address, "owner-1")))
    with pytest.raises(EngineUnavailable, match="not Podman"):
        asyncio.run(_start(PodmanEngine("unix:///var/run/docker.sock", "owner-1")))


def test_without_root_on_version_1_of_control_groups_it_is_refused() -> None:
    version_1 = Path("/sys/fs/cgroup/memory").exists()
    with podman_service(user=NOBODY if os.getuid() == 0 else None) as service:
        engine = PodmanEngine(service.address, "owner-1")
        if version_1:
            with pytest.raises(EngineUnavailable, match="cgroup version 1"):
                asyncio.run(_start(engine))
        else:
            asyncio.run(_start(engine))


def test_its_info_has_its_name(service: PodmanService) -> None:
    async def info() -> tuple[str, str]:
        engine = PodmanEngine(service.address, "owner-1")
        try:
            told = await engine.info()
        finally:
            await engine.close()
        return told.name, told.version

    assert asyncio.run(info()) == ("Podman", service.podman("version", "--format", "{{.Version}}").strip())
