"""One environment under construction: its folder, and the programs that fill it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codeforge.environments.store import EnvironmentFailed
from codeforge.programs import run_program
from codeforge.progress import OnStep, Step

STALL_S = 300.0
"""An installer that is silent for this long is killed; one that is slow but makes progress is not."""


@dataclass(frozen=True, slots=True)
class Build:
    """An environment under construction.

    Attributes:
        name: what progress reports call it.
        path: its folder; nothing uses it before it is complete.
        lock: a descriptor of the lock file. The installers inherit it, so the lock is held while any of them
            runs, even after this process was killed.
        report: the listener for progress.
    """

    name: str
    path: Path
    lock: int
    report: OnStep

    @property
    def usr_local(self) -> Path:
        """The folder that sandboxes see as /usr/local."""
        return self.path / "usr-local"

    @property
    def root(self) -> Path:
        """The folder whose entries sandboxes see in /."""
        return self.path / "root"

    def say(self, text: str, current: int | None = None, total: int | None = None) -> None:
        """Report a step."""
        self.report(Step(self.name, text, current, total))

    async def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Run a program.

        Args:
            command: the program and its arguments.
            cwd: where it starts.
            env: variables on top of this process's own.
            on_line: called with each line of its output; default: reports it as a step.

        Returns:
            the last lines that it wrote.

        Raises:
            EnvironmentFailed: it cannot be started, failed, or was silent for too long.
        """
        what = " ".join(Path(word).name for word in command[:2])
        try:
            status, log = await run_program(
                *command,
                on_line=on_line or self.say,
                stall_s=STALL_S,
                cwd=cwd,
                env={**_NO_PYTHON_PATHS, **(env or {})},
                pass_fds=(self.lock,),
            )
        except TimeoutError as error:  # an OSError, too
            raise EnvironmentFailed(f"{self.name}: {what} wrote nothing for {STALL_S:g} s") from error
        except OSError as error:
            raise EnvironmentFailed(f"{self.name}: cannot start {command[0]}: {error.strerror}") from error
        if status:
            raise EnvironmentFailed("\n".join([f"{self.name}: {what} exited with {status}:", *log]))
        return log


_NO_PYTHON_PATHS = {"PYTHONPATH": "", "PYTHONHOME": ""}
"""pip does not install a package that it already finds on these paths."""


def counted(build: Build, signs: tuple[str, ...], total: int) -> Callable[[str], None]:
    """A listener for lines that reports each, and counts those that begin with one of ``signs``."""
    count = 0

    def on_line(line: str) -> None:
        nonlocal count
        count += line.startswith(signs)
        build.say(line, min(count, total), total)

    return on_line
