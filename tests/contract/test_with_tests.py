"""``execute_with_tests``: pytest and jest in the sandbox, and the outcomes they report."""

from __future__ import annotations

import pytest

from codeforge import BlockingCodeExecutor, ExecutionResult, InvalidRequest, Status

pytestmark = pytest.mark.engine


def outcomes(result: ExecutionResult) -> dict[str, str]:
    return {test.name: test.outcome for test in result.tests}


@pytest.mark.core
def test_python_outcomes(executor: BlockingCodeExecutor) -> None:
    tests = """
import pytest
from main import half

def test_right():
    assert half(4) == 2

def test_wrong():
    assert half(3) == 1

@pytest.mark.parametrize("n", [0, 2])
def test_many(n):
    assert half(n) * 2 == n

@pytest.fixture
def broken():
    raise RuntimeError("no database")

def test_error(broken):
    pass

@pytest.mark.skip(reason="not today")
def test_skipped():
    pass
"""
    result = executor.execute_with_tests("def half(n):\n    return n / 2\n", tests)
    assert result.status is Status.ERROR
    assert outcomes(result) == {
        "test_main::test_right": "passed",
        "test_main::test_wrong": "failed",
        "test_main::test_many[0]": "passed",
        "test_main::test_many[2]": "passed",
        "test_main::test_error": "error",
        "test_main::test_skipped": "skipped",
    }
    messages = {test.name: test.message for test in result.tests}
    assert "assert 1.5 == 1" in messages["test_main::test_wrong"]
    assert "no database" in messages["test_main::test_error"]
    assert not result.files


def test_python_all_passing_is_a_success(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests("x = 1", "from main import x\ndef test_x(): assert x == 1")
    assert (result.success, result.exit_code) == (True, 0)


def test_another_module_name_and_files_beside(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests(
        "import json\nvalue = json.load(open('data.json'))",
        "from solution import value\ndef test_value(): assert value == [1]",
        module="solution",
        files={"data.json": "[1]"},
    )
    assert outcomes(result) == {"test_solution::test_value": "passed"}


def test_code_that_does_not_import_is_an_error(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests("1 / 0", "import main\ndef test(): pass")
    assert not result.success
    assert [test.outcome for test in result.tests] == ["error"]


def test_code_that_exits_early_has_no_outcomes_and_no_success(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests("import os\nos._exit(1)", "import main\ndef test(): pass")
    assert (result.success, result.tests) == (False, ())


def test_tests_that_hang_time_out(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests("", "def test():\n    while True: pass", timeout=4)
    assert result.timed_out


COMMONJS = "module.exports = { add: (a, b) => a + b }"
MODULE = "export const add = (a, b) => a + b"
TYPED = "export const add = (a: number, b: number): number => a + b"


@pytest.mark.parametrize(
    ("language", "code", "head"),
    [
        pytest.param("javascript", COMMONJS, "const { add } = require('./main')", marks=pytest.mark.core),
        ("javascript", MODULE, "import { add } from './main.js'"),
        ("typescript", TYPED, "import { add } from './main'"),
    ],
    ids=["commonjs", "es-module", "typescript"],
)
def test_jest_outcomes(executor: BlockingCodeExecutor, language: str, code: str, head: str) -> None:
    tests = f"""
{head}
describe('add', () => {{
  test('right', () => expect(add(1, 2)).toBe(3))
  test('wrong', () => expect(add(1, 2)).toBe(4))
  test.skip('skipped', () => {{}})
}})
"""
    result = executor.execute_with_tests(code, tests, language)
    assert outcomes(result) == {"add right": "passed", "add wrong": "failed", "add skipped": "skipped"}
    assert result.exit_code == 1
    assert any("Expected: 4" in test.message for test in result.tests)
    assert not result.files


def test_type_errors_in_tested_code_are_errors(executor: BlockingCodeExecutor) -> None:
    tests = "import { n } from './main'\ntest('n', () => expect(n).toBe(1))"
    result = executor.execute_with_tests("export const n: number = 'text'", tests, "typescript")
    assert not result.success
    assert [test.outcome for test in result.tests] == ["error"]
    assert "TS2322" in result.tests[0].message


def test_a_language_without_a_runner_is_refused(executor: BlockingCodeExecutor) -> None:
    from codeforge import LANGUAGES, Language

    shell = Language(
        name="shell", image="ai-codeforge-python:latest", file="main.sh", command=("sh",), smoke="echo hello"
    )
    with (
        BlockingCodeExecutor(languages=[*LANGUAGES, shell]) as mine,
        pytest.raises(InvalidRequest, match="shell has no test runner"),
    ):
        mine.execute_with_tests("", "", "shell")
    with pytest.raises(InvalidRequest, match="module must be a name"):
        executor.execute_with_tests("", "", module="../x")
