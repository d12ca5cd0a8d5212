"""The choice of an engine: by argument, by environment variable, or the first that answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor, CodeExecutor, DockerCodeExecutor, InvalidRequest
from codeforge.engines import BubblewrapEngine, select, sockets
from codeforge.engines.select import AUTO, ENGINES, EngineSettings, FirstThatAnswers, engine_name
from codeforge.errors import EnginePermissionDenied, EngineUnavailable
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits
from scripted_engine import ScriptedEngine

SETTINGS = EngineSettings(engine=AUTO, owner="owner")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CODEFORGE_ENGINE", "CODEFORGE_RUNTIME", "DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


# --- By name ------------------------------------------------------------------------------------------


def name_of(asked: str | None, *, docker_host: str | None = None, runtime: str | None = None) -> str:
    return engine_name(asked, docker_host=docker_host, runtime=runtime)


def test_an_argument_takes_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(None) == AUTO
    monkeypatch.setenv("CODEFORGE_ENGINE", "podman")
    assert name_of(None) == "podman"
    assert name_of("bubblewrap") == "bubblewrap"


@pytest.mark.parametrize("said", [{"docker_host": "unix:///x"}, {"runtime": "runsc"}])
def test_an_address_or_a_runtime_means_docker(said: dict[str, str]) -> None:
    assert name_of(None, **said) == name_of(AUTO, **said) == "docker"
    with pytest.raises(InvalidRequest, match="Docker"):
        name_of("bubblewrap", **said)


def test_podman_takes_an_address_but_no_runtime() -> None:
    assert name_of("podman", docker_host="unix:///x") == "podman"
    with pytest.raises(InvalidRequest, match="runtime is Docker's; the engine is podman"):
        name_of("podman", runtime="runsc")


@pytest.mark.parametrize("wrong", ["dokcer", "runc", " docker", "x" * 10_000])
def test_an_unknown_engine_is_refused_with_those_that_are_known(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="known: auto, docker, podman, bubblewrap") as caught:
        CodeExecutor(engine=wrong)
    assert len(str(caught.value)) < 400
    assert ("Did you mean 'docker'" in str(caught.value)) == (wrong in ("dokcer", " docker"))


def test_the_documented_executor_takes_docker_or_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    with DockerCodeExecutor() as executor:
        assert executor._executor._engine.name == "docker"
    with pytest.raises(InvalidRequest, match="BlockingCodeExecutor"):
        DockerCodeExecutor(engine="bubblewrap")
    with pytest.raises(InvalidRequest, match="BlockingCodeExecutor"):
        DockerCodeExecutor(engine=BubblewrapEngine())
    monkeypatch.setenv("CODEFORGE_ENGINE", "bubblewrap")
    with pytest.raises(InvalidRequest, match="BlockingCodeExecutor"):
        DockerCodeExecutor()
    with BlockingCodeExecutor() as executor:
        assert executor._executor._engine.name == "bubblewrap"


def test_bubblewrap_has_no_images() -> None:
    with pytest.raises(InvalidRequest, match="the engine is bubblewrap"):
        _ = CodeExecutor(engine="bubblewrap").images


def test_an_executor_takes_an_engine_that_was_made_elsewhere() -> None:
    async def scenario() -> None:
        engine = Candidate("docker", None)
        async with CodeExecutor(engine=engine) as executor:
            assert await executor.engine() is engine
            assert executor.owner == engine.owner
        assert engine.closed == 1

    asyncio.run(scenario())


def test_an_engine_that_was_made_elsewhere_takes_no_settings() -> None:
    with pytest.raises(InvalidRequest, match="go with an engine's name"):
        CodeExecutor(engine=Candidate("docker", None), runtime="runsc")


def test_auto_has_images_once_it_has_chosen_an_engine() -> None:
    with pytest.raises(InvalidRequest, match=r"has chosen none yet: await engine\(\) first"):
        _ = CodeExecutor(engine="auto").images


# --- The first that answers ---------------------------------------------------------------------------


class Candidate(ScriptedEngine):
    """An engine of that name, which may refuse to start."""

    def __init__(self, name: str, refusal: EngineUnavailable | None) -> None:
        super().__init__()
        self.name = name
        self._refusal = refusal

    async def start(self) -> None:
        """See ``Engine.start``."""
        if self._refusal is not None:
            raise self._refusal


def choosing(
    monkeypatch: pytest.MonkeyPatch, **refusals: EngineUnavailable | str | None
) -> tuple[str | EngineUnavailable, list[tuple[str, Mapping[str, str]]], dict[str, Candidate]]:
    """What ``auto`` chooses if some refuse (a string: its socket shows that), and what it reports."""
    made: dict[str, Candidate] = {}

    def make(settings: EngineSettings) -> Candidate:
        refusal = refusals.get(settings.engine)
        made[settings.engine] = Candidate(
            settings.engine, refusal if isinstance(refusal, EngineUnavailable) else None
        )
        return made[settings.engine]

    def unreachable_reason(name: str) -> str | None:
        refusal = refusals.get(name)
        return refusal if isinstance(refusal, str) else None

    monkeypatch.setattr(select, "make_engine", make)
    monkeypatch.setattr(select, "unreachable_reason", unreachable_reason)
    told: list[tuple[str, Mapping[str, str]]] = []

    async def scenario() -> str | EngineUnavailable:
        engine = FirstThatAnswers(SETTINGS, lambda name, passed: told.append((name, passed)))
        assert engine.name == AUTO
        try:
            chosen = await asyncio.gather(engine.chosen(), engine.chosen())
        except EngineUnavailable as error:
            return error
        assert chosen[0] is chosen[1]
        await engine.launch(PYTHON, Limits().of_sandbox(PYTHON), uid=20_000)
        assert made[engine.name].there == 1
        await engine.close()
        assert made[engine.name].closed == 1
        return engine.name

    return asyncio.run(scenario()), told, made


def test_docker_is_tried_first_and_chosen_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, told, made = choosing(monkeypatch)
    assert (chosen, told, list(made)) == ("docker", [("docker", {})], ["docker"])


def test_an_engine_that_does_not_answer_is_passed_over_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = EnginePermissionDenied("no permission\nadd your user to a group")
    chosen, told, made = choosing(monkeypatch, docker=refusal, podman="nothing answers")
    assert chosen == "bubblewrap"
    assert told == [("bubblewrap", {"docker": str(refusal), "podman": "nothing answers"})]
    assert made["docker"].closed == 1
    assert "podman" not in made


def test_if_none_answers_the_error_has_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, told, _ = choosing(
        monkeypatch, docker="no socket", podman="nobody", bubblewrap=EngineUnavailable("install it\nso")
    )
    assert isinstance(chosen, EngineUnavailable)
    assert str(chosen).startswith("install it\nso\n")
    for line in ("docker: no socket", "podman: nobody", "bubblewrap: install it"):
        assert line in str(chosen).splitlines()
    assert told == []


# --- What sockets tell --------------------------------------------------------------------------------


def test_a_socket_without_a_listener_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setattr(sockets, "_DOCKER_SOCKETS", (str(path),))
    assert sockets.unreachable_reason("docker") == f"nothing answers on {path}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert sockets.unreachable_reason("docker") is not None
        server.listen()
        assert sockets.unreachable_reason("docker") is None
    assert sockets.unreachable_reason("docker") is not None


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_a_configured_docker_is_always_tried(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(sockets, "_DOCKER_SOCKETS", ("/nowhere",))
    monkeypatch.setenv(variable, "x")
    assert sockets.unreachable_reason("docker") is None


def test_podman_is_found_where_its_own_command_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "podman/podman.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert sockets.podman_address() == f"unix://{own}"
    assert sockets.unreachable_reason("podman") == f"nothing answers on {own}"
    monkeypatch.setenv("CONTAINER_HOST", "tcp://elsewhere:1")
    assert sockets.podman_address() == "tcp://elsewhere:1"
    assert sockets.unreachable_reason("podman") is None


def test_bubblewrap_has_no_socket_that_could_rule_it_out() -> None:
    assert ENGINES[-1] == "bubblewrap"
    assert sockets.unreachable_reason("bubblewrap") is None
