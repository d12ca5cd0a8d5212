"""``from execution.docker_executor import DockerCodeExecutor``."""

from codeforge.blocking import DockerCodeExecutor
from codeforge.result import ExecutionResult

__all__ = ["DockerCodeExecutor", "ExecutionResult"]
