"""Progress without a terminal: few lines, none of them empty, and every failure."""

from __future__ import annotations

import pytest

from codeforge.progress.display import show_steps
from codeforge.progress.steps import Step


def shown(capsys: pytest.CaptureFixture[str], *steps: Step) -> list[str]:
    with show_steps() as report:
        for step in steps:
            report(step)
    return capsys.readouterr().err.splitlines()


def test_the_first_step_of_each_image_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (Step("a", "Pulling"), Step("a", "Verifying"), Step("b", "COPY", 3, 7))
    assert shown(capsys, *steps) == ["a: Pulling", "b: step 3 of 7: COPY"]


def test_a_step_without_text_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, Step("a", ""), Step("a", "", 1, 2), Step("a", "Pulling")) == ["a: Pulling"]


def test_every_failure_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (Step("a", "Pulling"), Step("a", "no such image", failed=True))
    assert shown(capsys, *steps) == ["a: Pulling", "a: failed: no such image"]


def test_a_step_whose_text_begins_with_failed_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, Step("a", "Pulling"), Step("a", "failed to find nothing")) == ["a: Pulling"]


def test_a_listener_of_the_callers_gets_every_step() -> None:
    steps: list[Step] = []
    with show_steps(steps.append) as report:
        report(Step("a", ""))
    assert steps == [Step("a", "")]
