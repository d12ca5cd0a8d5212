"""What is in an image: a list of its packages, read from ``docker save``, and that list as CycloneDX.

Nothing of the image is run or written to disk. The archive is read once, front to back, so it may be
a pipe; what is kept is small whatever the image holds, and an archive that would need more is refused.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol
from uuid import NAMESPACE_OID, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot5
from packageurl import PackageURL

from codeforge.errors import HostFailure

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_STATUS_BYTES = 8 << 20
"""Longest package database of dpkg that is read."""
MAX_METADATA_BYTES = 1 << 20
"""Longest other file that is read, and longest manifest or configuration of an image."""
MAX_PACKAGES = 20_000
MAX_NAMES_BYTES = 128 << 20
"""How much memory all file names of an image may take, at 100 bytes besides each name's own length."""
MAX_DOCUMENTS_BYTES = 16 << 20
"""How long all manifests and configurations of an archive may be together."""

_log = logging.getLogger(__name__)
_CPE = {"node": "nodejs:node.js", "python": "python:python"}
_ENV = {"node": "NODE_VERSION", "python": "PYTHON_VERSION"}
_NO_DATA = b"123456"
"""Types of tar members that are no more than a header: links, devices, directories, pipes."""


class UnreadableImage(HostFailure):
    """An image's archive is damaged, not what ``docker save`` writes, or larger than is read."""

    exit_code = 65


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package.

    Attributes:
        kind: type of its package URL; ``generic`` is a language's runtime built from source.
        name: as its ecosystem writes it; Python's in normal form, npm's with the scope.
        arch: Debian's name of the architecture, for ``deb``.
        source: name of the source package, for ``deb``.
        source_version: version of the source package, for ``deb``.
        distro: distribution and release such as ``debian-12``, for ``deb``; empty if not known.
    """

    kind: Literal["deb", "pypi", "npm", "generic"]
    name: str
    version: str
    arch: str = ""
    source: str = ""
    source_version: str = ""
    distro: str = ""

    @property
    def purl(self) -> str:
        """The package URL, in canonical form."""
        scope, _, name = self.name.rpartition("/") if self.kind == "npm" else ("", "", self.name)
        qualifiers = {}
        if self.kind == "deb":
            scope = self.distro.partition("-")[0] or "debian"
            same = (self.source, self.source_version) == (self.name, self.version)
            upstream = "" if same else f"{self.source}@{self.source_version}"
            qualifiers = {"arch": self.arch, "distro": self.distro, "upstream": upstream}
        return PackageURL(self.kind, scope or None, name, self.version, qualifiers).to_string()


class _Stream(Protocol):
    """What is read from: ``read`` gives fewer bytes than asked for only at the end."""

    def read(self, size: int, /) -> bytes: ...


class _Body(io.RawIOBase):
    """The next ``left`` bytes of a stream, as a stream."""

    def __init__(self, stream: _Stream, left: int) -> None:
        self._stream = stream
        self.left = left

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what fits into ``buffer``; 0 bytes at the end."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(min(len(view), self.left))
        view[: len(data)] = data
        self.left -= len(data)
        return len(data)


def _members(stream: _Stream) -> Iterator[tuple[tarfile.TarInfo, io.BufferedReader[_Body]]]:
    """Each member of a tar, with its bytes; ``tarfile`` would hold names and headers of any length."""
    extra: dict[str, str] = {}
    while (block := stream.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        special = info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if not special and info.type != tarfile.XGLTYPE:
            info.name = extra.get("path", info.name)
            info.linkname = extra.get("linkpath", info.linkname)
            info.size = 0 if info.type in _NO_DATA else int(extra.get("size", info.size))
        if info.size < 0:
            raise UnreadableImage(f"{info.name!r} has a negative size")
        raw = _Body(stream, info.size)
        body = io.BufferedReader(raw, 1 << 16)
        if special:
            extra |= _extended(info.type, _bounded(body, MAX_METADATA_BYTES, "a tar header"))
        elif info.type != tarfile.XGLTYPE:
            extra = {}
            yield info, body
        while body.read(1 << 20):
            pass
        padding = -info.size % tarfile.BLOCKSIZE
        if raw.left or len(stream.read(padding)) != padding:
            raise UnreadableImage(f"the archive ends within {info.name!r}")


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """What a tar's extension header says about the next member."""
    if kind != tarfile.XHDTYPE:
        key = "path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {key: data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    values = {}
    start = 0
    while start < len(data):
        length = int(data[start : start + 20].partition(b" ")[0])
        record = data[start : start + length].partition(b" ")[2]
        if length < 5 or not record.endswith(b"\n"):
            raise UnreadableImage("a tar header is malformed")
        key, _, value = record[:-1].decode("utf-8", "surrogateescape").partition("=")
        values[key] = value
        start += length
    return values


