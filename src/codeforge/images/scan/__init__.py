"""The packages of an image, and their known vulnerabilities. Needs the extra ``scan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.images.scan.inventory import read_packages as read_packages
    from codeforge.images.scan.osv import OSV_URL as OSV_URL
    from codeforge.images.scan.report import (
        ScanReport as ScanReport,
        Severity as Severity,
        exit_code as exit_code,
        render as render,
    )
    from codeforge.images.scan.run import scan as scan
    from codeforge.images.scan.sbom import (
        Package as Package,
        to_cyclonedx as to_cyclonedx,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        inventory="read_packages",
        osv="OSV_URL",
        report="ScanReport Severity exit_code render",
        sbom="Package to_cyclonedx",
        run="scan",
    )
