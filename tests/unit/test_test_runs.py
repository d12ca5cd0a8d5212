"""Test runs: what is sent to the sandbox, and reports that are parsed as hostile input."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import InvalidRequest
from codeforge.model.languages import JAVASCRIPT, LANGUAGES, PYTHON, TYPESCRIPT, Language
from codeforge.model.limits import Limits
from codeforge.model.request import ExecutionRequest, Run
from codeforge.model.result import ExecutionResult, Status, TestOutcome
from codeforge.test_runs import MAX_MESSAGE_CHARS, MAX_TESTS, resolve_tests, with_outcomes


def run(
    code: Any = "", test_code: Any = "", *, language: Language = PYTHON, module: Any = "main", **fields: Any
) -> Run:
    request = ExecutionRequest(code=code, **fields)
    return resolve_tests(request, language, Limits(), test_code=test_code, module=module)


def refusal(**arguments: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        run(**arguments)
    return str(caught.value)


def read(report: bytes, language: Language = PYTHON) -> tuple[TestOutcome, ...]:
    assert language.tests is not None
    result = ExecutionResult(status=Status.OK, exit_code=0, files={language.tests.report: report, "own": b""})
    told = with_outcomes(result, language)
    assert told.files == {"own": b""}  # without the report
    json.dumps(told.to_dict(), allow_nan=False, ensure_ascii=False).encode("utf-8")
    return told.tests


# --- What is sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "files", "command"),
    [
        (PYTHON, {"calc.py", "test_calc.py"}, ("python", "-m", "pytest")),
        (JAVASCRIPT, {"calc.js", "calc.test.js"}, ("node",)),
        (TYPESCRIPT, {"calc.ts", "calc.test.ts"}, ("node",)),
    ],
    ids=lambda value: value.name if isinstance(value, Language) else "",
)
def test_code_and_tests_get_the_file_names_that_the_tests_import(
    language: Language, files: set[str], command: tuple[str, ...]
) -> None:
    made = run(
        "code é", "tests", language=language, module="calc", files={"data/x": b"x"}, args=["-k", "one"]
    )
    assert made.files.keys() == {*files, "data/x"}
    assert {made.files[name] for name in files} == {"code é".encode(), b"tests"}
    assert made.argv[: len(command)] == command
    assert made.argv[-2:] == ("-k", "one")
    assert made.cwd == "/code"


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_a_test_run_never_uses_the_waiting_worker(language: Language) -> None:
    assert run(language=language).fresh


def test_a_language_without_a_test_runner_says_so() -> None:
    assert refusal(language=dataclasses.replace(PYTHON, tests=None)) == "python has no test runner"


@pytest.mark.parametrize("module", ["main", "_", "a1", "calc", "Test"])
def test_a_module_is_a_name_that_can_be_imported(module: str) -> None:
    assert f"{module}.py" in run(module=module).files


@pytest.mark.parametrize(
    "module",
    [
        "",
        "a.b",
        "../x",
        "a/b",
        "a-b",
        "1a",
        "a b",
        "é",
        "a\n",
        "{module}",
        "a" * 256,
        "a" * 5000,
        None,
        1,
        b"main",
        ["main"],
    ],
    ids=lambda module: ascii(module)[:20],
)
def test_a_module_name_that_cannot_be_imported_is_refused(module: Any) -> None:
    assert "module" in refusal(module=module) or "path" in refusal(module=module)


@pytest.mark.parametrize(
    ("field", "value"), [("code", None), ("code", b""), ("test_code", None), ("test_code", 1)],
)  # fmt: skip
def test_code_and_tests_must_be_strings(field: str, value: Any) -> None:
    assert refusal(**{field: value}) == f"{field} must be a string, not {type(value).__name__}"


@pytest.mark.parametrize("field", ["code", "test_code"])
def test_a_lone_surrogate_is_refused_as_in_any_other_run(field: str) -> None:
    assert refusal(**{field: "x = '\ud800'"}).startswith(f"{field} cannot be written as UTF-8")


@pytest.mark.parametrize(
    "args", ["-x", b"-x", 1, None, [1], [None], [b"-x"], ["a\0b"], ["\ud800"], ["x"] * 1001, ["x" * 61_441]],
    ids=lambda args: ascii(args)[:20],
)  # fmt: skip
def test_arguments_of_the_test_runner_are_checked_like_a_programs(args: Any) -> None:
    assert "args" in refusal(args=args)


@pytest.mark.parametrize("path", ["main.py", "test_main.py"])
def test_a_file_cannot_replace_the_code_or_the_tests(path: str) -> None:
    assert refusal(files={path: b""}) == f"files: {path!r} is the program itself; give the file another name"


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"memory_limit": "5x"}, "memory_limit"), ({"timeout": -1}, "timeout"), ({"env_vars": {"A=": ""}},
     "env_vars")],
)  # fmt: skip
def test_everything_else_is_checked_like_any_request(fields: dict[str, Any], name: str) -> None:
    assert refusal(**fields).startswith(name)


# --- The report: pytest's XML -------------------------------------------------------------------------


def junit(*cases: str) -> bytes:
    return f'<?xml version="1.0"?><testsuites><testsuite>{"".join(cases)}</testsuite></testsuites>'.encode()


def test_pytests_report_is_read() -> None:
    assert read(
        junit(
            '<testcase classname="test_main" name="test_a" time="0.25" />',
            '<testcase classname="test_main.TestB" name="test_b[1-x]" time="1">'
            '<failure message="m">tail\n</failure></testcase>',
            '<testcase classname="" name="test_main" time="0">'
            '<error message="collection failure"></error></testcase>',
            '<testcase classname="test_main" name="test_c" time="0.0">'
            '<skipped type="x" message="why">at 3</skipped></testcase>',
            '<testcase name="test_d" time="0.0"><properties/><system-out>x</system-out></testcase>',
        )
    ) == (
        TestOutcome("test_main::test_a", "passed", 0.25),
        TestOutcome("test_main.TestB::test_b[1-x]", "failed", 1.0, "tail"),
        TestOutcome("test_main", "error", 0.0, "collection failure"),
        TestOutcome("test_main::test_c", "skipped", 0.0, "at 3"),
        TestOutcome("test_d", "passed", 0.0),
    )


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)).replace("&a0;", "&a;")
    + ']><testsuites><testcase name="&a11;"/></testsuites>'
).encode()


@pytest.mark.parametrize(
    "report",
    [
        b"", b" ", b"\0", b"\xff\xfe\x00", b"no xml", b"{}", b"<", b"<a", b"<a><b></a>", b"<?xml?>",
        b"\x1f\x8b\x08",
        BOMB,
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        b'<t><testcase name="x"><failure>&f;</failure></testcase></t>',
        b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p;]><t><testcase name="x"/></t>',
        b'<!DOCTYPE t [<!ENTITY e "x">]><t><testcase name="&e;"/></t>',
        b"<t><testcase name='&undefined;'/></t>",
        b"<a>" * 100_000,
        b"<testcase " + b" ".join(b"a%d='x'" % i for i in range(10_000)),
        b'<?xml version="1.0" encoding="none-such"?><t><testcase name="x"/></t>',
        b'<?xml version="1.0" encoding="base64"?><t><testcase name="x"/></t>',
        b'<?xml version="1.0" encoding="utf-16"?><t><testcase name="x"/></t>',
        b'<?xml version="1.0" encoding="shift_jis"?><t><testcase name="x"/></t>',
    ],
    ids=lambda report: ascii(report[:40]),
)  # fmt: skip
def test_a_hostile_report_is_ignored(report: bytes) -> None:
    assert read(report) == ()


def test_a_deeply_nested_report_is_harmless() -> None:
    deep = b"<a>" * 50_000 + b'<testcase name="x"/>' + b"</a>" * 50_000
    assert [test.name for test in read(deep)] == ["x"]


@pytest.mark.parametrize(
    "time",
    ["nan", "inf", "-inf", "-1", "1e999", "1e10", "", "x", "1,5", "9" * 5000, "0x10"],
    ids=lambda t: t[:10],
)
def test_an_invalid_time_counts_as_zero(time: str) -> None:
    assert read(junit(f'<testcase name="x" time="{time}"/>')) == (TestOutcome("x", "passed", 0.0),)


def test_a_case_without_attributes_is_a_case() -> None:
    assert read(junit("<testcase/>")) == (TestOutcome("", "passed", 0.0),)


def test_a_long_message_is_cut() -> None:
    [test] = read(junit(f'<testcase name="x"><failure>{"m" * 10 * MAX_MESSAGE_CHARS}</failure></testcase>'))
    assert test.message == "m" * MAX_MESSAGE_CHARS


def test_a_long_name_is_cut() -> None:
    [test] = read(junit(f'<testcase name="{"n" * 1_000_000}"/>'))
    assert len(test.name) <= MAX_MESSAGE_CHARS


def test_outcomes_beyond_the_limit_are_dropped() -> None:
    assert len(read(junit("<testcase/>" * (MAX_TESTS + 1)))) == MAX_TESTS


@given(st.text(), st.text(), st.text())
def test_any_text_in_a_report_becomes_printable_outcomes(classname: str, name: str, time: str) -> None:
    case = f"<testcase classname={quoteattr(classname)} name={quoteattr(name)} time={quoteattr(time)}/>"
    text = f"<t>{case}</t>".encode("utf-8", "surrogatepass")
    assert len(read(text)) <= 1


@given(st.binary())
def test_any_bytes_are_a_report_or_ignored(report: bytes) -> None:
    for language in LANGUAGES:
        assert len(read(report, language)) <= MAX_TESTS


# --- The report: jest's JSON --------------------------------------------------------------------------


def jest(*cases: Any, **suite: Any) -> bytes:
    return json.dumps({"testResults": [{"assertionResults": cases, **suite}]}).encode()


def case(**fields: Any) -> dict[str, Any]:
    return {"fullName": "adds", "status": "passed", "duration": 5, "failureMessages": [], **fields}


def test_jests_report_is_read() -> None:
    report = jest(
        case(),
        case(fullName="calc fails", status="failed", duration=1500, failureMessages=["Error: one ", "two\n"]),
        case(status="pending", duration=None),
        case(status="todo"),
        case(status="disabled"),
    )
    for language in (JAVASCRIPT, TYPESCRIPT):
        assert read(report, language) == (
            TestOutcome("adds", "passed", 0.005),
            TestOutcome("calc fails", "failed", 1.5, "Error: one \ntwo"),
            TestOutcome("adds", "skipped", 0.0),
            TestOutcome("adds", "skipped", 0.005),
            TestOutcome("adds", "skipped", 0.005),
        )


def test_a_suite_that_did_not_load_is_one_error() -> None:
    report = jest(status="failed", name="/code/main.test.js", message=" SyntaxError ")
    assert read(report, JAVASCRIPT) == (TestOutcome("main.test.js", "error", 0.0, "SyntaxError"),)


@pytest.mark.parametrize(
    "duration", ["NaN", "Infinity", "-Infinity", "-1", "1e999", "1e300", "true", "null", '"x"', '""', "[]",
    "{}", "[5]"]
)  # fmt: skip
def test_an_invalid_duration_counts_as_zero(duration: str) -> None:
    report = jest(case(duration="DURATION")).replace(b'"DURATION"', duration.encode())
    assert read(report, JAVASCRIPT) == (TestOutcome("adds", "passed", 0.0),)


@pytest.mark.parametrize("status", [None, 1, True, [], {}, ["passed"]])
def test_a_status_that_is_not_a_string_is_an_error_and_never_a_pass(status: Any) -> None:
    [test] = read(jest(case(status=status)), JAVASCRIPT)
    assert test.outcome == "error"


@pytest.mark.parametrize(
    "report",
    [
        b"", b"null", b"1", b"[]", b'"x"', b"{}", b'{"testResults": 1}', b'{"testResults": {}}',
        b'{"testResults": [1, null]}',
        b'{"testResults": [{"assertionResults": {"a": 1}}]}', b"{", b"\xff", b"NaN", b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000, b'{"testResults": [{"assertionResults": [{"duration": ' + b"9" * 5000 + b"}]}]}",
        b"<testsuites/>",
    ],
    ids=lambda report: ascii(report[:40]),
)  # fmt: skip
def test_json_that_is_not_jests_report_is_ignored(report: bytes) -> None:
    assert read(report, JAVASCRIPT) == ()


@pytest.mark.parametrize("field", ["fullName", "duration", "failureMessages", "status"])
def test_a_value_nested_to_the_parsers_limit_is_harmless(field: str) -> None:
    for depth in range(100, 1100, 50):
        nested = "[" * depth + "]" * depth
        report = jest(case(**{field: "NESTED"})).replace(b'"NESTED"', nested.encode())
        assert len(read(report, JAVASCRIPT)) <= 1


@pytest.mark.parametrize("field", ["fullName", "failureMessages", "name", "message"])
def test_a_lone_surrogate_in_a_report_can_still_be_printed(field: str) -> None:
    if field in ("name", "message"):
        [test] = read(jest(status="failed", **{field: "a\ud800b"}), JAVASCRIPT)
    else:
        [test] = read(
            jest(case(**{field: ["a\ud800b"] if field == "failureMessages" else "a\ud800b"})), JAVASCRIPT
        )
    told = test.name + test.message
    assert "a" in told
    assert "b" in told


def test_jests_outcomes_beyond_the_limit_are_dropped() -> None:
    assert len(read(jest(*[case()] * (MAX_TESTS + 1)), JAVASCRIPT)) == MAX_TESTS


def test_jests_names_and_messages_are_cut() -> None:
    long = "x" * 10 * MAX_MESSAGE_CHARS
    [test] = read(jest(case(fullName=long, failureMessages=[long, long])), JAVASCRIPT)
    assert len(test.message) <= MAX_MESSAGE_CHARS
    assert len(test.name) <= MAX_MESSAGE_CHARS


KEYS = [
    "testResults",
    "assertionResults",
    "fullName",
    "status",
    "duration",
    "failureMessages",
    "name",
    "message",
    "x",
]
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["passed", "failed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)
OF_THE_SHAPE = st.fixed_dictionaries(
    {
        "testResults": st.lists(
            ANY_JSON
            | st.fixed_dictionaries(
                {"assertionResults": ANY_JSON | st.lists(st.dictionaries(st.sampled_from(KEYS), ANY_JSON))},
                optional=dict.fromkeys(("status", "name", "message"), ANY_JSON),
            ),
            max_size=3,
        )
    }
)


@given(ANY_JSON | OF_THE_SHAPE)
def test_any_json_gives_outcomes_and_never_an_exception(document: Any) -> None:
    for test in read(json.dumps(document).encode(), JAVASCRIPT):
        assert test.outcome in ("passed", "failed", "error", "skipped")
        assert 0 <= test.duration < 1e9


# --- Both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_a_run_without_a_report_has_no_tests(language: Language) -> None:
    result = ExecutionResult(status=Status.TIMEOUT, exit_code=None, files={"own": b"x"})
    told = with_outcomes(result, language)
    assert (told.tests, told.files, told.status) == ((), {"own": b"x"}, Status.TIMEOUT)


def test_a_report_does_not_change_the_status() -> None:
    failed = junit('<testcase name="x"><failure/></testcase>')
    result = ExecutionResult(status=Status.OK, exit_code=0, files={".codeforge-report.xml": failed})
    assert with_outcomes(result, PYTHON).success
