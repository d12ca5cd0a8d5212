"""The packages of an image: both layouts of archives, layers that hide each other, and hostile files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import tarfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings, strategies as st

from codeforge.errors import HostFailure
from codeforge.images.scan import inventory as image_archive
from codeforge.images.scan.inventory import read_packages
from codeforge.images.scan.sbom import Package, to_cyclonedx
from codeforge.images.scan.tar_stream import UnreadableImage

Entry = tuple[str, bytes | tarfile.TarInfo]

STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
Description: a
 Version: 9.9
 libc

Package: bash
Status: install ok installed
Architecture: amd64
Source: bash (5.2.15-2)
Version: 5.2.15-2+b13

Package: gone
Status: deinstall ok config-files
Version: 1

"""
OS_RELEASE = b'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n'
WHEEL = "usr/local/lib/python3.11/site-packages/{}.dist-info/METADATA"
LIBC = Package("deb", "libc6", "2.36-9", "amd64", "glibc", "2.36-9", "debian-12")


def wheel(name: str, version: str) -> tuple[str, bytes]:
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 0\n"
    return WHEEL.format(f"{name}-{version}"), text.encode()


def npm(name: str, version: str, under: str = "") -> Entry:
    return f"{under}node_modules/{name}/package.json", json.dumps({"name": name, "version": version}).encode()


