"""Keyword arguments: every method spells them as the fields of a request, and refuses all others by name."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, CodeExecutor, ExecutionRequest
from codeforge.model.options import ExecuteOptions, RequestOptions, RunnerOptions, SessionOptions

POSITIONS = ["code", "language", "timeout", "memory_limit", "network_enabled", "env_vars"]
FIELDS = [field.name for field in dataclasses.fields(ExecutionRequest)]


def test_a_request_takes_the_arguments_of_execute_in_their_documented_order() -> None:
    request = ExecutionRequest("1", "ts", 5, "1g", True, {"A": "b"})
    assert request == ExecutionRequest(
        code="1", language="ts", timeout=5, memory_limit="1g", network_enabled=True, env_vars={"A": "b"}
    )
    with pytest.raises(TypeError, match="positional argument"):
        ExecutionRequest("1", "ts", 5, "1g", True, {}, b"stdin")  # type: ignore[call-arg]


@pytest.mark.parametrize("executor", [CodeExecutor, BlockingCodeExecutor])
def test_execute_takes_the_documented_positions_and_then_keywords(executor: Any) -> None:
    _self, *parameters = inspect.signature(executor.execute).parameters.values()
    taken = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert taken == POSITIONS
    assert [each.name for each in parameters if each.kind is each.KEYWORD_ONLY] == ["on_stdout", "on_stderr"]
    assert parameters[-1].annotation == "Unpack[ExecuteOptions]"


def test_positions_and_options_are_together_the_fields_of_a_request() -> None:
    assert {*POSITIONS, *ExecuteOptions.__optional_keys__} == {*FIELDS}
    assert {"code", "language", *RequestOptions.__optional_keys__} == {*FIELDS}


@pytest.mark.parametrize("options", [RequestOptions, RunnerOptions, SessionOptions])
def test_options_have_the_types_of_the_fields(options: type) -> None:
    fields = typing.get_type_hints(ExecutionRequest)
    assert {name: fields[name] for name in typing.get_type_hints(options)} == typing.get_type_hints(options)


@pytest.mark.parametrize(
    ("name", "said"),
    [("tiemout", ". Did you mean 'timeout'?"), ("xyz", ""), ("stdim", ". Did you mean 'stdin'?")],
)
def test_a_wrong_keyword_is_named_with_the_method_and_the_nearest_right_one(name: str, said: str) -> None:
    executor: Any = CodeExecutor(engine="bubblewrap")
    with pytest.raises(TypeError) as caught:
        executor.stream("1", **{name: 1})
    assert str(caught.value) == f"stream() got an unexpected keyword argument {name!r}{said}"


@pytest.mark.parametrize("name", ["stdin", "type_check", "args"])
def test_a_session_refuses_the_options_of_a_run(name: str) -> None:
    executor: Any = CodeExecutor(engine="bubblewrap")
    with pytest.raises(TypeError, match=rf"^session\(\) got an unexpected keyword argument '{name}'"):
        executor.session(**{name: None})


@pytest.mark.parametrize("method", ["execute", "execute_with_tests"])
def test_a_blocking_method_refuses_a_wrong_keyword(method: str) -> None:
    with BlockingCodeExecutor(engine="bubblewrap") as executor:
        call: Any = getattr(executor, method)
        with pytest.raises(
            TypeError, match=rf"^{method}\(\) got an unexpected keyword argument 'fiels'.*'files'"
        ):
            call("1", "2", fiels={})
