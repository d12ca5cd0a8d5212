"""Host checks: settings of this machine, read from its files under /proc and /sys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from codeforge.audit.model import Check, Rule, Severity

_NO_SETTING = "this kernel has no such setting"
_SYSCTL = "sysctl -w {name}={value}; a line in /etc/sysctl.d/ keeps it after a restart"


def _is(*values: str) -> Callable[[str], bool]:
    return lambda found: found in values


def _at_least(least: int) -> Callable[[str], bool]:
    return lambda found: found.isdigit() and int(found) >= least


# Name, the expected value, its test, severity, reference.
_SYSCTLS: tuple[tuple[str, str, Callable[[str], bool], Severity, str], ...] = (
    ("kernel.io_uring_disabled", "2", _is("2"), Severity.LOW, "P15"),
    ("kernel.unprivileged_bpf_disabled", "1 or 2", _at_least(1), Severity.MEDIUM, "P14"),
    ("kernel.kptr_restrict", "1 or 2", _at_least(1), Severity.LOW, "P27"),
    ("kernel.dmesg_restrict", "1", _is("1"), Severity.LOW, "P20"),
    ("kernel.perf_event_paranoid", "2 or more", _at_least(2), Severity.MEDIUM, "P14"),
    ("kernel.yama.ptrace_scope", "1 or more", _at_least(1), Severity.LOW, "P05"),
    ("kernel.kexec_load_disabled", "1", _is("1"), Severity.LOW, "P20"),
    ("user.max_user_namespaces", "0", _is("0"), Severity.LOW, "P04"),
    ("vm.unprivileged_userfaultfd", "0", _is("0"), Severity.LOW, "P14"),
    ("fs.protected_symlinks", "1", _is("1"), Severity.MEDIUM, "F03"),
    ("fs.protected_hardlinks", "1", _is("1"), Severity.MEDIUM, "F03"),
    ("fs.protected_fifos", "1 or 2", _at_least(1), Severity.LOW, "F05"),
    ("fs.protected_regular", "1 or 2", _at_least(1), Severity.LOW, "F05"),
    ("fs.suid_dumpable", "0", _is("0"), Severity.MEDIUM, "R25"),
)

_CORE = Rule(
    "host.core-pattern",
    "a file name, not a pipe",
    "R25, R26",
    Severity.HIGH,
    "sysctl -w kernel.core_pattern=core: a handler in a pipe runs as root and ignores the core limit",
)
_SWAP = Rule(
    "host.swap",
    "none",
    "R06",
    Severity.LOW,
    "swapoff -a: the memory of the host's own processes may be written to disk",
)
_LSM = Rule(
    "host.lsm",
    "AppArmor or SELinux",
    "CIS 5.1, 5.2; NIST 800-190 4.4.3",
    Severity.MEDIUM,
    "boot a kernel with AppArmor or SELinux, which adds a layer around each sandbox",
)
_DIRTY_PIPE = Rule(
    "host.kernel",
    "5.16.11, 5.15.25, 5.10.102 or newer (CVE-2022-0847)",
    "P25; NIST 800-190 4.5.3",
    Severity.HIGH,
    "install and boot the distribution's newest kernel",
)
_BUGS = Rule(
    "host.cpu-bugs",
    "none that the kernel reports as Vulnerable",
    "NIST 800-190 4.5.2",
    Severity.LOW,
    "update kernel and microcode; put mitigations=auto on the kernel's command line",
)
_FIXED_IN = {(5, 10): 102, (5, 15): 25, (5, 16): 11}
_DIRTY_SINCE, _DIRTY_UNTIL = (5, 8), (5, 17)


def look(root: Path = Path("/")) -> Iterator[Check]:
    """Yield every check of the host whose file system is at ``root``."""
    for name, expected, accepts, severity, reference in _SYSCTLS:
        value = re.split(r"\D", expected)[0]
        rule = Rule(f"host.{name}", expected, reference, severity, _SYSCTL.format(name=name, value=value))
        found = _read(root / "proc/sys" / name.replace(".", "/"))
        yield rule.not_available(_NO_SETTING) if found is None else rule.holds_if(accepts(found), found)
    pattern = _read(root / "proc/sys/kernel/core_pattern")
    yield _CORE.unknown("not readable") if pattern is None else _CORE.holds_if(pattern[:1] != "|", pattern)
    swaps = _read(root / "proc/swaps")
    if swaps is None:
        yield _SWAP.unknown("not readable")
    else:
        used = len(swaps.splitlines()) - 1  # below a heading
        yield _SWAP.holds_if(used <= 0, f"{used} in use")
    yield _lsm(root)
    yield _kernel(_read(root / "proc/sys/kernel/osrelease") or "")
    yield _cpu_bugs(root)


def _lsm(root: Path) -> Check:
    enabled = _read(root / "sys/module/apparmor/parameters/enabled") == "Y"
    names = [name for name, there in (("AppArmor", enabled), ("SELinux", _selinux(root))) if there]
    return (
        _LSM.holds_if(True, ", ".join(names))
        if names
        else _LSM.not_available("the kernel has neither enabled")
    )


def _selinux(root: Path) -> bool:
    return _read(root / "sys/fs/selinux/enforce") == "1"


def _kernel(release: str) -> Check:
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if numbers is None:
        return _DIRTY_PIPE.unknown(release or "not readable")
    series, patch = (int(numbers[1]), int(numbers[2])), int(numbers[3] or 0)
    if not _DIRTY_SINCE <= series < _DIRTY_UNTIL or patch >= _FIXED_IN.get(series, patch + 1):
        return _DIRTY_PIPE.holds_if(True, release)
    if release.count("-") > 0:  # a distribution may have backported the fix
        return _DIRTY_PIPE.unknown(f"{release}: a distribution's; its changelog says whether it has the fix")
    return _DIRTY_PIPE.holds_if(False, release)


def _cpu_bugs(root: Path) -> Check:
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    if not folder.is_dir():
        return _BUGS.not_available("the kernel does not report them")
    bad = [bug.name for bug in sorted(folder.iterdir()) if (_read(bug) or "").startswith("Vulnerable")]
    return _BUGS.holds_if(not bad, ", ".join(bad) or "none")


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return None
