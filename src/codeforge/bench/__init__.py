"""Benchmarks of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.bench.figures import Table as Table
    from codeforge.bench.measure import (
        COLD as COLD,
        Program as Program,
        Way as Way,
        circumstances as circumstances,
        compare_with_warm as compare_with_warm,
        interleaved as interleaved,
        load as load,
        references as references,
        run_fresh as run_fresh,
        sustained as sustained,
        within as within,
    )
    from codeforge.bench.report import (
        draw as draw,
        grid as grid,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        figures="Table",
        measure=(
            "COLD Program Way circumstances compare_with_warm interleaved load references run_fresh "
            "sustained within"
        ),
        report="draw grid",
    )
