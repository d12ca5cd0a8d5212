"""The note that says which engine ``auto`` chose."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from codeforge.cli import engine
from codeforge.cli.engine import print_engine_note

WHY = {"docker": "Docker is not available\nInstall Docker.", "podman": "no socket"}
NOTE = "Note: the engine is bubblewrap: no docker or podman here. CODEFORGE_ENGINE chooses one.\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_note_is_one_short_line_once_a_day(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_engine_note("bubblewrap", WHY)
    assert capsys.readouterr() == ("", NOTE)
    assert len(NOTE) <= 100
    print_engine_note("bubblewrap", WHY)
    assert capsys.readouterr().err == ""
    (stamp,) = (cache / "ai-codeforge").iterdir()
    yesterday = time.time() - engine.NOTE_INTERVAL_S - 1
    os.utime(stamp, (yesterday, yesterday))
    print_engine_note("bubblewrap", WHY)
    assert capsys.readouterr().err == NOTE


def test_another_engine_is_noted_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_engine_note("bubblewrap", WHY)
    print_engine_note("podman", {"docker": "not here"})
    assert capsys.readouterr().err.count("Note:") == 2


def test_the_first_choice_is_not_noted(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_engine_note("docker", {})
    assert capsys.readouterr().err == ""
    assert not cache.exists()


def test_a_stamp_from_the_future_does_not_silence_the_note(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_engine_note("bubblewrap", WHY)
    (stamp,) = (cache / "ai-codeforge").iterdir()
    os.utime(stamp, (time.time() + 1e6,) * 2)
    print_engine_note("bubblewrap", WHY)
    assert capsys.readouterr().err == NOTE * 2


def test_without_a_writable_cache_the_note_comes_every_time(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file, where the folder would be")
    print_engine_note("bubblewrap", WHY)
    print_engine_note("bubblewrap", WHY)
    assert capsys.readouterr().err == NOTE * 2


def test_verbose_gives_the_reasons_every_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "verbose", True)
    note = "Note: the engine is bubblewrap\n  docker: Docker is not available\n  podman: no socket\n"
    for _ in range(2):
        print_engine_note("bubblewrap", WHY)
        assert capsys.readouterr().err == note
    print_engine_note("docker", {})
    assert capsys.readouterr().err == "Note: the engine is docker\n"
