"""``from execution.docker_executor import DockerCodeExecutor``."""

from codeforge.blocking import DockerCodeExecutor
from codeforge.model import ExecutionResult

__all__ = ["DockerCodeExecutor", "ExecutionResult"]
