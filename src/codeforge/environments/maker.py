"""Making what is missing of an environment: each folder as a whole, by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from codeforge.environments import etc_files, guest_binaries, npm, pip
from codeforge.environments.build import Build, EnvironmentFailed
from codeforge.environments.store import ENV_FILE, EnvironmentStore, check_owner, is_there, name_of, recipe_of
from codeforge.model import Language, Recipe
from codeforge.package_data import guest_dir, path_of
from codeforge.progress import OnStep, Step, silently

LOCK_POLL_S = 0.2
_GUEST_PATTERNS = ("python/*.py", "node/*.cjs", "typescript/*")


class EnvironmentMaker(EnvironmentStore):
    """The same store, and what is missing in it."""

    kind = "environment"

    async def status(self, language: Language) -> tuple[bool, str]:
        """See ``Provisions.status``."""
        found = self.find(language)
        return (False, "not here") if found is None else (True, str(found.path))

    async def provide(self, language: Language, on_step: OnStep = silently) -> bool:
        """See ``Provisions.provide``: makes what is missing of the environment.

        Raises:
            Unsupported: the language has no recipe for one.
        """
        try:
            await self.make(language, on_step)
        except EnvironmentFailed as error:
            on_step(Step(name_of(language), f"failed: {error}"))
            return False
        return True

    async def make(self, language: Language, report: OnStep = silently) -> None:
        """Make what is missing of the language's environment.

        Raises:
            EnvironmentFailed: something for it cannot be had; nothing is left of it.
            Unsupported: the language has no recipe for one.
        """
        recipe = recipe_of(language)
        name = name_of(language)
        # First what is quick, and fails where there is no compiler.
        await _have(self.guest(), name, report, _fill_guest)
        packages = self.packages(language)
        if not is_there(packages):
            install: Callable[[Build], Awaitable[None]] = functools.partial(pip.install, recipe=recipe)
            if recipe.installer == "npm":
                await _have(self.tools(), name, report, npm.install_tools)
                install = functools.partial(npm.install, recipe=recipe, tools=self.tools())
            await _have(packages, name, report, functools.partial(_fill, recipe, install))
        report(Step(name, "ready"))


async def _have(path: Path, name: str, report: OnStep, fill: Callable[[Build], Awaitable[None]]) -> None:
    """Have a folder: complete, or not at all."""
    if is_there(path):
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        _prepare(path.parent)
        async with _locked(path, name, report) as lock:
            if is_there(path):
                return
            try:
                _renew(partial)
                await fill(Build(name, partial, lock, report))
                _publish(partial, path)  # in no thread: cancelled, it would go on while the folder goes
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise EnvironmentFailed(f"{name}: {error}") from error


@contextlib.asynccontextmanager
async def _locked(path: Path, name: str, report: OnStep) -> AsyncIterator[int]:
    with _lock_of(path).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(Step(name, "waiting: it is being made already"))
                await asyncio.sleep(LOCK_POLL_S)
            else:
                break
        yield file.fileno()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.rpartition('-')[0]}.lock")


async def _fill(recipe: Recipe, install: Callable[[Build], Awaitable[None]], build: Build) -> None:
    build.root.mkdir()
    await install(build)
    for name, source in recipe.root.items():
        shutil.copyfile(path_of(source), build.root / name)
    (build.path / ENV_FILE).write_text(json.dumps({"env": dict(recipe.env)}))


async def _fill_guest(build: Build) -> None:
    for pattern in _GUEST_PATTERNS:
        for source in guest_dir().glob(pattern):
            shutil.copyfile(source, build.path / source.name)
    etc_files.write(build.path / "etc")
    build.say("init and workers")
    try:
        await asyncio.to_thread(guest_binaries.copy, guest_dir(), build.path)
    except guest_binaries.CannotCompile as error:
        raise EnvironmentFailed(f"{build.name}: {error}") from error
    for name in guest_binaries.PROGRAMS:
        (build.path / name).chmod(0o755)


def _prepare(path: Path) -> None:
    """Have the folder that environments lie in, where sandboxes can reach it and nobody else change it."""
    for folder in (path.parent, path):
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
    check_owner(path)
    closed = [folder for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH]
    if closed and os.geteuid() == 0:
        raise EnvironmentFailed(
            f"{closed[0]} is closed to the users that sandboxes run as\n"
            "Let XDG_CACHE_HOME name a folder that everybody may enter, or leave it out"
        )


def _renew(path: Path) -> None:
    """An empty folder, whatever a killed installer left."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o700)


def _publish(partial: Path, path: Path) -> None:
    """Whatever the umask was: every user can read it, and none but the installer change it."""
    for folder, _, names in os.walk(partial):
        for entry in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 - thousands
            if not os.path.islink(entry):  # noqa: PTH114
                mode = os.stat(entry).st_mode  # noqa: PTH116
                executable = 0o111 if mode & 0o100 else 0
                os.chmod(entry, mode & 0o700 | 0o444 | executable)  # noqa: PTH101
    partial.rename(path)
