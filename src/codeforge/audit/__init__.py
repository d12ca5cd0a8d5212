"""The audit: attacks on a real sandbox, and checks of the host, the engine and the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.audit.model import (
        EXIT_ALL_HOLD as EXIT_ALL_HOLD,
    )
    from codeforge.audit.model import (
        EXIT_FAILS as EXIT_FAILS,
    )
    from codeforge.audit.model import (
        EXIT_NOT_TESTED as EXIT_NOT_TESTED,
    )
    from codeforge.audit.model import (
        Check as Check,
    )
    from codeforge.audit.model import (
        Layer as Layer,
    )
    from codeforge.audit.model import (
        Verdict as Verdict,
    )
    from codeforge.audit.model import (
        counts as counts,
    )
    from codeforge.audit.model import (
        exit_code as exit_code,
    )
    from codeforge.audit.mutations import (
        MUTATIONS as MUTATIONS,
    )
    from codeforge.audit.run import (
        audit as audit,
    )
    from codeforge.audit.run import (
        expected_count as expected_count,
    )
    from codeforge.audit.selftest import (
        Outcome as Outcome,
    )
    from codeforge.audit.selftest import (
        self_test as self_test,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        model=("Check EXIT_ALL_HOLD EXIT_FAILS EXIT_NOT_TESTED Layer Verdict counts exit_code"),
        mutations="MUTATIONS",
        run="audit expected_count",
        selftest="Outcome self_test",
    )
