"""Engines launch sandboxes: Docker, Podman, gVisor through Docker, and bubblewrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.engines.base import (
        GVISOR as GVISOR,
        Channel as Channel,
        Engine as Engine,
        EngineInfo as EngineInfo,
        Provisions as Provisions,
    )
    from codeforge.engines.bubblewrap import (
        BubblewrapChannel as BubblewrapChannel,
        BubblewrapEngine as BubblewrapEngine,
    )
    from codeforge.engines.cgroups import (
        CgroupTree as CgroupTree,
        find_tree as find_tree,
    )
    from codeforge.engines.docker import DockerEngine as DockerEngine
    from codeforge.engines.gvisor import with_sentry as with_sentry
    from codeforge.engines.select import (
        AUTO as AUTO,
        ENGINE_VARIABLE as ENGINE_VARIABLE,
        ENGINES as ENGINES,
        RUNTIME_VARIABLE as RUNTIME_VARIABLE,
        EngineSettings as EngineSettings,
        OnChoice as OnChoice,
        engine_for as engine_for,
        engine_name as engine_name,
        make_engine as make_engine,
    )
    from codeforge.engines.sockets import unreachable_reason as unreachable_reason
else:
    __getattr__ = lazy_exports(
        __name__,
        base="Channel Engine EngineInfo GVISOR Provisions",
        bubblewrap="BubblewrapChannel BubblewrapEngine",
        cgroups="CgroupTree find_tree",
        docker="DockerEngine",
        gvisor="with_sentry",
        select=(
            "AUTO ENGINES ENGINE_VARIABLE EngineSettings OnChoice RUNTIME_VARIABLE engine_for engine_name "
            "make_engine"
        ),
        sockets="unreachable_reason",
    )
