"""Values: languages, limits, requests and results. They do no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.model.cell_result import (
        CellError as CellError,
    )
    from codeforge.model.cell_result import (
        CellEvent as CellEvent,
    )
    from codeforge.model.cell_result import (
        CellEvidence as CellEvidence,
    )
    from codeforge.model.cell_result import (
        CellOutput as CellOutput,
    )
    from codeforge.model.cell_result import (
        CellResult as CellResult,
    )
    from codeforge.model.cell_result import (
        CellStatus as CellStatus,
    )
    from codeforge.model.cell_result import (
        Completions as Completions,
    )
    from codeforge.model.cell_result import (
        MimeBundle as MimeBundle,
    )
    from codeforge.model.cell_result import (
        bundle_bytes as bundle_bytes,
    )
    from codeforge.model.cell_result import (
        bundle_of as bundle_of,
    )
    from codeforge.model.cell_result import (
        error_of as error_of,
    )
    from codeforge.model.cell_result import (
        text_of as text_of,
    )
    from codeforge.model.events import (
        OnDisplay as OnDisplay,
    )
    from codeforge.model.events import (
        OnText as OnText,
    )
    from codeforge.model.events import (
        OutputDecoder as OutputDecoder,
    )
    from codeforge.model.events import (
        call_listener as call_listener,
    )
    from codeforge.model.events import (
        result_of as result_of,
    )
    from codeforge.model.events import (
        wait_for_result as wait_for_result,
    )
    from codeforge.model.languages import (
        CODE_DIR as CODE_DIR,
    )
    from codeforge.model.languages import (
        GUEST_DIR as GUEST_DIR,
    )
    from codeforge.model.languages import (
        LANGUAGES as LANGUAGES,
    )
    from codeforge.model.languages import (
        OPTIONAL_LANGUAGES as OPTIONAL_LANGUAGES,
    )
    from codeforge.model.languages import (
        PYTHON as PYTHON,
    )
    from codeforge.model.languages import (
        Language as Language,
    )
    from codeforge.model.languages import (
        LanguageTable as LanguageTable,
    )
    from codeforge.model.languages import (
        Recipe as Recipe,
    )
    from codeforge.model.languages import (
        TestRunner as TestRunner,
    )
    from codeforge.model.limits import (
        CPU_PERIOD_US as CPU_PERIOD_US,
    )
    from codeforge.model.limits import (
        IDLE_TIMEOUT_S as IDLE_TIMEOUT_S,
    )
    from codeforge.model.limits import (
        MAX_MEMORY_BYTES as MAX_MEMORY_BYTES,
    )
    from codeforge.model.limits import (
        MAX_TIMEOUT_S as MAX_TIMEOUT_S,
    )
    from codeforge.model.limits import (
        MIN_TIMEOUT_S as MIN_TIMEOUT_S,
    )
    from codeforge.model.limits import (
        GiB as GiB,
    )
    from codeforge.model.limits import (
        KiB as KiB,
    )
    from codeforge.model.limits import (
        Limits as Limits,
    )
    from codeforge.model.limits import (
        MiB as MiB,
    )
    from codeforge.model.limits import (
        SandboxLimits as SandboxLimits,
    )
    from codeforge.model.limits import (
        format_memory as format_memory,
    )
    from codeforge.model.limits import (
        parse_memory as parse_memory,
    )
    from codeforge.model.limits import (
        parse_size as parse_size,
    )
    from codeforge.model.limits import (
        require_int as require_int,
    )
    from codeforge.model.limits import (
        require_number as require_number,
    )
    from codeforge.model.options import (
        ExecuteOptions as ExecuteOptions,
    )
    from codeforge.model.options import (
        RequestOptions as RequestOptions,
    )
    from codeforge.model.options import (
        RunnerOptions as RunnerOptions,
    )
    from codeforge.model.options import (
        SessionOptions as SessionOptions,
    )
    from codeforge.model.options import (
        check_options as check_options,
    )
    from codeforge.model.request import (
        REQUEST_FIELDS as REQUEST_FIELDS,
    )
    from codeforge.model.request import (
        ExecutionRequest as ExecutionRequest,
    )
    from codeforge.model.request import (
        Run as Run,
    )
    from codeforge.model.request import (
        arguments as arguments,
    )
    from codeforge.model.request import (
        as_request as as_request,
    )
    from codeforge.model.request import (
        check_fields as check_fields,
    )
    from codeforge.model.request import (
        check_path as check_path,
    )
    from codeforge.model.request import (
        make_run as make_run,
    )
    from codeforge.model.request import (
        resolve as resolve,
    )
    from codeforge.model.request import (
        resolve_session as resolve_session,
    )
    from codeforge.model.request import (
        text_bytes as text_bytes,
    )
    from codeforge.model.request import (
        tmpfs_bytes as tmpfs_bytes,
    )
    from codeforge.model.result import (
        Event as Event,
    )
    from codeforge.model.result import (
        Evidence as Evidence,
    )
    from codeforge.model.result import (
        ExecutionResult as ExecutionResult,
    )
    from codeforge.model.result import (
        Finished as Finished,
    )
    from codeforge.model.result import (
        KillReason as KillReason,
    )
    from codeforge.model.result import (
        Output as Output,
    )
    from codeforge.model.result import (
        Status as Status,
    )
    from codeforge.model.result import (
        StreamName as StreamName,
    )
    from codeforge.model.result import (
        TestOutcome as TestOutcome,
    )
    from codeforge.model.stats import (
        RunStats as RunStats,
    )
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
        result=("Event Evidence ExecutionResult Finished KillReason Output Status StreamName TestOutcome"),
        stats="RunStats",
    )
