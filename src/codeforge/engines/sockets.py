"""The sockets of Docker and Podman, found as their own command lines find them, without their clients."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_DOCKER_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "~/.docker/run/docker.sock")
_PODMAN_SOCKET = "podman/podman.sock"


def podman_address() -> str:
    """CONTAINER_HOST if set; else the user's service; the system's for root, or if only that one exists."""
    asked = os.environ.get("CONTAINER_HOST")
    if asked:
        return asked
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", _PODMAN_SOCKET)
    system = Path("/run", _PODMAN_SOCKET)
    return f"unix://{system if os.getuid() == 0 or (system.exists() and not own.exists()) else own}"


def unreachable_reason(engine: str) -> str | None:
    """Why an engine cannot be reached, if its sockets show that; ``None``: it may be reachable."""
    if engine == "docker":
        configured = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
        if configured or Path("~/.docker/config.json").expanduser().exists():
            return None
        paths = [Path(each).expanduser() for each in _DOCKER_SOCKETS]
    elif engine == "podman":
        scheme, _, path = podman_address().partition("://")
        if scheme != "unix":
            return None
        paths = [Path(path)]
    else:
        return None
    if any(map(_answers, paths)):
        return None
    return f"nothing answers on {' or '.join(map(str, paths))}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except PermissionError:
            return True  # something listens, and the engine's error says what to do
        except OSError:
            return False
    return True