def link(name: str, kind: bytes, target: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def tar(entries: Sequence[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for name, content in entries:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def config(env: Sequence[str] = ()) -> bytes:
    return json.dumps({"config": {"Env": list(env)}}).encode()


def legacy(*layers: Sequence[Entry], env: Sequence[str] = ()) -> bytes:
    """Return an archive as engines before 25 write it, with layers in an order that is not their folders'."""
    names = [f"{9 - i}/layer.tar" for i in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["x:latest"], "Layers": names}]
    entries: list[Entry] = [(name, tar(layer)) for name, layer in zip(names, layers, strict=True)]
    entries += [("9/VERSION", b"1.0"), ("9/json", b"{}"), ("c.json", config(env))]
    manifest_file = ("manifest.json", json.dumps(manifest).encode())
    return tar([*sorted(entries, key=lambda entry: entry[0]), manifest_file])


def oci(*layers: Sequence[Entry], packed: bool = False, manifest: bool = True, nested: bool = False) -> bytes:
    blobs: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, str]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}"}

    parts = [blob(gzip.compress(tar(layer), 1) if packed else tar(layer)) for layer in layers]
    configuration = blob(config())
    top = blob(json.dumps({"config": configuration, "layers": parts}).encode())
    attestation = {
        **blob(b'{"layers": []}'),
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    index = json.dumps({"manifests": [top, attestation]}).encode()
    if nested:
        index = json.dumps({"manifests": [blob(index)]}).encode()
    entries: list[Entry] = [*blobs.items(), ("index.json", index), ("oci-layout", b"{}")]
    if manifest:
        names = ["blobs/" + part["digest"].replace(":", "/") for part in parts]
        row = {"Config": "blobs/" + configuration["digest"].replace(":", "/"), "Layers": names}
        entries.append(("manifest.json", json.dumps([row]).encode()))
    return tar(entries)


def read(archive: bytes) -> list[Package]:
    return read_packages(io.BytesIO(archive))


def names(archive: bytes) -> set[str]:
    return {f"{package.name}@{package.version}" for package in read(archive)}


BASE: list[Entry] = [
    ("var/lib/dpkg/status", STATUS),
    ("usr/lib/os-release", OS_RELEASE),
    link("etc/os-release", tarfile.SYMTYPE, "../usr/lib/os-release"),
    wheel("Jinja2", "3.1"),
    npm("lodash", "4.18.1"),
]
EXPECTED = {"libc6@2.36-9", "bash@5.2.15-2+b13", "jinja2@3.1", "lodash@4.18.1"}


@pytest.mark.parametrize(
    "archive",
    [
        legacy(BASE),
        oci(BASE),
        oci(BASE, packed=True),
        oci(BASE, packed=True, manifest=False),
        oci(BASE, manifest=False, nested=True),
        legacy(BASE[:2], BASE[2:]),
        legacy([(f"./{name}", content) for name, content in BASE[:2]], BASE[2:]),
        legacy([(f"/{name}", content) for name, content in BASE[:2]], BASE[2:]),
    ],
)
def test_each_layout_gives_the_same(archive: bytes) -> None:
    packages = read(archive)
    assert {f"{p.name}@{p.version}" for p in packages} == EXPECTED
    assert LIBC in packages
    assert Package("deb", "bash", "5.2.15-2+b13", "amd64", "bash", "5.2.15-2", "debian-12") in packages


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_each_tar_format(form: int) -> None:
    under = "/".join(["d" * 60] * (3 if form == tarfile.USTAR_FORMAT else 40)) + "/"
    layer = tar([npm("deep", "1.0.0", under), link("l", tarfile.SYMTYPE, "t" * 90)], form)
    manifest = json.dumps([{"Config": "c.json", "Layers": ["a/layer.tar"]}]).encode()
    assert names(tar([("a/layer.tar", layer), ("c.json", config()), ("manifest.json", manifest)], form)) == {
        "deep@1.0.0"
    }


def test_purls() -> None:
    assert LIBC.purl == "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc%402.36-9"
    assert Package("npm", "@babel/core", "7.0.0").purl == "pkg:npm/%40babel/core@7.0.0"
    assert Package("pypi", "jinja2", "3.1").purl == "pkg:pypi/jinja2@3.1"


def test_distroless_status_directory() -> None:
    block = b"Package: libc6\nVersion: 1\nArchitecture: amd64\n"
    layer = [
        ("var/lib/dpkg/status.d/libc6", block),
        ("var/lib/dpkg/status.d/libc6.md5sums", b"Package: x\nVersion: 1\n"),
    ]
    assert names(legacy(layer)) == {"libc6@1"}
    assert read(legacy(layer))[0].distro == ""


@pytest.mark.parametrize(
    ("later", "left"),
    [
        ([(".wh.node_modules", b"")], EXPECTED - {"lodash@4.18.1"}),
        ([("node_modules/.wh.lodash", b"")], EXPECTED - {"lodash@4.18.1"}),
        ([("node_modules/lodash/.wh.package.json", b"")], EXPECTED - {"lodash@4.18.1"}),
        (
            [("node_modules/.wh..wh..opq", b""), npm("left", "1.0.0")],
            (EXPECTED - {"lodash@4.18.1"}) | {"left@1.0.0"},
        ),
        ([npm("lodash", "5.0.0")], (EXPECTED - {"lodash@4.18.1"}) | {"lodash@5.0.0"}),
        ([link("node_modules", tarfile.SYMTYPE, "/opt")], EXPECTED - {"lodash@4.18.1"}),
        ([("node_modules", b"a file now")], EXPECTED - {"lodash@4.18.1"}),
        ([("var/lib/dpkg/status", b"")], {"jinja2@3.1", "lodash@4.18.1"}),
        ([(".wh..wh..opq", b"")], set()),
        ([(".wh..wh.plnk", b""), ("node_modules/.wh.lodas", b"")], EXPECTED),
    ],
)
def test_later_layers_hide_earlier_ones(later: list[Entry], left: set[str]) -> None:
    assert names(legacy(BASE, later)) == left
    assert names(oci(BASE, later, packed=True)) == left
    assert names(legacy(later, BASE)) >= EXPECTED  # and never the other way round


def test_a_layer_that_is_a_link_to_another() -> None:
    entries: list[Entry] = [
        ("a/layer.tar", tar(BASE)),
        link("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar"),
        ("c.json", config()),
        ("manifest.json", b'[{"Config": "c.json", "Layers": ["b/layer.tar"]}]'),
    ]
    assert names(tar(entries)) == EXPECTED


def test_hard_links() -> None:
    name, content = npm("lodash", "4.18.1")
    linked = link(f"srv/{name}", tarfile.LNKTYPE, f"./{name}")
    assert names(legacy([(name, content), linked, (".wh.node_modules", b"")])) == {"lodash@4.18.1"}
    with pytest.raises(UnreadableImage, match="which was not read"):
        read(legacy([("store/abc", content), link(name, tarfile.LNKTYPE, "store/abc")]))


@pytest.mark.parametrize(
    "path",
    [
        "node_modules/a/lib/package.json",
        "a/package.json",
        "node_modules/@s/package.json",
        "node_modules/.x/package.json",
    ],
)
def test_only_the_root_of_an_npm_package_counts(path: str) -> None:
    assert names(legacy([(path, b'{"name": "a", "version": "1.0.0"}')])) == set()


def test_scoped_and_nested_npm_packages() -> None:
    layer = [
        npm("@babel/core", "7.0.0", "a/node_modules/b/"),
        npm("x", "1.0.0", "node_modules/.pnpm/x@1.0.0/"),
    ]
    assert names(legacy(layer)) == {"@babel/core@7.0.0", "x@1.0.0"}


NODE = b"\x7fELF" + b"x" * (1 << 20) + b"\0node.js/v18.20.8\0" + b"x" * 100
PYTHON = b"\x7fELF\0" + b"3.12.1\0" + b"y" * (1 << 20) + b"3.11.15\0"


@pytest.mark.parametrize(
    ("path", "content", "env", "found"),
    [
        ("usr/local/bin/node", NODE, (), {"node@18.20.8"}),
        ("usr/local/bin/node", b"x" * ((1 << 20) - 13) + b"node.js/v18.20.15\0", (), {"node@18.20.15"}),
        ("usr/local/bin/node", NODE, ("NODE_VERSION=1.2.3",), {"node@18.20.8"}),
        ("usr/local/bin/node", NODE + b"node.js/v20.0.0\0", ("NODE_VERSION=1.2.3",), {"node@1.2.3"}),
        ("usr/local/bin/node", b"x", ("A", "NODE_VERSION=18.20.8"), {"node@18.20.8"}),
        ("usr/local/bin/node", b"x", ("NODE_VERSION=new",), set()),
        ("usr/local/bin/node", b"x", (), set()),
        ("usr/bin/other", b"x", ("NODE_VERSION=18.20.8",), set()),
        (
            "usr/local/lib/libpython3.11.so.1.0",
            b"\0" + PYTHON.replace(b"y3", b"\x003"),
            (),
            {"python@3.11.15"},
        ),
        ("usr/local/bin/python3.11", b"small", ("PYTHON_VERSION=3.11.15",), {"python@3.11.15"}),
    ],
)
def test_runtimes_built_from_source(path: str, content: bytes, env: tuple[str, ...], found: set[str]) -> None:
    assert names(legacy([(path, content)], env=env)) == found


def test_a_runtime_from_debian_is_listed_once() -> None:
    links = [link("usr/local/bin/python3.11", tarfile.SYMTYPE, "/usr/bin/python3.11")]
    assert names(legacy(BASE, links, env=("PYTHON_VERSION=3.11.15",))) == EXPECTED


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        b'"x"',
        b"{}",
        b'{"name": 1, "version": "1"}',
        b'{"name": "a\\u001b[31m", "version": "1"}',
        b'{"name": "a", "version": ""}',
        b'{"name": "\xff", "version": "1 2"}',
        b'{"name": "a", "version": "1' + b"0" * 300 + b'"}',
        b'{"name": "\\ud800", "version": "1"}',
        b'{"name": "/", "version": "1"}',
        b'{"name": "@/x", "version": "1"}',
        b'{"name": "a/b/c", "version": "1"}',
    ],
)
def test_a_file_without_a_usable_name_is_skipped_and_logged(
    content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert names(legacy([*BASE, ("srv/node_modules/x/package.json", content)])) == EXPECTED
    assert "srv/node_modules/x/package.json" in caplog.text


def test_bad_utf8_in_other_files_is_harmless() -> None:
    path, content = wheel("plain", "1.0")
    bad = tarfile.TarInfo("caf\udce9/node_modules/x/package.json")
    layer: list[Entry] = [(path, content + b"Author: \xff\xfe\n"), (bad.name, bad)]
    layer.append(("var/lib/dpkg/status", STATUS + b"Package: \xff\nVersion: 1\n\n"))
    assert names(legacy(layer)) == {"plain@1.0", "libc6@2.36-9", "bash@5.2.15-2+b13", "\ufffd@1"} - {""}


def test_a_long_description_is_skipped_and_a_long_database_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, content = wheel("long", "1.0")
    assert names(legacy([(path, content + b"x" * (2 << 20))])) == {"long@1.0"}
    with pytest.raises(UnreadableImage, match="longer than"):
        read(legacy([("node_modules/x/package.json", b" " * (image_archive.MAX_METADATA_BYTES + 1))]))
    monkeypatch.setattr(image_archive, "MAX_STATUS_BYTES", 100)
    with pytest.raises(UnreadableImage, match="longer than 100 bytes"):
        read(legacy(BASE))


def test_bounds_on_packages_names_and_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "MAX_PACKAGES", 3)
    with pytest.raises(UnreadableImage, match="more than 3 packages"):
        read(legacy(BASE))
    monkeypatch.setattr(image_archive, "MAX_NAMES_BYTES", 500)
    with pytest.raises(UnreadableImage, match="file names"):
        read(legacy(BASE))
    monkeypatch.setattr(image_archive, "MAX_DOCUMENTS_BYTES", 10)
    with pytest.raises(UnreadableImage, match="manifests"):
        read(tar([("c.json", b"x" * 11)]))


