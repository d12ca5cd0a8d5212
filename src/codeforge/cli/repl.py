"""``codeforge repl``: a session for a person at a terminal, or for the code on stdin.

``prompt`` reads what a person types; ``conversation`` runs it and prints the results.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from codeforge._version import __version__
from codeforge.cli import EXIT_INTERRUPTED
from codeforge.cli.conversation import COMMANDS, Conversation
from codeforge.cli.engine import EngineOptions, print_engine_note
from codeforge.cli.run import read_files, read_program, read_variables
from codeforge.cli.terminal import EXIT_BROKEN_PIPE, discard_stdout, print_error
from codeforge.errors import CodeForgeError, SessionEnded
from codeforge.executor import CodeExecutor
from codeforge.model import CellResult, CellStatus
from codeforge.sessions import Session

LEAVING_LINES = {"exit()", "quit()"}
"""Lines that leave the prompt, as in a local interpreter. As cells, they would end the interpreter."""


def repl(
    language: str,
    *,
    timeout: float | None = None,
    memory: str | None = None,
    cpu_quota: int | None = None,
    network: bool = False,
    env: list[str] | None = None,
    file: list[str] | None = None,
    out: Path | None = None,
    engine: EngineOptions,
) -> int:
    """Run a session for a person, or stdin as one cell. Return the exit code."""
    executor = CodeExecutor(**engine, on_engine=print_engine_note, max_warm=0)

    def make() -> Session:
        return executor.session(
            language,
            timeout=timeout,
            memory_limit=memory,
            cpu_quota=cpu_quota,
            network_enabled=network,
            env_vars=read_variables(env or []),
            files=read_files(file or []),
            idle_timeout=None,
        )

    conversation = Conversation(make, out)
    if sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
        return asyncio.run(_perform(executor, conversation, None))
    return asyncio.run(_perform(executor, conversation, read_program("-")))


async def _perform(executor: CodeExecutor, conversation: Conversation, code: str | None) -> int:
    main = asyncio.current_task()

    def interrupt() -> None:
        if not conversation.interrupt() and main is not None:
            main.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    try:
        async with executor:
            if code is None:
                return await _interact(conversation)
            return _exit_code(await conversation.run(code))
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        return EXIT_BROKEN_PIPE


def _exit_code(result: CellResult) -> int:
    return EXIT_INTERRUPTED if result.status is CellStatus.INTERRUPTED else int(not result.success)


async def _interact(conversation: Conversation) -> int:
    language = conversation.session.language
    print(f"AI CodeForge {__version__}: {language.name} in a sandbox. :help lists commands, Ctrl-D leaves.")
    await conversation.session.start()
    conversation.at_prompt = True
    from codeforge.cli.prompt import COMMAND, Prompt, history_file

    prompt = Prompt(language, lambda: conversation.session, COMMANDS, history_file(language))
    while (line := await prompt.read(conversation.label)) is not None:
        line = line.strip("\n").rstrip()
        try:
            if line.lstrip().startswith(COMMAND):
                if not await conversation.command(line.strip().removeprefix(COMMAND)):
                    break
            elif line in LEAVING_LINES:
                break
            elif line.strip():
                await conversation.run(line)
        except SessionEnded:
            print_error("the session has no interpreter; :restart starts a new one and keeps the files")
        except OSError as error:  # a file on this machine, or FileError
            print_error(f"{error.filename or 'cannot write'}: {error.strerror}")
        except CodeForgeError as error:
            print_error(str(error))
        conversation.end_line()
    return 0
