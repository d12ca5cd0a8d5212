"""Every case of the catalogue has a test or a reason, and the summary is true."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal

import pytest

from codeforge.audit.attack_cases import FULL, QUICK
from codeforge.audit.catalogue import ids, ids_in
from codeforge.audit.probes import PROBES
from hostile.cases import MARK, NOT_SHOWN, TRIED, tally

HERE = Path(__file__).parent
ALL = {case for group in TRIED for case in ids(group)}


def marked() -> set[str]:
    """The cases that the tests in this folder name, and the cases of the audit's checks that they run."""
    rules = [each.rule for each in (*PROBES, *QUICK, *FULL)]
    calls = (
        node
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARK
    )
    named = {
        str(argument.value) for call in calls for argument in call.args if isinstance(argument, ast.Constant)
    }
    return named.union(*(ids_in(rule.reference) for rule in rules))


def test_every_case_has_a_test_or_a_reason() -> None:
    assert marked() <= ALL
    assert ALL - marked() <= set(NOT_SHOWN) <= ALL


def report(
    case: str,
    outcome: Literal["passed", "failed", "skipped"],
    reason: str = "",
    when: Literal["setup", "call"] = "call",
) -> pytest.TestReport:
    skipped = ("file", 1, f"Skipped: {reason}") if reason else None
    return pytest.TestReport(
        "test", ("file", 1, "test"), {}, outcome, skipped, when, user_properties=[(MARK, case)]
    )


def test_the_summary_counts_passed_cases_and_names_the_others() -> None:
    lines = tally(
        [
            report("P01", "passed", when="setup"),
            report("P01", "passed"),
            report("P02", "passed"),
            report("P02", "failed"),
            report("P03", "failed", when="setup"),
            report("P04", "passed", when="setup"),
            report("P04", "skipped", "not shown here: no such kernel"),
            report("P05", "skipped", "not shown here: one half"),
            report("P05", "passed"),
        ]
    ).lines("docker")
    first, *rest = lines
    assert first == "hostile, on docker: P 2 of 27 shown"
    assert rest[:4] == [
        "  P02 FAILED",
        "  P03 FAILED",
        "  P04 not shown here: no such kernel",
        "  P05 in part not shown here: one half",
    ]
    assert rest[4].startswith("  no test selected of: P06 P07 ")
    assert len(rest) == 5
