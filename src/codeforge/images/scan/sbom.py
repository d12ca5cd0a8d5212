"""The packages of an image, and their bill of materials in CycloneDX form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import NAMESPACE_OID, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot5
from packageurl import PackageURL

_CPE = {"node": "nodejs:node.js", "python": "python:python"}


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package.

    Attributes:
        kind: the type of its package URL; ``generic`` is an interpreter that was built from source.
        name: as its ecosystem writes it: Python's in normal form, npm's with the scope.
        arch: Debian's name for the architecture, for ``deb``.
        source: name of the source package, for ``deb``.
        source_version: version of the source package, for ``deb``.
        distro: the distribution and its release such as ``debian-12``, for ``deb``; empty if unknown.
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


def _component(package: Package) -> Component:
    """Return a package as CycloneDX, with what scanners match by: its source package and its CPE."""
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
    """Return the distribution. It tells scanners which advisories apply."""
    names = sorted({package.distro for package in packages if package.distro})
    pairs = (name.partition("-") for name in names)
    system = ComponentType.OPERATING_SYSTEM
    return [Component(type=system, name=n, version=v or None, bom_ref=f"os:{n}-{v}") for n, _, v in pairs]


def to_cyclonedx(packages: Sequence[Package], image: str, image_id: str, created: datetime) -> str:
    """Return a software bill of materials: CycloneDX 1.5 in JSON, the same for the same arguments.

    Args:
        packages: what ``inventory.read_packages`` found.
        image: the image's reference, such as ``ai-codeforge-python:latest``.
        image_id: the image's digest, ``sha256:...``.
        created: when the bill was made, with a time zone.
    """
    root = Component(type=ComponentType.CONTAINER, name=image, version=image_id, bom_ref=f"image:{image_id}")
    components = [*_systems(packages), *(_component(package) for package in packages)]
    bom = Bom(components=components, serial_number=uuid5(NAMESPACE_OID, f"{image_id} {created.isoformat()}"))
    bom.metadata.component = root
    bom.metadata.timestamp = created
    bom.register_dependency(root, components)
    return JsonV1Dot5(bom).output_as_string(indent=2)
