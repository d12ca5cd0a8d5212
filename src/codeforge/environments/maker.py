"""Makes environments: each folder completely or not at all, by one process at a time."""

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
from codeforge.environments.build import Build
from codeforge.environments.store import (
    ENV_FILE,
    EnvironmentFailed,
    EnvironmentStore,
    check_owner,
    display_name,
    is_complete,
    recipe_of,
)
from codeforge.model import Language, Recipe
from codeforge.package_data import guest_dir, path_of
from codeforge.progress import OnStep, Step, silently

LOCK_POLL_S = 0.2
_GUEST_PATTERNS = ("python/*.py", "node/*.cjs", "typescript/*")

Fill = Callable[[Build], Awaitable[None]]
"""Fills the folder of a build."""


class EnvironmentMaker(EnvironmentStore):
    """An environment store that makes what it does not have."""

    kind = "environment"

    async def status(self, language: Language) -> tuple[bool, str]:
        """See ``Provisions.status``."""
        found = self.find(language)
        return (False, "not on this machine") if found is None else (True, str(found.path))

    async def provide(self, language: Language, on_step: OnStep = silently) -> bool:
        """See ``Provisions.provide``: makes what is missing of the language's environment.

        Raises:
            Unsupported: the language has no recipe for one.
        """
        try:
            await self.make(language, on_step)
        except EnvironmentFailed as error:
            on_step(Step(display_name(language), str(error), failed=True))
            return False
        return True

    async def make(self, language: Language, on_step: OnStep = silently) -> None:
        """Make what is missing of the language's environment.

        Raises:
            EnvironmentFailed: a part of it could not be made; nothing of that part is left.
            Unsupported: the language has no recipe for one.
        """
        recipe = recipe_of(language)
        name = display_name(language)
        # First, because it is quick and fails where there is no compiler.
        await _ensure(self.guest(), name, on_step, _fill_guest)
        packages = self.packages(language)
        if not is_complete(packages):
            install: Fill = functools.partial(pip.install, recipe=recipe)
            if recipe.installer == "npm":
                await _ensure(self.tools(), name, on_step, npm.install_tools)
                install = functools.partial(npm.install, recipe=recipe, tools=self.tools())
            await _ensure(packages, name, on_step, functools.partial(_fill, recipe, install))
        on_step(Step(name, "ready"))


async def _ensure(path: Path, name: str, on_step: OnStep, fill: Fill) -> None:
    """Make a folder unless it exists; it appears under its name only once ``fill`` is done."""
    if is_complete(path):
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        _prepare(path.parent)
        async with _locked(path, name, on_step) as lock:
            if is_complete(path):
                return
            try:
                _make_empty(partial)
                await fill(Build(name, partial, lock, on_step))
                # Not in a thread: after a cancellation it would go on while the folder is removed.
                _publish(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise EnvironmentFailed(f"{name}: {error}") from error


@contextlib.asynccontextmanager
async def _locked(path: Path, name: str, on_step: OnStep) -> AsyncIterator[int]:
    """Hold the lock of a folder; gives its descriptor."""
    with _lock_of(path).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_step(Step(name, "waiting: another process is making it"))
                await asyncio.sleep(LOCK_POLL_S)
            else:
                break
        yield file.fileno()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.rpartition('-')[0]}.lock")


async def _fill(recipe: Recipe, install: Fill, build: Build) -> None:
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
    """Make the environments' folder: sandboxes can reach it, and only its owner can change it."""
    for folder in (path.parent, path):
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
    check_owner(path)
    closed = [folder for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH]
    if closed and os.geteuid() == 0:
        raise EnvironmentFailed(
            f"the users that sandboxes run as cannot enter {closed[0]}\n"
            "Set XDG_CACHE_HOME to a folder that everybody may enter, or unset it"
        )


def _make_empty(path: Path) -> None:
    """Make a folder, or empty it: an installer that was killed may have left files in it."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o700)


def _publish(partial: Path, path: Path) -> None:
    """Give a finished folder its name; every user may read it and only its owner change it."""
    for folder, _, names in os.walk(partial):
        _open_to_readers(folder)
        for name in names:
            _open_to_readers(f"{folder}/{name}")
    partial.rename(path)


def _open_to_readers(entry: str) -> None:
    """Whatever the umask was. Takes a string: there are thousands of entries."""
    mode = os.lstat(entry).st_mode
    if not stat.S_ISLNK(mode):
        executable = 0o111 if mode & 0o100 else 0
        os.chmod(entry, mode & 0o700 | 0o444 | executable)  # noqa: PTH101 - a Path for each would be slow
