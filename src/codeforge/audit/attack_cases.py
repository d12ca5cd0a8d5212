"""Attack cases: a table of hostile programs, each judged by its result and not by what it prints.

The hostile tests run the same programs, and require the same of the results and more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from codeforge.audit.model import Rule, Severity
from codeforge.audit.payloads.forge import FORGED, MARK, OWN_STREAMS
from codeforge.model import PYTHON, ExecutionResult, MiB, Status

ENDS_WITHIN_S = 5.0
"""How long after its end or its deadline a run may take to be over, on a busy machine."""

Judge: TypeAlias = Callable[[ExecutionResult], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile program, and what its result must be.

    Attributes:
        rule: the question, as the audit prints it.
        payload: the file name of the program, in ``payloads/``.
        arguments: its command line; the first is often the function to call.
        judge: returns whether the sandbox held.
        timeout_s: the time limit of the run.
        memory: the memory limit of the run.
    """

    rule: Rule
    payload: str
    arguments: tuple[str, ...]
    judge: Judge
    timeout_s: float = 20.0
    memory: str = "128m"


def _case(
    name: str,
    expected: str,
    reference: str,
    command: str,
    judge: Judge,
    *,
    timeout_s: float = 20.0,
    severity: Severity = Severity.HIGH,
) -> Case:
    """Make a case from a command line: the program's name without its suffix, and its arguments."""
    program, *arguments = command.split()
    rule = Rule(f"inside.{name}", expected, reference, severity)
    return Case(rule, f"{program}.py", tuple(arguments), judge, timeout_s)


