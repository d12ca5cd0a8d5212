"""The commands and their options. Each one imports what does its work when it is called, and calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeforge._version import __version__
from codeforge.cli.environments import app as environment_commands
from codeforge.cli.image_commands import app as image_commands

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run AI-written Python, JavaScript and TypeScript in fresh, locked-down containers.",
)
app.add_typer(image_commands, name="images")
app.add_typer(environment_commands, name="environments")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a script to read.")]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="docker, podman, bubblewrap, or auto: the first that answers; default: CODEFORGE_ENGINE.",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Docker's OCI runtime, as runsc; default: CODEFORGE_RUNTIME."),
]
Unenforced = Annotated[
    bool,
    typer.Option("--allow-unenforced-limits", help="Run even where bubblewrap cannot enforce the limits."),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"codeforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples:\n\n"
    "  codeforge run hello.py\n\n"
    "  codeforge run report.py --file data.csv --timeout 60 --memory 1g -- --year 2025\n\n"
    "  codeforge run report.py --out results/\n\n"
    "  echo 'console.log(6 * 7)' | codeforge run - --language javascript\n\n"
    "Exit codes: the program's own; 124 timeout, 123 output limit, 137 out of memory, 128+N killed by "
    "signal N; 2 bad usage, 66 image missing, 69 no Docker, 70 sandbox failure, 77 no permission.",
)
def run(
    program: Annotated[str, typer.Argument(metavar="FILE|-", help="The program; - reads it from stdin.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- ARGS]", help="Its arguments.")] = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", help="Default: by the file's suffix; python for -.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds; default 30.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit, as 512m or 1g; default 512m.")] = None,
    cpu_quota: Annotated[
        int | None, typer.Option(help="Microseconds of CPU in each 100 ms; default 50000, half a core.")
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="Give it a network.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="Environment variable.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="PATH[:NAME]", help="Lay a file beside the program."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the files that it left below DIR.")
    ] = None,
    stdin: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="What it reads; default: this command's stdin.")
    ] = None,
    type_check: Annotated[bool, typer.Option(help="TypeScript: check types before running.")] = True,
    max_output: Annotated[
        str, typer.Option(help="How much of stdout, and of stderr, to keep; default 1m.")
    ] = "1m",
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
    as_json: AsJson = False,
) -> None:
    """Run a program in a fresh sandbox: its output live, its stdin passed on, its exit code."""
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
    epilog="Examples:\n\n"
    "  codeforge repl\n\n"
    "  codeforge repl javascript --engine bubblewrap --file data.json\n\n"
    "  echo 'sum(range(10))' | codeforge repl\n\n"
    "At the prompt :help lists the commands, Ctrl-C stops a cell, Ctrl-D leaves.\n\n"
    "Exit codes: 0 you left; where stdin or stdout is no terminal, 0 the cell ran to its end, 1 it did not, "
    "130 Ctrl-C; 2 bad usage, 66 image missing, 69 no engine, 70 sandbox failure, 77 no permission.",
)
def repl(
    language: Annotated[str, typer.Argument(metavar="LANG", help="python, javascript, ...")] = "python",
    timeout: Annotated[float | None, typer.Option(help="Seconds for each cell; default 30.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit, as 512m or 1g; default 512m.")] = None,
    cpu_quota: Annotated[
        int | None, typer.Option(help="Microseconds of CPU in each 100 ms; default 50000, half a core.")
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="Give it a network.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="Environment variable.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="PATH[:NAME]", help="Lay a file into its directory."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures that it shows into DIR.")
    ] = None,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
) -> None:
    """Talk to an interpreter in a sandbox, which keeps its state; without a terminal, run stdin in one."""
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
    epilog="Examples:\n\n"
    "  codeforge batch programs.jsonl results.jsonl\n\n"
    "  codeforge batch programs.jsonl results.jsonl --resume --concurrency 8 --timeout 10\n\n"
    'A line of IN:  {"id": "a1", "code": "print(input())", "language": "python", "stdin": "hello"}\n\n'
    "Exit codes: 0 every line ended with status ok, 1 some did not; 2 bad usage, 66 image missing, 69 no "
    "Docker, 70 sandbox failure or a full disk, 77 no permission, 130 Ctrl-C, 143 SIGTERM. "
    "After all but 0, 1 and 2 go on with --resume.",
)
def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN|-", help="Programs, one JSON object a line; - is stdin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Gets a JSON object for each line of IN.")],
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="How many run at once; default: twice the number of CPUs."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with OUT: run only the lines that it has no result of.")
    ] = False,
    max_runs_per_sandbox: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="How many programs may use one sandbox, one after another."),
    ] = 1,
    language: Annotated[str, typer.Option("--language", "-l", help="For lines that say none.")] = "python",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds, for lines that say nothing; default 30.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory limit, for lines that say nothing; default 512m.")
    ] = None,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON document on stdout.")
    ] = False,
) -> None:
    """Run a file of programs, and write each result as it ends; what broke off can go on."""
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


@app.command(epilog="Example:  codeforge languages --json")
def languages(as_json: AsJson = False) -> None:
    """List the languages, and the image each one runs in."""
    from codeforge.cli import languages as command

    command.perform(as_json=as_json)


@app.command(epilog="Exit codes: 0 all is well, 1 something is not, 69 no Docker, 77 no permission.")
def doctor(
    as_json: AsJson = False,
    posture: Annotated[
        bool, typer.Option("--posture", help="Show all that the kernel says about each sandbox.")
    ] = False,
    engine: Engine = None,
    runtime: Runtime = None,
    allow_unenforced_limits: Unenforced = False,
) -> None:
    """Check the engine, the images and a real run in each language; say what to do next."""
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
    epilog="Examples:\n\n"
    "  codeforge audit\n\n"
    "  sudo codeforge audit --full --strict\n\n"
    "  codeforge audit --json | jq '.checks[] | select(.verdict == \"FAILS\")'\n\n"
    "  codeforge audit --self-test\n\n"
    "Exit codes: 0 all holds; 1 something FAILS (of host and engine only what is of high severity, or with "
    "--strict everything and what is UNKNOWN); 2 bad usage, or no sandbox could be tested; 130 Ctrl-C.",
)
def audit(
    full: Annotated[
        bool,
        typer.Option("--full/--quick", help="Also take resources, race and leave things behind; minutes."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Host and engine count as sandboxes do; UNKNOWN counts as FAILS.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Weaken sandboxes, and see whether the audit notices.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Attack sandboxes on this machine as hostile programs would, and look at host and engine."""
    from codeforge.cli import audit as command

    if self_test:
        raise typer.Exit(command.perform_self_test(as_json=as_json))
    raise typer.Exit(command.perform(full=full, strict=strict, as_json=as_json))


@app.command(
    epilog="Examples:\n\n"
    "  codeforge bench\n\n"
    "  codeforge bench python --seconds 20 --chart hello.svg\n\n"
    "  codeforge bench --json > figures.json\n\n"
    "Exit codes: 0 measured; 2 bad usage, 66 image missing, 69 no Docker, 70 sandbox failure, "
    "77 no permission.",
)
def bench(
    languages: Annotated[
        list[str] | None, typer.Argument(metavar="[LANG]...", help="Default: those whose image is here.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 60,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the first language's times, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: cold, warm and reused sandboxes beside docker run and the bare interpreter."""
    from codeforge.cli import bench as command

    raise typer.Exit(command.perform(languages or [], seconds=seconds, as_json=as_json, chart=chart))