def test_parents_in_names_stay_inside() -> None:
    assert names(legacy([("../../../../etc/../var/lib/dpkg/status", STATUS)])) == {
        "libc6@2.36-9",
        "bash@5.2.15-2+b13",
    }


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(record: bytes) -> bytes:
    return header("p", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0") + header("x", 0)


LOOP = b'{"manifests": [{"digest": "a:b"}]}'
ONE = b'[{"Config": "c.json", "Layers": ["a"]}]'


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not a tar",
        b"\xff" * 2048,
        tar([]),
        tar([("manifest.json", b"[]")]),
        tar([("manifest.json", b"{")]),
        tar([("manifest.json", b"[" * 100_000)]),
        tar([("manifest.json", b"\xff")]),
        tar([("manifest.json", b'[{"Config": "c.json", "Layers": ["no"]}]'), ("c.json", b"{}")]),
        tar([("manifest.json", b'[{"Config": "c.json", "Layers": [7]}]'), ("c.json", b"{}")]),
        tar([("manifest.json", b'[{"Config": "c.json", "Layers": 7}]'), ("c.json", b"{}")]),
        tar([("manifest.json", b'[{"Config": [], "Layers": []}]')]),
        tar([("manifest.json", b'[{"Config": "c.json", "Layers": []}]'), ("c.json", b"[]")]),
        tar([("manifest.json", b"[{}, {}]")]),
        tar([("index.json", b'{"manifests": []}')]),
        tar([("index.json", LOOP), ("blobs/a/b", LOOP)]),
        legacy(BASE)[:5000],
        header("manifest.json", 1 << 40),
        header("manifest.json", -5),
        header("l", 1 << 40, tarfile.GNUTYPE_LONGNAME) + b"x" * (2 << 20),
        header("p", 1 << 40, tarfile.XHDTYPE) + b"x" * (2 << 20),
        pax(b"0 a=b\n"),
        pax(b"-7 a=b\n"),
        pax(b"x a=b\n"),
        pax(b"99 path=b\n"),
        pax(b"10 size=x\n"),
        tar([("x" * 5000, b"")]),
        tar([("a/layer.tar", b"\x1f\x8b\x08broken"), ("manifest.json", b"[]")]),
        tar([("a/layer.tar", gzip.compress(tar(BASE))[:-20]), ("manifest.json", b"[]")]),
        tar([("a", b"\x28\xb5\x2f\xfd" + b"x" * 600), ("c.json", b"{}"), ("manifest.json", ONE)]),
        tar([link("a", tarfile.SYMTYPE, "a"), ("c.json", b"{}"), ("manifest.json", ONE)]),
    ],
)
def test_an_archive_that_is_not_an_image_is_refused(archive: bytes) -> None:
    with pytest.raises(UnreadableImage) as raised:
        read(archive)
    assert isinstance(raised.value, HostFailure)
    assert raised.value.exit_code == 65


