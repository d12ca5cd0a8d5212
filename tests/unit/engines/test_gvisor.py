"""gVisor's posture: all that it reports or the host sees is checked, and what it does not have is not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from codeforge.engines.gvisor import SENTRY_TASKS, with_sentry
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits
from codeforge.policy import GVISOR_UNREPORTED, posture_faults
from codeforge.protocol.frames import PROTOCOL

LIMITS = Limits().of_sandbox(PYTHON)
POSTURE = {
    **{f"cap_{name}": "0" * 16 for name in ("inh", "prm", "eff", "bnd")},
    **{"protocol": str(PROTOCOL), "pid": "1", "uid": "20007", "gid": "10001", "groups": "10001 "},
    **{"dumpable": "0", "no_new_privs": "1", "seccomp": "2", "interfaces": "lo", "root": "ro"},
    **{"code": "rw,noexec", "tmp": "rw,noexec", "shm": "rw,noexec"},
    **{"code_bytes": "67108864", "tmp_bytes": "67108864", "shm_bytes": "16777216"},
    **{"core_max": "0", "nofile_max": "1024", "fsize_max": "67108864"},
    **{"msgqueue_max": "0", "sigpending_max": "128", "memlock_max": "65536"},
    **{"memory_max": "536870912", "memsw_max": "536870912", "pids_max": str(PYTHON.pids + SENTRY_TASKS)},
    **{"cpu_quota_us": "50000", "cpu_period_us": "100000"},
}
"""The posture of a new sandbox on gVisor, without values that are not checked."""


def faults(posture: Mapping[str, str]) -> list[str]:
    return posture_faults(posture, with_sentry(LIMITS), uid=20_007, ignore=GVISOR_UNREPORTED)


def test_a_sandbox_as_gvisor_makes_it_has_no_fault() -> None:
    assert faults(POSTURE) == []


@pytest.mark.parametrize("key", POSTURE)
def test_a_value_that_is_not_reported_is_a_fault(key: str) -> None:
    assert faults({name: value for name, value in POSTURE.items() if name != key})


@pytest.mark.parametrize(
    ("key", "weaker"),
    [
        ("seccomp", "0"),
        ("root", "rw"),
        ("code", "rw"),
        ("memory_max", "max"),
        ("pids_max", "max"),
        ("cpu_quota_us", "-1"),
        ("code_bytes", "0"),
        ("interfaces", "lo,eth0"),
    ],
)
def test_a_weaker_value_is_a_fault(key: str, weaker: str) -> None:
    assert len(faults({**POSTURE, key: weaker})) == 1


def test_other_kernels_must_report_what_gvisor_does_not() -> None:
    assert len(posture_faults(POSTURE, with_sentry(LIMITS), uid=20_007)) == 6
