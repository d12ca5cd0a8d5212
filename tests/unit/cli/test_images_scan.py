"""``codeforge images scan`` and ``sbom``: the extra that they need, and the service that they ask."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codeforge.cli import images
from codeforge.errors import ImageNotFound, InvalidRequest
from codeforge.images import scan
from codeforge.images.scan import ScanReport


@pytest.mark.parametrize("module", images.SCAN_EXTRA)
def test_without_the_extra_both_commands_say_how_to_install_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidRequest) as raised:
        images.scan(["python"], severity="high", osv_url=None, as_json=False)
    assert str(raised.value) == "images scan needs the extra: pip install 'ai-codeforge[scan]'"
    with pytest.raises(InvalidRequest, match=r"images sbom needs the extra: .*ai-codeforge\[scan\]"):
        images.sbom("python", None)


@pytest.mark.parametrize(
    ("option", "asked"), [(None, scan.OSV_URL), ("", None), ("http://osv.example", "http://osv.example")]
)
def test_the_option_names_the_service_to_ask(
    option: str | None, asked: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.asynccontextmanager
    async def examined(name: str) -> AsyncIterator[images.Image]:
        yield images.Image(name, "sha256:ab", Path("/image.tar"), [])

    calls: list[tuple[Path, str | None]] = []

    async def record(
        archive: Path, _packages: object, *, severity: object, osv_url: str | None
    ) -> ScanReport:
        calls.append((archive, osv_url))
        return ScanReport(packages=1, scanner="OSV")

    monkeypatch.setattr(images, "examined", examined)
    monkeypatch.setattr(scan, "scan", record)
    assert images.scan(["python"], severity="high", osv_url=option, as_json=False) == 0
    assert calls == [(Path("/image.tar"), asked)]
    assert capsys.readouterr().out.startswith("python:\nChecked 1 package with OSV.\n")


def test_an_sbom_that_cannot_be_written_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def document(_name: str) -> str:
        return "{}"

    monkeypatch.setattr(images, "_sbom", document)
    with pytest.raises(InvalidRequest, match=r"--output: cannot write .*/missing/sbom.json: No such file"):
        images.sbom("python", tmp_path / "missing" / "sbom.json")


@pytest.mark.parametrize(
    ("name", "reference", "advice"),
    [
        ("data", "ai-codeforge-python-data:latest", "codeforge images pull python-data"),
        ("debian:12", "debian:12", "name a language: python, javascript, typescript, python-data"),
    ],
)
def test_a_missing_image_is_an_error_that_says_how_to_get_it(
    name: str, reference: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Empty:
        async def find(self, _reference: str) -> None:
            return None

    async def store(_executor: object) -> Empty:
        return Empty()

    async def examine() -> None:
        async with images.examined(name):
            pass

    monkeypatch.setattr(images, "_images", store)
    with pytest.raises(ImageNotFound) as raised:
        asyncio.run(examine())
    assert str(raised.value).startswith(f"{reference} is not on this machine\n")
    assert str(raised.value).endswith(advice)
