"""Benchmarks of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.bench.figures import (
        Table as Table,
    )
    from codeforge.bench.measure import (
        COLD as COLD,
    )
    from codeforge.bench.measure import (
        Program as Program,
    )
    from codeforge.bench.measure import (
        Way as Way,
    )
    from codeforge.bench.measure import (
        circumstances as circumstances,
    )
    from codeforge.bench.measure import (
        compare_with_warm as compare_with_warm,
    )
    from codeforge.bench.measure import (
        interleaved as interleaved,
    )
    from codeforge.bench.measure import (
        load as load,
    )
    from codeforge.bench.measure import (
        references as references,
    )
    from codeforge.bench.measure import (
        run_fresh as run_fresh,
    )
    from codeforge.bench.measure import (
        sustained as sustained,
    )
    from codeforge.bench.measure import (
        within as within,
    )
    from codeforge.bench.report import (
        draw as draw,
    )
    from codeforge.bench.report import (
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
