"""The commands and their options. Each one imports the module that does its work when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeforge._version import __version__
from codeforge.cli.environments import app as environment_commands
from codeforge.cli.image_commands import app as image_commands
from codeforge.cli.options import (
    AsJson,
    CpuQuota,
    Engine,
    Env,
    Files,
    Memory,
    Network,
    Runtime,
    Timeout,
    Unenforced,
    below,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables cut the names of options off, even at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run AI-written Python, JavaScript and TypeScript in fresh, locked-down sandboxes.",
)
app.add_typer(image_commands, name="images")
app.add_typer(environment_commands, name="environments")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"codeforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say which engine runs the sandboxes, and why.")
    ] = False,
) -> None:
    if verbose:
        from codeforge.cli import engine

        engine.verbose = True


@app.command(
    epilog=below(
        "codeforge run hello.py",
        "codeforge run report.py --file data.csv --timeout 60 -- --year 2025",
        "codeforge run report.py --out results/",
        "echo 'console.log(6 * 7)' | codeforge run - --language javascript",
        exit_codes="the program's own; 124 timeout, 123 output limit, 137 out of memory, 128+N killed by "
        "signal N; 2 bad usage, 66 image missing, 69 no engine, 70 sandbox failure, 77 no permission.",
    )
)
def run(
    program: Annotated[str, typer.Argument(metavar="FILE|-", help="The program; - reads it from stdin.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Arguments for the program, after --.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", "-l", metavar="LANG", help="Language (default: by the file's suffix; python for -)."
        ),
    ] = None,
    timeout: Timeout = None,
    memory: Memory = None,
    cpu_quota: CpuQuota = None,
    network: Network = False,
    env: Env = None,
    file: Files = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the files that the program leaves below DIR.")
    ] = None,
    stdin: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="The program's stdin (default: this command's)."),
    ] = None,
    type_check: Annotated[bool, typer.Option(help="TypeScript: check types before running.")] = True,
    max_output: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="How much to keep of stdout, and of stderr (default: 1m).",
        ),
    ] = "1m",
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
    as_json: AsJson = False,
) -> None:
    """Run a program in a fresh sandbox.

    Its output appears as it is written, its stdin is this command's, and so is its exit code.
    """
    from codeforge.cli import run as command

    code = command.run(
        program,
        arguments,
        language=language,
        timeout=timeout,
        memory=memory,
        cpu_quota=cpu_quota,
        network=network,
        env=env,
        file=file,
        out=out,
        stdin=stdin,
        type_check=type_check,
        max_output=max_output,
        engine=engine,
        runtime=runtime,
        allow_unenforced_limits=allow_unenforced_limits,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(
    epilog=below(
        "codeforge repl",
        "codeforge repl javascript --engine bubblewrap --file data.json",
        "echo 'sum(range(10))' | codeforge repl",
        exit_codes="0 you left, or the cell ran to its end; 1 it did not; 2 bad usage, 66 image missing, "
        "69 no engine, 70 sandbox failure, 77 no permission, 130 Ctrl-C.",
    )
)
def repl(
    language: Annotated[
        str, typer.Argument(metavar="LANG", show_default=False, help="Language (default: python).")
    ] = "python",
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time limit of each cell (default: 30).")
    ] = None,
    memory: Memory = None,
    cpu_quota: CpuQuota = None,
    network: Network = False,
    env: Env = None,
    file: Files = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures that cells show into DIR.")
    ] = None,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
) -> None:
    """Talk to an interpreter in a sandbox.

    It keeps its state from cell to cell. At the prompt, :help lists the commands, Ctrl-C stops a cell and
    Ctrl-D leaves. If stdin or stdout is not a terminal, all of stdin is one cell.
    """
    from codeforge.cli import repl as command

    code = command.repl(
        language,
        timeout=timeout,
        memory=memory,
        cpu_quota=cpu_quota,
        network=network,
        env=env,
        file=file,
        out=out,
        engine={
            "engine": engine,
            "runtime": runtime,
            "allow_unenforced_limits": allow_unenforced_limits,
        },
    )
    raise typer.Exit(code)


@app.command(
    epilog=below(
        "codeforge batch programs.jsonl results.jsonl",
        "codeforge batch programs.jsonl results.jsonl --resume --timeout 10",
    )
    + '\n\n\b\nA line of IN:\n  {"id": "a1", "code": "print(input())", "stdin": "hello"}\n\n'
    "Exit codes: 0 every line ended with status ok, 1 some did not; 2 bad usage, 66 image missing, "
    "69 no engine, 70 sandbox failure or full disk, 77 no permission, 130 Ctrl-C, 143 SIGTERM. "
    "After a code other than 0, 1 and 2, continue with --resume."
)
def batch(
    source: Annotated[str, typer.Argument(metavar="IN|-", help="One JSON object a line; - reads stdin.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT|-", help="Receives one JSON object per line of IN; - is stdout.")
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=10_000,
            help="How many programs run at the same time (default: twice the number of CPUs).",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue OUT: run only the lines without a result.")
    ] = False,
    max_runs_per_sandbox: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=1_000_000, help="How many programs may use one sandbox in turn."
        ),
    ] = 1,
    language: Annotated[
        str,
        typer.Option("--language", "-l", metavar="LANG", help="Language of lines that do not name one."),
    ] = "python",
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time limit of lines that do not set one (default: 30)."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory limit of lines that do not set one (default: 512m)."),
    ] = None,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON document on stdout.")
    ] = False,
) -> None:
    """Run a file of programs.

    Each result is written as its program ends. A batch that was interrupted can be continued.
    """
    from codeforge.cli import batch as command

    options = command.Options(
        concurrency=concurrency,
        max_runs_per_sandbox=max_runs_per_sandbox,
        defaults={"language": language, "timeout": timeout, "memory_limit": memory},
        resume=resume,
        executor={
            "engine": engine,
            "runtime": runtime,
            "allow_unenforced_limits": allow_unenforced_limits,
        },
    )
    raise typer.Exit(command.perform(source, target, options, as_json=as_json))


@app.command(epilog=below("codeforge languages --json"))
def languages(as_json: AsJson = False) -> None:
    """List the languages and their images."""
    from codeforge.cli import languages as command

    command.perform(as_json=as_json)


@app.command(
    epilog=below(
        "codeforge doctor",
        "codeforge doctor --engine bubblewrap --posture",
        exit_codes="0 no problems, 1 problems, 69 no engine, 77 no permission.",
    )
)
def doctor(
    as_json: AsJson = False,
    posture: Annotated[
        bool, typer.Option("--posture", help="Show what the kernel reports about each sandbox.")
    ] = False,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
) -> None:
    """Check the engine, the images and a run in each language.

    For each problem, it says what to do.
    """
    from codeforge.cli import doctor as command

    code = command.perform(
        as_json=as_json,
        posture=posture,
        engine=engine,
        runtime=runtime,
        allow_unenforced_limits=allow_unenforced_limits,
    )
    raise typer.Exit(code)


@app.command(
    epilog=below(
        "codeforge audit",
        "sudo codeforge audit --full --strict",
        "codeforge audit --json | jq '.checks[] | select(.verdict == \"FAILS\")'",
        "codeforge audit --self-test",
        exit_codes="0 everything holds; 1 something FAILS (for host and engine, only findings of high "
        "severity count; with --strict all of them count, and UNKNOWN too); 2 bad usage, or no sandbox could "
        "be tested; 130 Ctrl-C.",
    )
)
def audit(
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            show_default=False,
            help="Also exhaust resources, race, and look for leftovers; takes minutes (default: --quick).",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Count every finding about host and engine, and UNKNOWN as FAILS."),
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Weaken sandboxes, and check that the audit notices.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Attack sandboxes on this machine, and check host and engine."""
    from codeforge.cli import audit as command

    if self_test:
        raise typer.Exit(command.perform_self_test(as_json=as_json))
    raise typer.Exit(command.perform(full=full, strict=strict, as_json=as_json))


@app.command(
    epilog=below(
        "codeforge bench",
        "codeforge bench python --seconds 20 --chart hello.svg",
        "codeforge bench --json > figures.json",
        exit_codes="0 measured; 2 bad usage, 66 image missing, 69 no engine, 70 sandbox failure, "
        "77 no permission.",
    )
)
def bench(
    languages: Annotated[
        list[str] | None,
        typer.Argument(metavar="LANG", help="Languages (default: those whose image is on this machine)."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="N", show_default=False, help="How long to measure, about (default: 60).")
    ] = 60,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the first language's times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine runs programs.

    Cold, warm and reused sandboxes are compared with docker run and the interpreter without a sandbox. Needs
    Docker or Podman.
    """
    from codeforge.cli import bench as command

    raise typer.Exit(command.perform(languages or [], seconds=seconds, as_json=as_json, chart=chart))
