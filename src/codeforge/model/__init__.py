"""Values: languages, limits, requests and results. They do no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.model.cell_result import (
        CellError as CellError,
        CellEvent as CellEvent,
        CellEvidence as CellEvidence,
        CellOutput as CellOutput,
        CellResult as CellResult,
        CellStatus as CellStatus,
        Completions as Completions,
        MimeBundle as MimeBundle,
        bundle_bytes as bundle_bytes,
        bundle_of as bundle_of,
        error_of as error_of,
        text_of as text_of,
    )
    from codeforge.model.events import (
        OnDisplay as OnDisplay,
        OnText as OnText,
        OutputDecoder as OutputDecoder,
        call_listener as call_listener,
        result_of as result_of,
        wait_for_result as wait_for_result,
    )
    from codeforge.model.languages import (
        CODE_DIR as CODE_DIR,
        GUEST_DIR as GUEST_DIR,
        LANGUAGES as LANGUAGES,
        OPTIONAL_LANGUAGES as OPTIONAL_LANGUAGES,
        PYTHON as PYTHON,
        Language as Language,
        LanguageTable as LanguageTable,
        Recipe as Recipe,
        TestRunner as TestRunner,
    )
    from codeforge.model.limits import (
        CPU_PERIOD_US as CPU_PERIOD_US,
        IDLE_TIMEOUT_S as IDLE_TIMEOUT_S,
        MAX_MEMORY_BYTES as MAX_MEMORY_BYTES,
        MAX_TIMEOUT_S as MAX_TIMEOUT_S,
        MIN_TIMEOUT_S as MIN_TIMEOUT_S,
        GiB as GiB,
        KiB as KiB,
        Limits as Limits,
        MiB as MiB,
        SandboxLimits as SandboxLimits,
        format_memory as format_memory,
        parse_memory as parse_memory,
        parse_size as parse_size,
        require_int as require_int,
        require_number as require_number,
    )
    from codeforge.model.options import (
        ExecuteOptions as ExecuteOptions,
        RequestOptions as RequestOptions,
        RunnerOptions as RunnerOptions,
        SessionOptions as SessionOptions,
        check_options as check_options,
    )
    from codeforge.model.request import (
        REQUEST_FIELDS as REQUEST_FIELDS,
        ExecutionRequest as ExecutionRequest,
        Run as Run,
        arguments as arguments,
        as_request as as_request,
        check_fields as check_fields,
        check_path as check_path,
        make_run as make_run,
        resolve as resolve,
        resolve_session as resolve_session,
        text_bytes as text_bytes,
        tmpfs_bytes as tmpfs_bytes,
    )
    from codeforge.model.result import (
        Event as Event,
        Evidence as Evidence,
        ExecutionResult as ExecutionResult,
        Finished as Finished,
        KillReason as KillReason,
        Output as Output,
        Status as Status,
        StreamName as StreamName,
        TestOutcome as TestOutcome,
    )
    from codeforge.model.stats import RunStats as RunStats
else:
    __getattr__ = lazy_exports(
        __name__,
        cell_result=(
            "CellError CellEvent CellEvidence CellOutput CellResult CellStatus Completions MimeBundle "
            "bundle_bytes bundle_of error_of text_of"
        ),
        events="OnDisplay OnText OutputDecoder call_listener result_of wait_for_result",
        languages=(
            "CODE_DIR GUEST_DIR LANGUAGES Language LanguageTable OPTIONAL_LANGUAGES PYTHON Recipe TestRunner"
        ),
        limits=(
            "CPU_PERIOD_US GiB IDLE_TIMEOUT_S KiB Limits MAX_MEMORY_BYTES MAX_TIMEOUT_S MIN_TIMEOUT_S "
            "MiB SandboxLimits format_memory parse_memory parse_size require_int require_number"
        ),
        options="ExecuteOptions RequestOptions RunnerOptions SessionOptions check_options",
        request=(
            "ExecutionRequest REQUEST_FIELDS Run arguments as_request check_fields check_path make_run "
            "resolve resolve_session text_bytes tmpfs_bytes"
        ),
        result="Event Evidence ExecutionResult Finished KillReason Output Status StreamName TestOutcome",
        stats="RunStats",
    )
