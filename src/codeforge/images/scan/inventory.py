"""Finds the packages of an image in the archive that ``docker save`` writes.

Nothing from the image is run or written to disk. The archive is read once, front to back, so it may be a
pipe. Memory is bounded whatever the image holds: an archive that would need more is refused.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import posixpath
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

from codeforge.images.scan.sbom import Package
from codeforge.images.scan.tar_stream import Body, Stream, UnreadableImage, bounded, members

MAX_STATUS_BYTES = 8 << 20
"""Longest dpkg status file that is read."""
MAX_METADATA_BYTES = 1 << 20
"""Longest other file, image manifest or image configuration that is read."""
MAX_PACKAGES = 20_000
MAX_NAME_LENGTH = 4096
MAX_NAMES_BYTES = 128 << 20
"""How much memory the file names of an image may take: each its length and 100 bytes."""
MAX_DOCUMENTS_BYTES = 16 << 20
"""Total length of all manifests and configurations in an archive."""

_log = logging.getLogger(__name__)
_ENV = {"node": "NODE_VERSION", "python": "PYTHON_VERSION"}


def _usable(path: str, name: object, *versions: object) -> bool:
    """Return whether these can be the name and version of a package. Log it if they cannot."""
    values = (name, *versions)
    sane = all(isinstance(v, str) and 0 < len(v) <= 256 and v.isprintable() and " " not in v for v in values)
    if sane and re.fullmatch(r"(@[^/]+/)?[^/@]+", str(name)):
        return True
    _log.warning("no usable name and version in %r", path)
    return False


def _fields(block: str) -> dict[str, str]:
    """Return the one-line fields of a paragraph in dpkg's format, with names in lower case."""
    pairs = (line.partition(":") for line in block.splitlines() if line[:1] not in ("", " ", "\t"))
    return {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _dpkg(path: str, body: Stream) -> list[Package]:
    found = []
    text = bounded(body, MAX_STATUS_BYTES, path).decode("utf-8", "replace")
    for block in text.split("\n\n"):
        row = _fields(block)
        state = row.get("status", "ok installed").split()[-1:]
        if not row or state in (["config-files"], ["not-installed"]):
            continue
        name, version = row.get("package", ""), row.get("version", "")
        source, _, built = row.get("source", name).partition(" ")
        source_version = built.strip(" ()") or version
        if _usable(path, name, version, source, source_version):
            arch = row.get("architecture", "")
            found.append(Package("deb", name, version, arch, source, source_version))
    return found


def _os_release(path: str, body: Stream) -> list[Package]:
    """Return the distribution as if it were a package: a later layer may replace the file."""
    text = bounded(body, MAX_METADATA_BYTES, path).decode("utf-8", "replace")
    pairs = (line.partition("=") for line in text.splitlines())
    values = {key: value.strip().strip("\"'") for key, _, value in pairs}
    name, version = values.get("ID", ""), values.get("VERSION_ID", "")
    known = re.fullmatch(r"[a-z0-9._]+", name) and re.fullmatch(r"[A-Za-z0-9._~-]*", version)
    return [Package("generic", name, version)] if known else []


def _wheel(path: str, body: Stream) -> list[Package]:
    # The fields come first. The description, after an empty line, may have any length.
    head = body.read(MAX_METADATA_BYTES).decode("utf-8", "replace")
    row = _fields(re.split(r"\r?\n\r?\n", head, maxsplit=1)[0])
    name, version = row.get("name", ""), row.get("version", "")
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return [Package("pypi", plain, version)] if _usable(path, name, version) else []


def _npm(path: str, body: Stream) -> list[Package]:
    data = bounded(body, MAX_METADATA_BYTES, path)
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        row = None
    name, version = (row.get("name"), row.get("version")) if isinstance(row, dict) else (None, None)
    return [Package("npm", str(name), str(version))] if _usable(path, name, version) else []


def _runtime(name: str, body: Stream, pattern: bytes) -> list[Package]:
    """Find an interpreter's version in its binary; empty unless there is exactly one match."""
    versions: set[bytes] = set()
    tail = b""
    while len(versions) < 2 and (chunk := body.read(1 << 20)):
        versions.update(re.findall(pattern, tail + chunk))
        tail = chunk[-64:]
    return [Package("generic", name, versions.pop().decode() if len(versions) == 1 else "")]


def _node(_path: str, body: Stream) -> list[Package]:
    return _runtime("node", body, rb"node\.js/v(\d+\.\d+\.\d+)[^\d.]")


def _python(path: str, body: Stream) -> list[Package]:
    minor = path.partition("python")[2].removesuffix(".so.1.0").encode()
    return _runtime("python", body, rb"\0(" + re.escape(minor) + rb"\.\d+(?:(?:a|b|rc)\d+)?)\+?\0")


_READERS: tuple[tuple[re.Pattern[str], Callable[[str, Stream], list[Package]]], ...] = (
    (re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))"), _dpkg),
    (re.compile(r"(etc|usr/lib)/os-release"), _os_release),
    (re.compile(r"(.*/)?(site|dist)-packages/[^/]+\.dist-info/METADATA"), _wheel),
    (re.compile(r"(.*/)?node_modules/(@[^/]+/)?[^/@.][^/]*/package\.json"), _npm),
    (re.compile(r"usr/local/bin/node"), _node),
    (re.compile(r"usr/local/(bin/python3\.\d+|lib/libpython3\.\d+\.so\.1\.0)"), _python),
)