def test_two_images_in_one_archive_are_refused() -> None:
    row = b'{"Config": "c.json", "Layers": []}'
    with pytest.raises(UnreadableImage):
        read(tar([("c.json", b"{}"), ("manifest.json", b"[" + row + b"," + row + b"]")]))


def test_an_image_without_packages() -> None:
    assert read(legacy()) == []
    assert read(legacy([("bin/sh", b"x")])) == []


def test_the_archive_need_not_seek() -> None:
    data = oci(BASE, packed=True)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as source:
            source.write(data)

    with os.fdopen(reading, "rb") as archive:
        writer = threading.Thread(target=write)
        writer.start()
        assert {f"{p.name}@{p.version}" for p in read_packages(archive)} == EXPECTED
        writer.join()


@settings(deadline=None)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    archive = bytearray(legacy([("var/lib/dpkg/status", STATUS), *BASE[3:]]))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    del archive[data.draw(st.integers(len(archive) // 2, len(archive))) :]
    try:
        packages = read(bytes(archive))
    except UnreadableImage:
        return
    assert all(package.name and package.version and package.purl for package in packages)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=5))
def test_any_names_make_a_valid_bill(pairs: list[tuple[str, str]]) -> None:
    rows = [json.dumps({"name": name, "version": version}).encode() for name, version in pairs]
    layer: list[Entry] = [(f"{i}/node_modules/x/package.json", row) for i, row in enumerate(rows)]
    packages = read(legacy([BASE[0], *layer]))
    text = to_cyclonedx(packages, "i:latest", "sha256:ab", datetime(2026, 1, 2, tzinfo=UTC))
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    assert {row["purl"] for row in json.loads(text)["components"]} == {package.purl for package in packages}


def test_cyclonedx() -> None:
    packages = [LIBC, Package("generic", "node", "18.20.8"), Package("npm", "@babel/core", "7.0.0")]
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    text = to_cyclonedx(packages, "ai-codeforge-javascript:latest", "sha256:ab", when)
    assert text == to_cyclonedx(packages, "ai-codeforge-javascript:latest", "sha256:ab", when)
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bom = json.loads(text)
    assert bom["metadata"]["component"]["name"] == "ai-codeforge-javascript:latest"
    assert bom["metadata"]["component"]["version"] == "sha256:ab"
    assert bom["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    rows = {row["name"]: row for row in bom["components"]}
    assert set(rows) == {"libc6", "node", "core", "debian"}
    assert (rows["debian"]["type"], rows["debian"]["version"]) == ("operating-system", "12")
    assert rows["core"]["group"] == "@babel"
    assert rows["node"]["cpe"] == "cpe:2.3:a:nodejs:node.js:18.20.8:*:*:*:*:*:*:*"
    assert rows["libc6"]["purl"] == LIBC.purl == rows["libc6"]["bom-ref"]
    sources = {row["name"].rpartition(":")[2]: row["value"] for row in rows["libc6"]["properties"]}
    assert sources == {"SrcName": "glibc", "SrcVersion": "2.36", "SrcRelease": "9"}
