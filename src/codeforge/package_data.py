"""Files that travel with the package: docker/, in a checkout or installed, and the guest's sources."""

from __future__ import annotations

from pathlib import Path

PACKAGE_DIR = Path(__file__).parent


def guest_dir() -> Path:
    """Where the sources are of what runs in sandboxes."""
    return PACKAGE_DIR / "guest"


def worker_hook() -> Path:
    """The file by which an interpreter starts as a worker; it belongs in site-packages."""
    return guest_dir() / "python/codeforge_worker.pth"


def path_of(name: str) -> Path:
    """Where a file of docker/ is: installed with the package, or in the checkout around it."""
    installed = PACKAGE_DIR / "_image_context" / name
    return installed if installed.exists() else PACKAGE_DIR.parent.parent / name


def is_left_by_a_build(path: Path) -> bool:
    """As .dockerignore says: what a build on the host leaves, make would take for up to date."""
    return (
        not {"__pycache__", "build", "bin"}.isdisjoint(path.parts)
        or path.suffix == ".o"
        or path in (Path("init/init"), Path("enter/enter"))
    )
