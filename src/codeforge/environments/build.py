"""One environment that is being made: its folder, and the programs that are run to fill it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codeforge.errors import ImageBuildFailed
from codeforge.progress import OnStep, Step

STALL_S = 300.0
"""An installer that says nothing for this long is given up; a slow one that goes on is not."""

LOG_TAIL_LINES = 30


class EnvironmentFailed(ImageBuildFailed):
    """A language's environment could not be made; the message ends with the installer's last lines."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is being made.

    Attributes:
        name: what the listener is told it is.
        path: the environment's folder; nobody uses it before it is complete.
        lock: a descriptor that programs inherit: while one of them lives, even without us, nobody else
            makes this environment.
    """

    name: str
    path: Path
    lock: int
    report: OnStep

    @property
    def usr_local(self) -> Path:
        """What becomes /usr/local."""
        return self.path / "usr-local"

    @property
    def root(self) -> Path:
        """Whose entries come to lie in /."""
        return self.path / "root"

    def say(self, text: str, current: int | None = None, total: int | None = None) -> None:
        """Tell what is going on."""
        self.report(Step(self.name, text, current, total))

    async def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        heard: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Run a program, and tell its lines, or have them ``heard``.

        Returns:
            the last lines of what it said.

        Raises:
            EnvironmentFailed: it failed, is not there, or was silent for too long.
        """
        log: list[str] = []
        what = " ".join(Path(word).name for word in command[:2])
        try:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=cwd, env={**os.environ, **_NOTHING_ELSE, **(env or {})}, pass_fds=(self.lock,),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EnvironmentFailed(f"{self.name}: cannot start {command[0]}: {error.strerror}") from error
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            async with asyncio.timeout(None) as silence:
                while True:
                    silence.reschedule(asyncio.get_running_loop().time() + STALL_S)
                    if not (line := await process.stdout.readline()):
                        break
                    log = [*log[-LOG_TAIL_LINES:], line.decode("utf-8", "replace").rstrip()]
                    (heard or self.say)(log[-1])
                status = await process.wait()
        except TimeoutError as error:
            raise EnvironmentFailed(f"{self.name}: no sign of life of {what} for {STALL_S:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status:
            raise EnvironmentFailed("\n".join([f"{self.name}: {what} exited with {status}:", *log]))
        return log


_NOTHING_ELSE = {"PYTHONPATH": "", "PYTHONHOME": ""}
"""pip installs nothing of what it finds on these paths in the right version."""


def counted(build: Build, signs: tuple[str, ...], total: int) -> Callable[[str], None]:
    """Something that tells lines to the build's listener, and counts those that begin with a sign."""
    count = 0

    def heard(line: str) -> None:
        nonlocal count
        count += line.startswith(signs)
        build.say(line, min(count, total), total)

    return heard