def _bounded(body: _Stream, limit: int, what: str) -> bytes:
    data = body.read(limit + 1)
    if len(data) > limit:
        raise UnreadableImage(f"{what} is longer than {limit} bytes")
    return data


def _sane(path: str, name: object, *versions: object) -> bool:
    """Whether these can be a package's name and version; logs where they cannot."""
    values = (name, *versions)
    sane = all(isinstance(v, str) and 0 < len(v) <= 256 and v.isprintable() and " " not in v for v in values)
    if not (sane and re.fullmatch(r"(@[^/]+/)?[^/@]+", str(name))):
        _log.warning("no usable name and version in %r", path)
        return False
    return True


def _fields(block: str) -> dict[str, str]:
    """The one-line fields of a paragraph like dpkg's, names in lower case."""
    pairs = (line.partition(":") for line in block.splitlines() if line[:1] not in ("", " ", "\t"))
    return {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _dpkg(path: str, body: _Stream) -> list[Package]:
    found = []
    text = _bounded(body, MAX_STATUS_BYTES, path).decode("utf-8", "replace")
    for block in text.split("\n\n"):
        row = _fields(block)
        state = row.get("status", "ok installed").split()[-1:]
        if not row or state in (["config-files"], ["not-installed"]):
            continue
        name, version = row.get("package", ""), row.get("version", "")
        source, _, built = row.get("source", name).partition(" ")
        source_version = built.strip(" ()") or version
        if _sane(path, name, version, source, source_version):
            arch = row.get("architecture", "")
            found.append(Package("deb", name, version, arch, source, source_version))
    return found


def _os_release(path: str, body: _Stream) -> list[Package]:
    """The distribution, dressed as a package until all layers have been seen."""
    text = _bounded(body, MAX_METADATA_BYTES, path).decode("utf-8", "replace")
    pairs = (line.partition("=") for line in text.splitlines())
    values = {key: value.strip().strip("\"'") for key, _, value in pairs}
    name, version = values.get("ID", ""), values.get("VERSION_ID", "")
    known = re.fullmatch(r"[a-z0-9._]+", name) and re.fullmatch(r"[A-Za-z0-9._~-]*", version)
    return [Package("generic", name, version)] if known else []


def _wheel(path: str, body: _Stream) -> list[Package]:
    # The fields come first, the description after an empty line may be of any length.
    head = body.read(MAX_METADATA_BYTES).decode("utf-8", "replace")
    row = _fields(re.split(r"\r?\n\r?\n", head, maxsplit=1)[0])
    name, version = row.get("name", ""), row.get("version", "")
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return [Package("pypi", plain, version)] if _sane(path, name, version) else []


def _npm(path: str, body: _Stream) -> list[Package]:
    data = _bounded(body, MAX_METADATA_BYTES, path)
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        row = None
    name, version = (row.get("name"), row.get("version")) if isinstance(row, dict) else (None, None)
    return [Package("npm", str(name), str(version))] if _sane(path, name, version) else []


def _runtime(name: str, body: _Stream, pattern: bytes) -> list[Package]:
    """A runtime whose program says its version in one way only; the version is empty where not."""
    versions: set[bytes] = set()
    tail = b""
    while len(versions) < 2 and (chunk := body.read(1 << 20)):
        versions.update(re.findall(pattern, tail + chunk))
        tail = chunk[-64:]
    return [Package("generic", name, versions.pop().decode() if len(versions) == 1 else "")]


def _node(_path: str, body: _Stream) -> list[Package]:
    return _runtime("node", body, rb"node\.js/v(\d+\.\d+\.\d+)[^\d.]")


def _python(path: str, body: _Stream) -> list[Package]:
    minor = path.partition("python")[2].removesuffix(".so.1.0").encode()
    return _runtime("python", body, rb"\0(" + re.escape(minor) + rb"\.\d+(?:(?:a|b|rc)\d+)?)\+?\0")


_READERS: tuple[tuple[re.Pattern[str], Callable[[str, _Stream], list[Package]]], ...] = (
    (re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))"), _dpkg),
    (re.compile(r"(etc|usr/lib)/os-release"), _os_release),
    (re.compile(r"(.*/)?(site|dist)-packages/[^/]+\.dist-info/METADATA"), _wheel),
    (re.compile(r"(.*/)?node_modules/(@[^/]+/)?[^/@.][^/]*/package\.json"), _npm),
    (re.compile(r"usr/local/bin/node"), _node),
    (re.compile(r"usr/local/(bin/python3\.\d+|lib/libpython3\.\d+\.so\.1\.0)"), _python),
)