@dataclass(slots=True)
class _Layer:
    """One layer: its packages by path, and the paths that it hides in lower layers."""

    found: dict[str, list[Package]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def hides(self, path: str) -> bool:
        """Return whether this layer hides a lower layer's file, or a directory that the file is in."""
        while path not in self.hidden:
            if not path:
                return False
            path = posixpath.dirname(path)
            if path in self.opaque:
                return True
        return True


def _normal(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        raise UnreadableImage(f"a file's name is longer than {MAX_NAME_LENGTH} characters")
    return posixpath.normpath("/" + name.lstrip("/"))[1:]


class _Archive:
    """The layers and JSON documents in one archive of ``docker save``."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._documents: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._names_left = MAX_NAMES_BYTES
        self._documents_left = MAX_DOCUMENTS_BYTES
        self._packages_left = MAX_PACKAGES

    def _name(self, name: str) -> str:
        path = _normal(name)
        self._names_left -= len(path) + 100
        if self._names_left < 0:
            raise UnreadableImage(f"file names take more than {MAX_NAMES_BYTES} bytes")
        return path

    def read(self, stream: Stream) -> None:
        """Read the whole archive. Layers have any name; their first bytes identify them."""
        for info, body in members(stream):
            name = self._name(info.name)
            head = body.peek(tarfile.BLOCKSIZE)[: tarfile.BLOCKSIZE]
            if info.issym() or info.islnk():
                folder = posixpath.dirname(name) if info.issym() else ""
                self._links[name] = _normal(f"{folder}/{info.linkname}")
            elif head.startswith(b"\x1f\x8b"):
                self._layers[name] = self._layer(gzip.GzipFile(fileobj=body))
            elif head[257:262] == b"ustar" or (head and not head.strip(b"\0")):
                self._layers[name] = self._layer(body)
            elif name.endswith(".json") or (name.startswith("blobs/") and head.startswith((b"{", b"["))):
                self._document(name, info.size, body)

    def _document(self, name: str, size: int, body: Stream) -> None:
        if size > MAX_METADATA_BYTES:  # perhaps an attestation; if it is needed, _layout raises
            return
        self._documents_left -= size
        if self._documents_left < 0:
            raise UnreadableImage(f"manifests are longer than {MAX_DOCUMENTS_BYTES} bytes")
        self._documents[name] = body.read(size)

    def _layer(self, stream: Stream) -> _Layer:
        layer = _Layer()
        for info, body in members(stream):
            path = self._name(info.name)
            folder, base = posixpath.split(path)
            if base == ".wh..wh..opq":
                layer.opaque.add(folder)
            elif base.startswith(".wh."):
                layer.hidden.add(posixpath.join(folder, base[4:]))
            elif not info.isdir():
                layer.hidden.add(path)
                layer.found.pop(path, None)
                self._file(layer, path, info, body)
        return layer

    def _file(self, layer: _Layer, path: str, info: tarfile.TarInfo, body: Stream) -> None:
        reader = next((read for pattern, read in _READERS if pattern.fullmatch(path)), None)
        if reader is None or not (info.isreg() or info.islnk()):
            return
        if info.islnk():
            packages = layer.found.get(_normal(info.linkname))
            if packages is None:
                raise UnreadableImage(f"{path!r} is a link to {info.linkname!r}, which was not read")
        else:
            packages = reader(path, body)
        self._packages_left -= len(packages)
        if self._packages_left < 0:
            raise UnreadableImage(f"more than {MAX_PACKAGES} packages")
        layer.found[path] = packages

    def _json(self, name: str) -> Any:
        return json.loads(self._documents[name])

    def _layout(self) -> tuple[list[str], str]:
        """Return the names of the layers, lowest first, and the name of the configuration."""
        if "manifest.json" in self._documents:
            (image,) = self._json("manifest.json")
            return list(image["Layers"] or ()), image["Config"]
        document = self._json("index.json")
        kind = "vnd.docker.reference.type"  # attestations have this annotation, images do not
        for _ in range(4):  # an index may point to another index
            if "manifests" in document:
                (child,) = (m for m in document["manifests"] if kind not in m.get("annotations", {}))
                document = self._json(_blob(child))
        return [_blob(layer) for layer in document["layers"]], _blob(document["config"])

    def contents(self) -> tuple[dict[str, list[Package]], dict[str, str]]:
        """Return the packages by path after all layers are applied, and the image's environment."""
        try:
            names, config_name = self._layout()
            env = self._json(self._target(config_name)).get("config", {}).get("Env") or ()
            variables = dict(str(entry).partition("=")[::2] for entry in env)
            layers = [self._layers[self._target(_normal(name))] for name in names]
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UnreadableImage(
                f"the manifest does not match the rest of the archive: {error!r}"
            ) from error
        found: dict[str, list[Package]] = {}
        for layer in layers:
            found = {path: rows for path, rows in found.items() if not layer.hides(path)} | layer.found
        return found, variables

    def _target(self, name: str) -> str:
        for _ in range(8):
            name = self._links.get(name, name)
        return name


def _blob(descriptor: Any) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _finish(found: dict[str, list[Package]], env: dict[str, str]) -> Iterator[Package]:
    """Add what no single file says: Debian's release, and the versions of interpreters that hide theirs."""
    fallback = found.pop("usr/lib/os-release", [])
    release = found.pop("etc/os-release", []) or fallback
    distro = f"{release[0].name}-{release[0].version}".rstrip("-") if release else ""
    rows = [package for packages in found.values() for package in packages]
    known = {package.name for package in rows if package.kind == "generic" and package.version}
    for package in rows:
        if package.kind == "deb":
            yield replace(package, distro=distro)
        elif package.version:
            yield package
        elif package.name not in known:
            version = env.get(_ENV[package.name], "")
            if re.fullmatch(r"\d+\.\d+\.\d+\w*", version):
                yield replace(package, version=version)
            else:
                _log.warning("%s is in the image, but its version is unknown", package.name)


def read_packages(archive: IO[bytes]) -> list[Package]:
    """Return the packages in an image: Debian's, Python's, npm's, and node and python built from source.

    Args:
        archive: what ``docker save IMAGE`` writes, in either layout. It is read once, front to back.

    Returns:
        Each package once, sorted. Packages without a usable name and version are left out and logged.

    Raises:
        UnreadableImage: it is damaged, does not hold exactly one image, or exceeds a bound above.
    """
    image = _Archive()
    try:
        image.read(io.BufferedReader(Body(archive, sys.maxsize), 1 << 16))
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise UnreadableImage(f"not the archive of an image, or damaged: {error}") from error
    return sorted(set(_finish(*image.contents())))
