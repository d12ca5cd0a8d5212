"""The build context of the product's images: docker/ and the guest's sources."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from codeforge.errors import ImageBuildFailed
from codeforge.package_data import guest_dir, is_left_by_a_build, path_of


def base_image(dockerfile: str) -> tuple[str, str]:
    """The build argument that sets a Dockerfile's base image: its name and its default."""
    text = path_of(dockerfile).read_text()
    match = re.search(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE)
    if match is None:
        raise ImageBuildFailed(f"{dockerfile} names no base image")
    return match[1], match[2]


def write(into: IO[bytes]) -> None:
    """Write the build context as a tar, with the paths of a checkout."""
    with tarfile.open(fileobj=into, mode="w") as tar:
        roots = {"docker": path_of("docker"), "src/codeforge/guest": guest_dir()}
        for name, root in roots.items():
            for path in _regular_files(root):
                info = tar.gettarinfo(path, f"{name}/{path.relative_to(root)}")
                # The same contents give the same layers, independent of who checked them out and when.
                info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
                info.mode = 0o755 if path.suffix == ".sh" else 0o644
                tar.addfile(info, io.BytesIO(path.read_bytes()))


def _regular_files(root: Path) -> Iterator[Path]:
    return (p for p in sorted(root.rglob("*")) if p.is_file() and not is_left_by_a_build(p.relative_to(root)))
