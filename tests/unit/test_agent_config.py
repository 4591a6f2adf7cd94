"""Configurations are frozen data: equal when their parts are, and refused where they cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.graph import END
from pydantic import ValidationError

from petal.core.config.agent import (
    AgentConfig,
    ApprovalConfig,
    ConditionConfig,
    LLMConfig,
    RetryConfig,
    StepConfig,
)
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.config.steps import LLMOptions, ReactOptions
from petal.core.config.ways import oddities
from petal.errors import AgentConfigurationError
from petal.types.state import DefaultState


def step(name: str = "a", **fields: Any) -> StepConfig:
    return StepConfig(type="custom", name=name, config={"function": print}, **fields)


def agent(*steps: StepConfig) -> AgentConfig:
    return AgentConfig(state_type=DefaultState, steps=steps)


def test_equal_parts_make_equal_agents() -> None:
    assert agent(step()) == agent(step())
    assert agent(step()) != agent(step("b"))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        agent(step()).name = "other"


@pytest.mark.parametrize("name", ["", "__start__", "__end__", "END", "a:b", "a|b"])
def test_names_that_a_graph_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot name a step"):
        step(name)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([], "Agent 'agent' has no steps; add one"),
        ([step(), step()], "Two steps are called 'a'"),
        (
            [step(next="b2"), step("b")],
            "Step 'a' goes on to 'b2', which is no step. Did you mean 'b'? Known: a, b, END.",
        ),
        ([step(next="")], "Step 'a' goes on to '', which is no step. Known: a, END."),
        ([step(condition=ConditionConfig(key="input", routes={"x": "c"}))], "goes on to 'c'"),
        ([step(approval=ApprovalConfig(on_reject="c"))], "goes on to 'c'"),
    ],
)
def test_steps_that_do_not_fit_together_are_refused(steps: list[StepConfig], problem: str) -> None:
    with pytest.raises(AgentConfigurationError) as caught:
        agent(*steps).validated()
    assert problem in str(caught.value)


def way(on_reject: str) -> ApprovalConfig:
    return ApprovalConfig(on_reject=on_reject)


def test_a_step_that_no_way_leads_to_is_odd() -> None:
    branch = ConditionConfig(key="input", routes={"x": "c", "y": "END"})
    assert oddities([step("a", condition=branch), step("b", next="a"), step("c")]).keys() == {"b"}
    assert oddities([step("a", next="END"), step("b"), step("c")]).keys() == {"b", "c"}
    assert oddities([step("a", next="c"), step("b"), step("c", approval=way("b"))]) == {}
    assert oddities([step("a"), step("b", next="END")]) == {}
    skipped = step("a", condition=ConditionConfig(key="input", routes={"x": "c"}), approval=way("skip"))
    assert oddities([skipped, step("b"), step("c")]).keys() == {"b"}


def test_a_round_without_an_end_is_odd() -> None:
    def leave(*targets: str) -> ConditionConfig:
        return ConditionConfig(key="input", routes=dict(enumerate(targets)))

    assert oddities([step("a", next="a")]) == {
        "a": "A run never ends from here on: the ways behind 'a' lead back to them only."
    }
    assert oddities([step("a"), step("b"), step("c", condition=leave("b", "c"))]).keys() == {"b"}
    assert oddities([step("a", condition=leave("b", "c")), step("b", next="b"), step("c", next="c")]).keys() == {
        "b",
        "c",
    }
    assert oddities([step("a"), step("b", condition=leave("a", "END"))]) == {}
    for on_reject, odd in (("END", set()), ("fail", set()), ("skip", {"a"}), ("a", {"a"})):
        assert oddities([step("a", next="a", approval=way(on_reject))]).keys() == odd
        assert oddities([step("a", condition=leave("a"), approval=way(on_reject))]).keys() == odd


def test_end_is_a_target_by_either_name() -> None:
    assert step(next="END").next == step(next=END).next == END
    assert agent(step(next="END", approval=ApprovalConfig(on_reject="skip"))).validated()


def test_a_step_has_one_way_on() -> None:
    with pytest.raises(ValidationError, match="both a condition and a next step"):
        step(next="END", condition=ConditionConfig(key="input", routes={"x": "END"}))


def test_a_condition_has_one_source() -> None:
    with pytest.raises(ValidationError, match="either a function or a key"):
        ConditionConfig(routes={"x": "END"})
    with pytest.raises(ValidationError, match="either a function or a key"):
        ConditionConfig(function=print, key="input", routes={"x": "END"})


def test_short_forms_mean_the_long_ones() -> None:
    assert RetryConfig.model_validate(3) == RetryConfig(attempts=3)
    assert ApprovalConfig.model_validate(True) == ApprovalConfig()
    assert ApprovalConfig.model_validate("Sure?") == ApprovalConfig(prompt="Sure?")
    assert LLMConfig.model_validate("openai:gpt-4o") == LLMConfig(provider="openai", model="gpt-4o")
    assert LLMConfig.model_validate("ollama:llama3:8b") == LLMConfig(provider="ollama", model="llama3:8b")
    assert LLMConfig.model_validate("gpt-4o") == LLMConfig(model="gpt-4o")
    assert AgentConfig(state_type=DefaultState, checkpointer="memory://").checkpointer == CheckpointerConfig()


def test_a_models_settings_may_stand_beside_a_steps() -> None:
    beside = LLMOptions.model_validate({"provider": "openai", "model": "gpt-4", "prompt_template": "{input}"})
    assert beside == LLMOptions(llm={"provider": "openai", "model": "gpt-4"}, prompt_template="{input}")
    with pytest.raises(ValidationError, match="both llm and provider are given"):
        LLMOptions.model_validate({"llm": "demo:", "provider": "openai"})


def test_settings_without_what_they_belong_to_are_refused() -> None:
    with pytest.raises(ValidationError, match="key is given without structured_output"):
        LLMOptions(key="answer")
    with pytest.raises(ValidationError, match="scratchpad_key is given without tools"):
        ReactOptions(scratchpad_key="notes")


def test_a_slip_of_the_pen_in_a_models_setting_is_noticed() -> None:
    with pytest.raises(ValidationError, match="no setting 'temprature'; did you mean 'temperature'"):
        LLMConfig(provider="openai", model="gpt-4o", temprature=0.1)
    assert LLMConfig(provider="openai", model="gpt-4o", reasoning_effort="low").model_extra == {
        "reasoning_effort": "low"
    }
    with pytest.raises(ValidationError, match="neither provider nor model"):
        LLMConfig()


def test_a_models_name_and_no_secret_is_printed() -> None:
    config = LLMConfig(provider="openai", model="gpt-4o", api_key="sk-secret")
    assert config.name == "openai:gpt-4o"
    assert LLMConfig(model="gpt-4o").name == "gpt-4o"
    assert "secret" not in repr(config) + str(config)
    other = LLMConfig(
        provider="openai",
        model="gpt-4o",
        openai_api_key="sk-secret",
        default_headers={"Authorization": "Bearer sk-secret"},
        top_p=0.5,
    )
    assert "sk-secret" not in repr(other) + str(other)
    assert "openai_api_key='***', default_headers='***', top_p=0.5" in repr(other)
