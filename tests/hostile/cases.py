"""The tally: which cases of the catalogue of attacks the tests showed.

A test names its cases with ``@pytest.mark.catalogue("P05")``. Where this kernel or engine cannot show a case,
the test ends with ``not_shown(reason)``.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from codeforge.audit.catalogue import GROUPS, ids

MARK = "catalogue"
_NOT_SHOWN = "not shown here: "

TRIED = tuple(group for group in GROUPS if group != "H")
"""The groups that hostile programs can show. The rest, the host and the engine, is for the audit."""

NOT_SHOWN = {
    "N09": "there is no allowlist of destinations: a run has a network or has none",
    "F12": "all runs share the user and time namespaces; that no lock on these is seen is not promised",
    "O09": "there is no server yet that would send an artifact to a browser",
    "O10": "there is no server yet that would label output for a model",
}
"""Cases that no test shows in full on any machine, and why."""

DIFFERENT_ON_GVISOR = {
    "inside.setuid",
    "inside.noexec",
    "inside.init-memory",
    "inside.oom-score",
    "inside.device-nodes",
    "inside.devices",
    "inside.scheduler",
    "inside.host-information",
    "inside.terminal",
    "inside.foreign-abi",
    "inside.secrets",
    "inside.javascript-init",
    "inside.typescript-init",
    "inside.forged-frames",
}
"""Checks of the audit that fail on gVisor as Debian 12 has it; docs/engines.md says what that means."""


def not_shown(reason: str) -> NoReturn:
    """End this test: this machine cannot show its case."""
    pytest.skip(_NOT_SHOWN + reason)


@dataclass
class Tally:
    """The cases that the tests showed, from their reports.

    Attributes:
        shown: cases of which a test passed.
        broken: cases of which a test failed.
        reasons: why a case, or part of one, was not shown.
    """

    shown: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    reasons: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))

    def add(self, report: pytest.TestReport) -> None:
        """Add the report of one phase of a test."""
        named = [str(value) for name, value in report.user_properties if name == MARK]
        if report.failed:
            self.broken.update(named)
        elif report.skipped:
            # pytest reports a skip as (file, line, "Skipped: reason").
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            for case in named:
                reasons = self.reasons[case]
                text = reason.removeprefix("Skipped: ").removeprefix(_NOT_SHOWN)
                if text not in reasons:
                    reasons.append(text)
        elif report.when == "call":
            self.shown.update(named)

    def lines(self, engine: str) -> Iterator[str]:
        """The summary: how many cases of each group were shown, then which were not, and why."""
        held = self.shown - self.broken
        ran = held | self.broken | set(self.reasons)
        groups = [group for group in TRIED if ran & set(ids(group))]
        counts = (f"{group} {len(held & set(ids(group)))} of {len(ids(group))} shown" for group in groups)
        yield f"hostile, on {engine}: " + ", ".join(counts)
        for case in (case for group in groups for case in ids(group)):
            if case in self.broken:
                yield f"  {case} FAILED"
            partly = "in part " if case in held else ""
            for reason in self.reasons.get(case, ()):
                yield f"  {case} {partly}not shown here: {reason}"
            if case in NOT_SHOWN:
                yield f"  {case} {partly}not shown: {NOT_SHOWN[case]}"
        left_out = [case for group in groups for case in ids(group) if case not in {*ran, *NOT_SHOWN}]
        if left_out:
            yield f"  no test selected of: {' '.join(left_out)}"


def tally(reports: Iterable[pytest.TestReport]) -> Tally:
    """The tally of all the reports."""
    made = Tally()
    for report in reports:
        made.add(report)
    return made