@dataclass(slots=True)
class _Layer:
    """What one layer says: packages by path, and the paths that hide what lower layers have there."""

    found: dict[str, list[Package]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def hides(self, path: str) -> bool:
        """Whether a file of a lower layer is gone: itself, or a directory it is in."""
        while path not in self.hidden:
            if not path:
                return False
            path = posixpath.dirname(path)
            if path in self.opaque:
                return True
        return True


def _normal(name: str) -> str:
    if len(name) > 4096:
        raise UnreadableImage("a file's name is longer than 4096 characters")
    return posixpath.normpath("/" + name.lstrip("/"))[1:]


class _Archive:
    """The layers and documents of one ``docker save``."""

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

    def read(self, stream: _Stream) -> None:
        """Take in the whole archive; a layer is known by its first bytes, whatever its name."""
        for info, body in _members(stream):
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

    def _document(self, name: str, size: int, body: _Stream) -> None:
        if size > MAX_METADATA_BYTES:  # an attestation perhaps; if it is needed it will be missed
            return
        self._documents_left -= size
        if self._documents_left < 0:
            raise UnreadableImage(f"manifests are longer than {MAX_DOCUMENTS_BYTES} bytes")
        self._documents[name] = body.read(size)

    def _layer(self, stream: _Stream) -> _Layer:
        layer = _Layer()
        for info, body in _members(stream):
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

    def _file(self, layer: _Layer, path: str, info: tarfile.TarInfo, body: _Stream) -> None:
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
        """The names of the layers, lowest first, and of the configuration."""
        if "manifest.json" in self._documents:
            (image,) = self._json("manifest.json")
            return list(image["Layers"] or ()), image["Config"]
        document = self._json("index.json")
        for _ in range(4):
            if "manifests" in document:
                kind = "vnd.docker.reference.type"
                (child,) = (m for m in document["manifests"] if kind not in m.get("annotations", {}))
                document = self._json(_blob(child))
        return [_blob(layer) for layer in document["layers"]], _blob(document["config"])

    def contents(self) -> tuple[dict[str, list[Package]], dict[str, str]]:
        """The packages by path as the layers together have them, and the environment."""
        try:
            names, config_name = self._layout()
            env = self._json(self._target(config_name)).get("config", {}).get("Env") or ()
            variables = dict(str(entry).partition("=")[::2] for entry in env)
            layers = [self._layers[self._target(_normal(name))] for name in names]
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UnreadableImage(f"its manifest and what lies beside it do not fit: {error!r}") from error
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
    """Fill in what no file says alone: Debian's release, and versions of runtimes that hide theirs."""
    fallback = found.pop("usr/lib/os-release", [])
    release = found.pop("etc/os-release", []) or fallback
    distro = f"{release[0].name}-{release[0].version}".rstrip("-") if release else ""
    rows = [package for packages in found.values() for package in packages]
    told = {package.name for package in rows if package.kind == "generic" and package.version}
    for package in rows:
        if package.kind == "deb":
            yield replace(package, distro=distro)
        elif package.version:
            yield package
        elif package.name not in told:
            version = env.get(_ENV[package.name], "")
            if re.fullmatch(r"\d+\.\d+\.\d+\w*", version):
                yield replace(package, version=version)
            else:
                _log.warning("%s is in the image, its version is not known", package.name)


def read_packages(archive: IO[bytes]) -> list[Package]:
    """The packages in an image: Debian's, Python's, npm's, and node and python built from source.

    Args:
        archive: what ``docker save IMAGE`` writes, in either layout; read once, need not seek.

    Returns:
        Each package once, sorted. What has no usable name and version is left out and logged.

    Raises:
        UnreadableImage: it is damaged, holds not exactly one image, or exceeds the limits above.
    """
    image = _Archive()
    try:
        image.read(io.BufferedReader(_Body(archive, sys.maxsize), 1 << 16))
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise UnreadableImage(f"not an image's archive, or a damaged one: {error}") from error
    return sorted(set(_finish(*image.contents())))


def _component(package: Package) -> Component:
    """A package as CycloneDX, with what scanners need besides: its source package, its CPE."""
    group, _, name = package.name.rpartition("/") if package.kind == "npm" else ("", "", package.name)
    properties = []
    if package.kind == "deb":
        epoch, _, rest = package.source_version.rpartition(":")
        version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
        values = {"Name": package.source, "Epoch": epoch, "Version": version, "Release": release}
        properties = [Property(name=f"aquasecurity:trivy:Src{k}", value=v) for k, v in values.items() if v]
    cpe = _CPE.get(package.name) if package.kind == "generic" else None
    return Component(
        type=ComponentType.APPLICATION if package.kind == "generic" else ComponentType.LIBRARY,
        group=group or None,
        name=name,
        version=package.version,
        purl=PackageURL.from_string(package.purl),
        bom_ref=package.purl,
        cpe=f"cpe:2.3:a:{cpe}:{package.version}:*:*:*:*:*:*:*" if cpe else None,
        properties=properties,
    )


def _systems(packages: Iterable[Package]) -> list[Component]:
    """The distribution, which scanners need to know which advisories hold."""
    names = sorted({package.distro for package in packages if package.distro})
    pairs = (name.partition("-") for name in names)
    system = ComponentType.OPERATING_SYSTEM
    return [Component(type=system, name=n, version=v or None, bom_ref=f"os:{n}-{v}") for n, _, v in pairs]


def to_cyclonedx(packages: Sequence[Package], image: str, image_id: str, created: datetime) -> str:
    """A software bill of materials: CycloneDX 1.5 in JSON, the same for the same arguments.

    Args:
        packages: what ``read_packages`` found.
        image: the image's reference, such as ``ai-codeforge-python:latest``.
        image_id: its digest, ``sha256:...``.
        created: when the list was made, with a time zone.
    """
    root = Component(type=ComponentType.CONTAINER, name=image, version=image_id, bom_ref=f"image:{image_id}")
    components = [*_systems(packages), *(_component(package) for package in packages)]
    bom = Bom(components=components, serial_number=uuid5(NAMESPACE_OID, f"{image_id} {created.isoformat()}"))
    bom.metadata.component = root
    bom.metadata.timestamp = created
    bom.register_dependency(root, components)
    return JsonV1Dot5(bom).output_as_string(indent=2)
