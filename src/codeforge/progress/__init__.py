"""Progress of long work: the steps that it reports, and their display on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.progress.display import (
        OnCount as OnCount,
        show_count as show_count,
        show_steps as show_steps,
    )
    from codeforge.progress.steps import (
        OnStep as OnStep,
        Step as Step,
        silently as silently,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        display="OnCount show_count show_steps",
        steps="OnStep Step silently",
    )
