"""Engines: what launches sandboxes. Docker, Podman, gVisor through Docker, bubblewrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.engines.base import (
        GVISOR as GVISOR,
    )
    from codeforge.engines.base import (
        Channel as Channel,
    )
    from codeforge.engines.base import (
        Engine as Engine,
    )
    from codeforge.engines.base import (
        EngineInfo as EngineInfo,
    )
    from codeforge.engines.base import (
        Provisions as Provisions,
    )
    from codeforge.engines.bubblewrap import (
        BubblewrapChannel as BubblewrapChannel,
    )
    from codeforge.engines.bubblewrap import (
        BubblewrapEngine as BubblewrapEngine,
    )
    from codeforge.engines.cgroups import (
        CgroupTree as CgroupTree,
    )
    from codeforge.engines.cgroups import (
        find_tree as find_tree,
    )
    from codeforge.engines.docker import (
        DockerEngine as DockerEngine,
    )
    from codeforge.engines.gvisor import (
        with_sentry as with_sentry,
    )
    from codeforge.engines.select import (
        AUTO as AUTO,
    )
    from codeforge.engines.select import (
        ENGINE_VARIABLE as ENGINE_VARIABLE,
    )
    from codeforge.engines.select import (
        ENGINES as ENGINES,
    )
    from codeforge.engines.select import (
        RUNTIME_VARIABLE as RUNTIME_VARIABLE,
    )
    from codeforge.engines.select import (
        EngineSettings as EngineSettings,
    )
    from codeforge.engines.select import (
        FirstThatAnswers as FirstThatAnswers,
    )
    from codeforge.engines.select import (
        OnChoice as OnChoice,
    )
    from codeforge.engines.select import (
        engine_for as engine_for,
    )
    from codeforge.engines.select import (
        engine_name as engine_name,
    )
    from codeforge.engines.select import (
        make_engine as make_engine,
    )
    from codeforge.engines.sockets import (
        not_there as not_there,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        base="Channel Engine EngineInfo GVISOR Provisions",
        bubblewrap="BubblewrapChannel BubblewrapEngine",
        cgroups="CgroupTree find_tree",
        docker="DockerEngine",
        gvisor="with_sentry",
        select=(
            "AUTO ENGINES ENGINE_VARIABLE EngineSettings FirstThatAnswers OnChoice RUNTIME_VARIABLE "
            "engine_for engine_name make_engine"
        ),
        sockets="not_there",
    )
