"""Finds the environments of this machine.

Theory of operation: an environment consists of folders in the user's cache: the language's packages, and
the guest's files, which all languages share. A third one, Node with its npm, is needed only to make others.
A folder's name ends with a digest of everything that it is made from, so a folder that is found is up to
date. It is made under another name and renamed when it is complete. A process that makes one holds a lock,
and so do the programs that it runs: after an installer was killed, the next one waits until those programs
have ended, and starts afresh.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codeforge.environments.fingerprint import NODE_INGREDIENTS, digest, interpreter_identity
from codeforge.errors import ImageBuildFailed, Unsupported
from codeforge.model import GUEST_DIR, Language, Recipe
from codeforge.package_data import guest_dir, path_of, worker_hook

ENV_FILE = "environment.json"


class EnvironmentFailed(ImageBuildFailed):
    """A language's environment could not be made; the message ends with the installer's last lines."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A language's environment, complete.

    Attributes:
        path: the folder of its packages.
        env: environment variables of every run.
        mounts: pairs of a folder or file here and its path in the sandbox, to be mounted in this order.
    """

    path: Path
    env: Mapping[str, str]
    mounts: tuple[tuple[Path, str], ...]


class EnvironmentStore:
    """The environments in one cache folder; default: ``ai-codeforge`` in the user's cache."""

    def __init__(self, cache: Path | None = None) -> None:
        self.path = (cache or _default_cache()) / "environments"

    def find(self, language: Language) -> Environment | None:
        """The language's environment, if it is on this machine and up to date.

        Raises:
            EnvironmentFailed: other users can write in the cache.
            Unsupported: the language has no recipe for an environment.
        """
        packages, guest = self.packages(language), self.guest()
        if not (is_complete(packages) and is_complete(guest)):
            return None
        check_owner(self.path)
        env = json.loads((packages / ENV_FILE).read_text())["env"]
        root = ((entry, f"/{entry.name}") for entry in sorted((packages / "root").iterdir()))
        return Environment(
            packages,
            env,
            ((packages / "usr-local", "/usr/local"), (guest, GUEST_DIR), (guest / "etc", "/etc"), *root),
        )

    def folders(self, language: Language) -> list[Path]:
        """The folders of the language's environment and of the tools that make it, existing or not."""
        tools = [self.tools()] if recipe_of(language).installer == "npm" else []
        return [self.packages(language), self.guest(), *tools]

    def installed(self) -> list[Path]:
        """All complete folders, of this version and of others."""
        return sorted(path for path in self.path.glob("[!.]*") if path.is_dir())

    def remove(self, path: Path) -> None:
        """Remove one of ``installed``; sandboxes that use it lose their files."""
        import shutil  # only here: finding an environment is part of every start

        removed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)  # an earlier removal may have been interrupted
        path.rename(removed)  # in one step, so that no process finds half of it
        shutil.rmtree(removed)

    def packages(self, language: Language) -> Path:
        """The folder of the language's packages, existing or not."""
        recipe = recipe_of(language)
        sources = [path_of(name) for name in (recipe.packages, *recipe.root.values())]
        if recipe.installer == "pip":
            made_of = digest(f"{recipe} {interpreter_identity()}", [*sources, worker_hook()])
        else:
            made_of = digest(f"{recipe}", [*sources, *map(path_of, NODE_INGREDIENTS)])
        return self._folder(language.name, made_of)

    def tools(self) -> Path:
        """The folder of Node and npm, existing or not."""
        return self._folder("node", digest("", map(path_of, NODE_INGREDIENTS)))

    def guest(self) -> Path:
        """The folder of init and the workers, existing or not."""
        return self._folder("guest", digest("", [guest_dir()]))

    def _folder(self, name: str, digest: str) -> Path:
        return self.path / f"{name}-{digest}"


def recipe_of(language: Language) -> Recipe:
    """The recipe of the language's environment.

    Raises:
        Unsupported: it has none.
    """
    if language.environment is None:
        raise Unsupported(
            f"{language.name} has no environment for engines without images: "
            "run it with engine='docker' or engine='podman', or give its row a recipe"
        )
    return language.environment


def display_name(language: Language) -> str:
    """What progress reports call the language's environment."""
    return f"{language.name} environment"


def _default_cache() -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    if Path(cache_home).is_absolute():
        return Path(cache_home) / "ai-codeforge"
    # Sandboxes that root starts run as other users, who may not enter root's home.
    return (Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache") / "ai-codeforge"


def check_owner(path: Path) -> None:
    """Make sure that no other user can have put anything into a folder from which programs will run.

    Raises:
        EnvironmentFailed: another user can write there.
    """
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EnvironmentFailed(
            f"other users may write in {path}\nMake it yours alone: chown it to yourself, and chmod go-w it"
        )


def is_complete(path: Path) -> bool:
    """Whether that folder exists: it gets its name only when it is complete."""
    return path.is_dir()