def facts(result: ExecutionResult) -> Mapping[str, str]:
    """Return what the program reported in its first line; empty if that is not a JSON object."""
    try:
        found: Any = json.loads(result.stdout.strip().partition("\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _answered(result: ExecutionResult, answer: str, *, most: int = 10**9) -> bool:
    """Whether the program was stopped by this error, and no number that it reported is above ``most``."""
    reported = facts(result)
    counted = [int(value) for value in reported.values() if value.isdigit()]
    return reported.get("answer") == answer and all(count <= most for count in counted)


def _ended(
    result: ExecutionResult, status: Status, code: int | None = None, signal: int | None = None
) -> bool:
    return (result.status, result.exit_code, result.signal) == (status, code, signal)


def _is_forger(result: ExecutionResult) -> bool:
    """Whether the exit code is the program's, and its frames are in its own output and nowhere else."""
    try:
        written = json.loads(result.files.get("written", b""))
    except ValueError:
        return False
    reached_own_streams_only = written == [[], OWN_STREAMS] and result.files.keys() == {"written"}
    own_output = result.stdout_bytes == MARK + 2 * FORGED
    return _ended(result, Status.ERROR, code=7) and reached_own_streams_only and own_output


_LINKS = (
    *("absolute", "relative", "loop", "dangling", "root", "by proc"),
    *("folder", "init's", "own", "device", "deep/etc"),
)
_SPECIAL_FILES = ("pipe", "deep/pipe", "closed", "socket")
_SKIPPED = {
    **dict.fromkeys([*_LINKS, *_SPECIAL_FILES], "not_regular"),
    **dict.fromkeys(["one", "two"], "linked"),
}


def _is_own_files_only(result: ExecutionResult) -> bool:
    return dict(result.files_skipped) == _SKIPPED and dict(result.files) == {"true.txt": b"a file"}


def _followed_no_link(result: ExecutionResult) -> bool:
    """Whether every file is the program's own. After the race, one of each pair is a file, one a link."""
    files, skipped = set(result.files), set(result.files_skipped)
    paired = len({"passwd", "link"} & files) == len({"passwd", "link"} & skipped) == 1
    paired &= len({"folder/passwd", "other/passwd"} & files) == len({"folder", "other"} & skipped) == 1
    return paired and all(content == b"mine" for content in result.files.values())


def _in_time(result: ExecutionResult) -> bool:
    return result.status is Status.OK and result.execution_time < ENDS_WITHIN_S


def _timed_out(result: ExecutionResult) -> bool:
    return result.status is Status.TIMEOUT and result.execution_time < 1 + ENDS_WITHIN_S


def _within_quota(result: ExecutionResult) -> bool:
    """Whether it used at most half a core, with a margin: the kernel's accounting is one period late.

    On a busy machine, it may get much less.
    """
    return 0 < result.cpu_time < 0.6 * result.execution_time + 0.2


def _cut_flood(result: ExecutionResult) -> bool:
    ended = result.status in (Status.OUTPUT_LIMIT, Status.TIMEOUT)
    return ended and result.truncated and len(result.stdout_bytes) <= MiB


def _is_out_of_memory(result: ExecutionResult) -> bool:
    return result.status is Status.OUT_OF_MEMORY


_PIDS = PYTHON.pids
_BYTES = bytes(range(256)) * 9

# A few lines for each case; the formatter would take eight.
# fmt: off
QUICK = (
    _case("forged-frames", "output, exit code 7", "X01, X02, X05, X09", "forge", _is_forger),
    _case("forged-oom", "error with exit code 137", "R05, O06", "endings exit_like_oom",
          lambda r: _ended(r, Status.ERROR, code=137)),
    _case("forged-kill", "killed by signal 9, not out of memory", "R05, O06", "endings kill_itself",
          lambda r: _ended(r, Status.KILLED, signal=9)),
    _case("closed-descriptors", "a result, exit code 3", "X03", "endings close_everything",
          lambda r: _ended(r, Status.ERROR, code=3)),
    _case("kill-everybody", "killed by signal 9, reported by init", "X04, P08", "endings kill_everybody",
          lambda r: _ended(r, Status.KILLED, signal=9)),
    _case("timeout", "ended in time though it ignores signals", "R17, R18", "endings ignore_signals",
          _timed_out, timeout_s=1),
    _case("output-bounded", "1 MiB, and truncated", "R12, O05", "endings much_output",
          lambda r: r.truncated and len(r.stdout_bytes) == MiB),
    _case("output-exact", "every byte as it was", "O01, O02", "endings all_bytes",
          lambda r: r.stdout_bytes == r.stderr_bytes == _BYTES),
    _case("artifacts", "regular files with one name, and no other", "F03, F05", "endings artifacts",
          _is_own_files_only),
)

FULL = (
    _case("fork-bomb", f"EAGAIN below {_PIDS}", "R01", "resources fork_bomb",
          lambda r: _answered(r, "EAGAIN", most=_PIDS)),
    _case("thread-bomb", f"RuntimeError below {_PIDS}", "R02", "resources thread_bomb",
          lambda r: _answered(r, "RuntimeError", most=_PIDS)),
    _case("memory-bomb", "out_of_memory", "R03, R06", "resources memory_bomb", _is_out_of_memory),
    _case("child-memory-bomb", "out_of_memory, though the program ended well", "R04",
          "resources child_memory_bomb", _is_out_of_memory),
    _case("tmp-full", "ENOSPC within 64 MiB", "R07", "resources fill_folder /tmp",
          lambda r: _answered(r, "ENOSPC", most=64 * MiB)),
    _case("shm-full", "ENOSPC within 16 MiB", "R08", "resources fill_folder /dev/shm",
          lambda r: _answered(r, "ENOSPC", most=16 * MiB)),
    _case("many-files", "ENOSPC below 4096", "R09", "resources many_files /tmp",
          lambda r: _answered(r, "ENOSPC", most=PYTHON.tmp_inodes)),
    _case("huge-file", "EFBIG", "F06", "resources one_huge_file", lambda r: _answered(r, "EFBIG")),
    _case("descriptors", "EMFILE below 1024", "R11", "resources descriptors",
          lambda r: _answered(r, "EMFILE", most=1024)),
    _case("flood", "ended: output_limit, or at its deadline", "R12, R13, R15", "resources flood 1 2",
          _cut_flood, timeout_s=10),
    _case("spin", "no more than its quota", "R16", "resources spin", _within_quota),
    _case("zombies", "reaped by process 1", "R21", "resources zombies",
          lambda r: _answered(r, "went on")),
    _case("stop-everybody", "timeout", "R22", "endings stop_everybody", _timed_out, timeout_s=1),
    _case("daemon", "over with its program", "R19, X12", "endings daemonise", _in_time),
    _case("pipe-keeper", "over with its program", "R20, X12", "endings keep_the_pipe", _in_time),
    _case("swapped-names", "no link followed", "F04", "endings swap_names", _followed_no_link),
)
# fmt: on
