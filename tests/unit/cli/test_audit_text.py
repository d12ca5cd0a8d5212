"""The last lines of ``codeforge audit``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from codeforge.audit import Check, Layer, Verdict
from codeforge.audit.model import Severity
from codeforge.cli import audit as command


@pytest.mark.parametrize(
    ("severity", "strict", "code"),
    [(Severity.LOW, False, 0), (Severity.HIGH, False, 1), (Severity.LOW, True, 1)],
)
def test_failures_that_do_not_count_are_said_not_to(
    severity: Severity,
    strict: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def audit(*, full: bool) -> AsyncIterator[Check]:
        assert not full
        yield Check(
            id="host.x",
            layer=Layer.HOST,
            verdict=Verdict.FAILS,
            expected="1",
            got="0",
            severity=severity,
            fix="set it",
            reference="P15",
        )

    monkeypatch.setattr(command, "audit", audit)
    assert command.perform(full=False, strict=strict, as_json=False) == code
    assert ("--strict counts it too" in capsys.readouterr().out) is (code == 0)
