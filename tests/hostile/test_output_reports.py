"""Reports, pickles and lines that a program leaves are parsed as hostile input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor, Status


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.catalogue("O08")
def test_a_pickle_is_never_loaded(executor: BlockingCodeExecutor, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hostile = pickle.dumps(Marker(marker))
    code = f"""
import os
data = {hostile!r}
os.write(1, data); os.write(2, data)
for name in ("result.pkl", ".codeforge-report.xml", ".codeforge-report.json", "x.jsonpickle"):
    open(name, "wb").write(data)
"""
    plain = executor.execute(code)
    tested = executor.execute_with_tests(code, "import main\ndef test(): pass")
    for result in (plain, tested):
        assert (result.status, result.files["result.pkl"]) == (Status.OK, hostile)
        json.dumps(result.to_dict())
    assert plain.stdout_bytes == plain.stderr_bytes == hostile
    assert not marker.exists()
    pickle.loads(hostile).close()  # the pickle itself works
    assert marker.exists()


REPORTS = {
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)
    ) + b"]><x>&j;</x>",
    "outside": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    b'<testsuite><testcase name="&a;"/></testsuite>',
    "deep": b"<a>" * 100_000,
    "not utf-8": b"\xff\xfe\x00",
    "many": b"<testsuite>" + b'<testcase name="x"/>' * 100_000 + b"</testsuite>",
    "controls": b'<testsuite><testcase name="a&#x202e;\nb" time="nan"/></testsuite>',
}  # fmt: skip


@pytest.mark.catalogue("X08", "O08")
@pytest.mark.parametrize("kind", REPORTS)
def test_a_forged_test_report_is_parsed_safely(executor: BlockingCodeExecutor, kind: str) -> None:
    """Code under test shares the runner's process, and may overwrite the report at its end."""
    tests = f"""
import atexit
def forge():
    with open("/code/.codeforge-report.xml", "wb") as report: report.write({REPORTS[kind]!r})
atexit.register(forge)
def test_one(): pass
"""
    result = executor.execute_with_tests("", tests, timeout=60)
    assert result.status is Status.OK
    assert len(result.tests) <= 10_000
    assert "root:" not in json.dumps(result.to_dict())
    assert kind in ("many", "controls") or result.tests == ()


JSON_REPORTS = {
    "deep": "'['.repeat(100000)",
    "numbers": """'{"testResults":[{"assertionResults":['"""
    """ + '{"fullName":1e999,"status":NaN,"duration":-1e999}]}]}'""",
    "surrogate": r"""'{"testResults":[{"assertionResults":[{"fullName":"\\ud800","status":"passed"}]}]}'""",
    "digits": """'{"testResults":[{"assertionResults":[{"duration":' + '9'.repeat(5000) + '}]}]}'""",
    "types": """'{"testResults":{"assertionResults":7}}'""",
}
JSON_READ = {
    "numbers": [("inf", "error", 0.0)],
    "surrogate": [("?", "passed", 0.0)],
}
"""What the host makes of such a report."""


@pytest.mark.catalogue("X08")
@pytest.mark.parametrize("kind", JSON_REPORTS)
def test_a_forged_json_report_is_parsed_safely(executor: BlockingCodeExecutor, kind: str) -> None:
    tests = f"""
        const fs = require('fs')
        const open = fs.openSync
        fs.openSync = (path, ...rest) => {{
          if (!String(path).endsWith('.codeforge-report.json')) return open(path, ...rest)
          const report = open(path, 'w')
          fs.writeSync(report, {JSON_REPORTS[kind]})
          fs.closeSync(report)
          return open('/dev/null', 'w')
        }}
        test('one', () => {{}})
    """
    result = executor.execute_with_tests("", tests, "javascript", timeout=60)
    assert result.status is Status.OK
    json.dumps(result.to_dict()).encode()
    assert [(test.name, test.outcome, test.duration) for test in result.tests] == JSON_READ.get(kind, [])
