"""The audit: attacks on a real sandbox, and checks of the host, the engine and the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.audit.model import (
        EXIT_ALL_HOLD as EXIT_ALL_HOLD,
        EXIT_FAILS as EXIT_FAILS,
        EXIT_NOT_TESTED as EXIT_NOT_TESTED,
        Check as Check,
        Layer as Layer,
        Verdict as Verdict,
        counts as counts,
        exit_code as exit_code,
    )
    from codeforge.audit.mutations import MUTATIONS as MUTATIONS
    from codeforge.audit.run import (
        audit as audit,
        expected_count as expected_count,
    )
    from codeforge.audit.selftest import (
        Outcome as Outcome,
        self_test as self_test,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        model="Check EXIT_ALL_HOLD EXIT_FAILS EXIT_NOT_TESTED Layer Verdict counts exit_code",
        mutations="MUTATIONS",
        run="audit expected_count",
        selftest="Outcome self_test",
    )
