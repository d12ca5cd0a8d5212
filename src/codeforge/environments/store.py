"""The environments of this machine: find a language's, or make it.

Theory of operation: an environment is made of folders in the user's cache: the language's packages; the
guest's files, which all languages share; and Node with its npm, which only making others takes. A folder's
name ends with a digest of all that it is made of, so that what is found is up to date. It is made under
another name and renamed when it is complete. Who makes one holds a lock, and so does every program that it
runs: after an installer was killed, the next one waits for what is left of it, and starts afresh.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codeforge.environments.build import EnvironmentFailed
from codeforge.environments.fingerprint import NODE_INGREDIENTS, digest, interpreter_identity
from codeforge.errors import Unsupported
from codeforge.model import GUEST_DIR, Language, Recipe
from codeforge.package_data import guest_dir, path_of, worker_hook

ENV_FILE = "environment.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """A language's environment, complete.

    Attributes:
        path: its folder.
        env: environment of every run.
        mounts: what is mounted where: folders and files here, paths in the sandbox; in this order.
    """

    path: Path
    env: Mapping[str, str]
    mounts: tuple[tuple[Path, str], ...]


class EnvironmentStore:
    """Those in one cache folder; by default ``ai-codeforge`` in the user's."""

    def __init__(self, cache: Path | None = None) -> None:
        self.path = (cache or _cache()) / "environments"

    def find(self, language: Language) -> Environment | None:
        """The language's environment, if it is here and up to date.

        Raises:
            EnvironmentFailed: somebody else could change what is in the cache.
            Unsupported: the language has no recipe for one.
        """
        packages, guest = self.packages(language), self.guest()
        if not (is_there(packages) and is_there(guest)):
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
        """Those that the language's environment is made of and with, whether they are there or not."""
        tools = [self.tools()] if recipe_of(language).installer == "npm" else []
        return [self.packages(language), self.guest(), *tools]

    def installed(self) -> list[Path]:
        """All complete folders, of this version or another."""
        return sorted(path for path in self.path.glob("[!.]*") if path.is_dir())

    def remove(self, path: Path) -> None:
        """Remove one of ``installed``; sandboxes that use it lose their files."""
        import shutil  # as above

        gone = path.with_name(f".{path.name}.removed")
        shutil.rmtree(gone, ignore_errors=True)  # of a removal that was interrupted
        path.rename(gone)  # never a moment at which half of it could be found
        shutil.rmtree(gone)

    def packages(self, language: Language) -> Path:
        """Where the language's packages are, or would be."""
        recipe = recipe_of(language)
        sources = [path_of(name) for name in (recipe.packages, *recipe.root.values())]
        if recipe.installer == "pip":
            return self._folder(
                language.name,
                digest(
                    f"{recipe} {interpreter_identity()}",
                    [*sources, worker_hook()],
                ),
            )
        return self._folder(language.name, digest(f"{recipe}", [*sources, *map(path_of, NODE_INGREDIENTS)]))

    def tools(self) -> Path:
        """Where Node and npm are, or would be."""
        return self._folder("node", digest("", map(path_of, NODE_INGREDIENTS)))

    def guest(self) -> Path:
        """Where init and the workers are, or would be."""
        return self._folder("guest", digest("", [guest_dir()]))

    def _folder(self, name: str, digest: str) -> Path:
        return self.path / f"{name}-{digest}"


def recipe_of(language: Language) -> Recipe:
    """What the language's environment is made of.

    Raises:
        Unsupported: nothing says it.
    """
    if language.environment is None:
        raise Unsupported(
            f"{language.name} has no environment for engines without images: "
            "run it with engine='docker' or engine='podman', or give its row a recipe"
        )
    return language.environment


def name_of(language: Language) -> str:
    """What it is called where progress is shown."""
    return f"{language.name} environment"


def _cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():
        return Path(named) / "ai-codeforge"
    # Sandboxes that root starts run as users of their own, who may not enter root's home.
    return (Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache") / "ai-codeforge"


def check_owner(path: Path) -> None:
    """Nobody else may have put there what is to run.

    Raises:
        EnvironmentFailed: somebody may have.
    """
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EnvironmentFailed(f"others may write in {path}: chown it to yourself, and chmod go-w it")


def is_there(path: Path) -> bool:
    """Whether that folder is complete: it gets its name when it is."""
    return path.is_dir()
