"""Cases: hostile programs whose outcome the host judges by the result that it got. A table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from codeforge.audit.model import Rule, Severity
from codeforge.model import PYTHON, ExecutionResult, KiB, MiB, Status

SOON_S = 5.0
"""Within so long after its end, or its deadline, a run must be over: on a machine that is busy."""

Judge: TypeAlias = Callable[[ExecutionResult], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """A rule, a program with its arguments, and whether its result is as it must be."""

    rule: Rule
    payload: str
    what: str
    judge: Judge
    timeout_s: float = 20.0
    memory: str = "128m"


def _case(
    name: str, expected: str, reference: str, what: str, judge: Judge, *,
    payload: str = "endings.py", timeout_s: float = 20.0, severity: Severity = Severity.HIGH,
) -> Case:  # fmt: skip
    return Case(Rule(f"inside.{name}", expected, reference, severity), payload, what, judge, timeout_s)


def said(result: ExecutionResult) -> Mapping[str, str]:
    """What a program of resources.py told."""
    try:
        found: Any = json.loads(result.stdout.strip().partition("\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _answered(result: ExecutionResult, *answers: str, least: int = 0, most: int = 10**9) -> bool:
    told = said(result)
    number = next((int(value) for value in told.values() if value.isdigit()), least)
    return told.get("answer") in answers and least <= number <= most


FORGED_MARK = b"forged frames follow:"


def _is_forger(result: ExecutionResult) -> bool:
    """Its own exit code; and its frames are nothing but bytes of output."""
    ended = (result.status, result.exit_code) == (Status.ERROR, 7)
    return ended and result.stdout_bytes.startswith(FORGED_MARK) and len(result.stdout_bytes) < KiB


def _skipped(result: ExecutionResult) -> bool:
    wanted = {
        "link.txt": "not_regular", "folder": "not_regular", "pipe": "not_regular", "socket": "not_regular",
        "one": "linked", "two": "linked",
    }  # fmt: skip
    return dict(result.files_skipped) == wanted and dict(result.files) == {"true.txt": b"a file"}


def _unswapped(result: ExecutionResult) -> bool:
    return all(content in (b"mine", b"") for content in result.files.values())


def _in_time(result: ExecutionResult) -> bool:
    return result.execution_time < SOON_S


def _timed_out(result: ExecutionResult) -> bool:
    return result.status is Status.TIMEOUT and result.execution_time < 1 + SOON_S


def _within_quota(result: ExecutionResult) -> bool:
    """Half a core over two seconds and more; the kernel's accounts are a period behind."""
    return 0.3 < result.cpu_time < 0.6 * result.execution_time + 0.2


QUICK = (
    _case("forged-frames", "output, exit code 7", "X01, X02, X05, X09", "", _is_forger, payload="forge.py"),
    _case("forged-oom", "error with exit code 137", "R05, O06", "exit_like_oom",
          lambda r: (r.status, r.exit_code) == (Status.ERROR, 137)),
    _case("forged-kill", "killed by signal 9, not out of memory", "R05, O06", "kill_itself",
          lambda r: (r.status, r.signal) == (Status.KILLED, 9)),
    _case("closed-descriptors", "a result, exit code 3", "X03", "close_everything",
          lambda r: (r.status, r.exit_code) == (Status.ERROR, 3)),
    _case("kill-everybody", "killed by signal 9, told by init", "X04, P08", "kill_everybody",
          lambda r: (r.status, r.signal) == (Status.KILLED, 9)),
    _case("timeout", "ended in time though it ignores signals", "R17, R18", "ignore_signals", _timed_out,
          timeout_s=1),
    _case("output-bounded", "1 MiB, and truncated", "R12, O05", "much_output",
          lambda r: r.truncated and len(r.stdout_bytes) == MiB),
    _case("output-exact", "256 bytes, each as it was", "O01, O02", "all_bytes",
          lambda r: r.stdout_bytes == bytes(range(256))),
    _case("artifacts", "regular files with one name, and no other", "F03, F05", "artifacts", _skipped),
)  # fmt: skip

_PIDS = PYTHON.pids

FULL = (
    _case("fork-bomb", f"EAGAIN below {_PIDS}", "R01", "fork_bomb",
          lambda r: _answered(r, "EAGAIN", most=_PIDS), payload="resources.py"),
    _case("thread-bomb", f"RuntimeError below {_PIDS}", "R02", "thread_bomb",
          lambda r: _answered(r, "RuntimeError", most=_PIDS), payload="resources.py"),
    _case("memory-bomb", "out_of_memory", "R03, R06", "memory_bomb",
          lambda r: r.status is Status.OUT_OF_MEMORY, payload="resources.py"),
    _case("child-memory-bomb", "out_of_memory, though the program ended well", "R04", "child_memory_bomb",
          lambda r: r.status is Status.OUT_OF_MEMORY, payload="resources.py"),
    _case("tmp-full", "ENOSPC within 64 MiB", "R07", "fill_tmp",
          lambda r: _answered(r, "ENOSPC", "EFBIG", most=64), payload="resources.py"),
    _case("shm-full", "ENOSPC within 16 MiB", "R08", "fill_shm",
          lambda r: _answered(r, "ENOSPC", most=16), payload="resources.py"),
    _case("many-files", "ENOSPC below 4096", "R09", "many_files",
          lambda r: _answered(r, "ENOSPC", most=PYTHON.tmp_inodes), payload="resources.py"),
    _case("huge-file", "EFBIG", "F06", "one_huge_file", lambda r: _answered(r, "EFBIG"),
          payload="resources.py"),
    _case("descriptors", "EMFILE below 1024", "R11", "descriptors",
          lambda r: _answered(r, "EMFILE", most=1024), payload="resources.py"),
    _case("flood", "ended: output_limit, or at its deadline", "R12, R13, R15", "flood",
          lambda r: r.truncated and r.status in (Status.OUTPUT_LIMIT, Status.TIMEOUT)
          and len(r.stdout_bytes) <= MiB, payload="resources.py", timeout_s=10),
    _case("spin", "no more than its quota", "R16", "spin", _within_quota, payload="resources.py"),
    _case("zombies", "reaped by process 1", "R21", "zombies", lambda r: _answered(r, "went on"),
          payload="resources.py"),
    _case("stop-everybody", "timeout", "R22", "stop_everybody", _timed_out, timeout_s=1),
    _case("daemon", "over with its program", "R19, X12", "daemonise", _in_time),
    _case("pipe-keeper", "over with its program", "R20, X12", "keep_the_pipe", _in_time),
    _case("swapped-names", "no link followed", "F04", "swap_names", _unswapped),
)  # fmt: skip
