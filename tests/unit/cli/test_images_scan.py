"""``codeforge images scan`` and ``sbom``: the extra that they need, and the service that they ask."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codeforge.cli import images
from codeforge.errors import InvalidRequest
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
