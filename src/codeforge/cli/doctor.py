"""``codeforge doctor``: check the engine, the images, and that the restrictions are in force."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Unpack

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from codeforge.cli.engine import EngineOptions, print_engine_note
from codeforge.cli.terminal import harmless, print_json
from codeforge.errors import CodeForgeError
from codeforge.executor import CodeExecutor
from codeforge.model import Language, Limits, format_memory

Verdict = Literal["ok", "problem", "note"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was checked.
        verdict: a note is worth knowing, and not a problem.
        found: what was found.
        advice: what to do about it; empty if there is nothing to do.
        posture: what the kernel reports about the sandbox that was started for the check.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    posture: Mapping[str, str] = field(default_factory=dict)


def perform(*, as_json: bool, posture: bool, **options: Unpack[EngineOptions]) -> int:
    """Check, print the report, and return the exit code.

    Args:
        as_json: print one JSON document.
        posture: print what the kernel reports about each sandbox. The document always has it.
        options: keyword arguments of ``CodeExecutor``.
    """
    executor = CodeExecutor(on_engine=print_engine_note, **options)
    try:
        checks = asyncio.run(_check(executor))
        exit_code = 1 if any(check.verdict == "problem" for check in checks) else 0
    except CodeForgeError as error:
        first, _, rest = str(error).partition("\n")
        checks = [Check("engine", "problem", first, rest)]
        exit_code = error.exit_code
    if as_json:
        print_json({"healthy": exit_code == 0, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks, posture=posture)
    return exit_code


async def _check(executor: CodeExecutor) -> list[Check]:
    async with executor:
        checks = await _engine(executor)
        for language in executor.languages:
            checks += await _language(executor, language)
        return checks


async def _engine(executor: CodeExecutor) -> list[Check]:
    info = await executor.engine_info()
    options = " ".join(info.security_options)
    lsm = next((name for name in ("apparmor", "selinux") if name in options), None)
    api, driver = f" (API {info.api})" if info.api else "", f", {info.driver}" if info.driver else ""
    return [
        Check("engine", "ok", f"{info.name} {info.version}{api}{driver}"),
        Check("kernel", "ok", f"{info.kernel}, {info.cpus} CPUs, {info.memory_bytes / 1e9:.0f} GB"),
        Check("cgroups", "ok", f"v{info.cgroup_version}"),
        Check("swap limit", "ok", "enforced")
        if info.swap_limit
        else Check("swap limit", "problem", "not accounted for by the kernel", "boot with swapaccount=1"),
        Check("seccomp", "ok", "the engine's filter is on")
        if "seccomp" in options
        else Check("seccomp", "problem", "off in the engine", "run dockerd with its default seccomp profile"),
        Check("LSM", "ok", lsm)
        if lsm
        else Check("LSM", "note", "neither AppArmor nor SELinux", "one more layer where the kernel has one"),
    ]


async def _language(executor: CodeExecutor, language: Language) -> list[Check]:
    there = await _provision(executor, language)
    if there.verdict == "problem":
        return [there]
    try:
        result = await executor.execute(language.smoke, language.name)
    except CodeForgeError as error:
        return [there, Check(f"{language.name} run", "problem", str(error), "see docs/troubleshooting.md")]
    if result.stdout != "hello\n":
        return [there, Check(f"{language.name} run", "problem", result.error or "unexpected output")]
    limits = Limits()
    return [
        there,
        Check(
            f"{language.name} run",
            "ok",
            f"{result.execution_time * 1000:.0f} ms, {result.memory_used / 1e6:.0f} MB; in force: read-only "
            f"root, no network, {format_memory(limits.memory_bytes)} memory without swap, "
            f"{limits.cpu_quota_us / 1000:.0f}% of a core, {language.pids} processes, no capabilities, "
            "no new privileges, seccomp",
            posture=dict(result.posture),
        ),
    ]


async def _provision(executor: CodeExecutor, language: Language) -> Check:
    """Check that the language's image or environment is here."""
    store = await executor.provisions()
    name = f"{language.name} {store.kind}"
    is_here, found = await store.status(language)
    if is_here:
        return Check(name, "ok", found)
    return Check(name, "problem", found, f"codeforge {store.kind}s build {language.name}")


def _print(checks: list[Check], *, posture: bool) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is useless if its end is cut off
    colours: dict[Verdict, str] = {"ok": "green", "problem": "bold red", "note": "yellow"}
    for check in checks:
        text = escape(harmless(check.found))
        if check.advice:
            text += f"\n[dim]-> {escape(harmless(check.advice))}[/]"
        if posture:
            text += "".join(
                f"\n[dim]   {escape(harmless(f'{key}={value}'))}[/]" for key, value in check.posture.items()
            )
        table.add_row(f"[{colours[check.verdict]}]{check.verdict}[/]", check.name, text)
    Console().print(table)
