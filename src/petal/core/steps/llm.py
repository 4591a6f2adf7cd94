"""Steps that ask a chat model, once or until it needs no more tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel

from petal.core.config.agent import StepConfig
from petal.core.config.steps import LLMOptions, ModelOptions
from petal.core.steps.dangling import Conversation, Mender
from petal.core.steps.prompts import Prompt
from petal.core.steps.registry import StepContext, StepNodes, options_of
from petal.core.steps.tool import tool_node
from petal.errors import AgentConfigurationError
from petal.types.state import values_of

INPUT = "input"
"""The state's key for text from outside; where it is not set, what a human said last takes its place."""


def nodes(step: StepConfig, context: StepContext) -> StepNodes:
    """The node that asks, and with tools the node that runs them."""
    options = options_of(step, LLMOptions)
    question = Question.parse(options, step.name, context)
    output = StructuredOutput.parse(options, step.name, context)
    toolbox = context.toolbox(options.tools, step.name) if options.tools else None
    source = context.model(options.llm, step.name)
    mender = Mender(step.name, options, toolbox, context)

    def model() -> Runnable[Any, Any]:
        chat = source.get()
        if output is not None:
            return chat.with_structured_output(output.model)
        return chat.bind_tools(toolbox.tools) if toolbox else chat

    def update(asked: Asked, answer: Any) -> dict[str, Any]:
        return output.update(asked, answer) if output else asked.update(answer)

    def ask(state: Any, config: RunnableConfig) -> Any:
        conversation = mender.mend(state, config)
        asked = question.ask(state, conversation)
        return conversation.update(update(asked, model().invoke(asked.sent, config)))

    async def aask(state: Any, config: RunnableConfig) -> Any:
        if toolbox:
            await toolbox.aload()
        conversation = await mender.amend(state, config)
        asked = question.ask(state, conversation)
        return conversation.update(update(asked, await model().ainvoke(asked.sent, config)))

    tools = None
    if toolbox:
        tools = tool_node(toolbox, tools_name(step.name), context, options.scratchpad_key, options.on_unknown)
    return StepNodes(RunnableLambda(ask, afunc=aask, name=step.name), tools)


def tools_name(step: str) -> str:
    """Name of the node that runs the tools of an llm step."""
    return f"{step}_tools"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent to the model, and which of it the state does not hold yet."""

    system: str | None
    messages: list[BaseMessage]
    new: list[BaseMessage]

    @property
    def sent(self) -> list[BaseMessage]:
        """The conversation with the system prompt before it."""
        return self.messages if self.system is None else [SystemMessage(self.system), *self.messages]

    def update(self, answer: BaseMessage) -> dict[str, Any]:
        """The state's update once the model has answered."""
        return {"messages": [*self.new, answer]}


@dataclass(frozen=True, slots=True)
class Question:
    """How a step makes the model's input from the state."""

    step: str
    prompt: Prompt | None
    system: Prompt | None

    @classmethod
    def parse(cls, options: ModelOptions, step: str, context: StepContext) -> Question:
        """The question, its prompts checked against the state's keys."""
        return cls(
            step,
            *(
                None if template is None else Prompt.parse(template, step, context.keys)
                for template in (options.prompt_template, options.system_prompt)
            ),
        )

    def ask(self, state: Any, conversation: Conversation) -> Asked:
        """The messages to send: the system prompt, the state's conversation, the filled prompt.

        A filled prompt becomes part of the conversation. Two exceptions: an answer of tools needs no
        prompt before the model goes on, and where `{input}` stands for what a human has just said in
        `messages`, the filled prompt takes that message's place in what is sent.

        Raises:
            PromptKeyError: If a prompt names a key that has no value.
            AgentConfigurationError: If there is nothing to send.
        """
        values = values_of(state)
        history = conversation.messages
        last = history[-1] if history else None
        sent: list[BaseMessage] = history
        new: list[BaseMessage] = []
        if self.prompt is not None and not conversation.goes_on:
            spoken = last.text if isinstance(last, HumanMessage) else None
            if INPUT in self.prompt.keys and spoken is not None and not self._fresh_input(values, history):
                values = {**values, INPUT: spoken}
                sent = [*history[:-1], HumanMessage(self.prompt.fill(values))]
            else:
                new = [HumanMessage(self.prompt.fill(values))]
                sent = [*history, *new]
        if not sent:
            raise AgentConfigurationError(
                f"Step {self.step!r} has nothing to answer: the state holds no messages, and the step has no "
                "prompt_template. Pass {'messages': [...]}, or set prompt_template='{input}'."
            )
        return Asked(None if self.system is None else self.system.fill(values), sent, new)

    def _fresh_input(self, values: dict[str, Any], history: Sequence[BaseMessage]) -> bool:
        """Whether the state's input is new: an old one stands in the conversation, filled in, already."""
        if not values.get(INPUT):
            return False
        assert self.prompt is not None
        filled = self.prompt.fill(values)
        return all(message.text != filled for message in history if isinstance(message, HumanMessage))


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """An answer in the form of a pydantic model, and where it goes."""

    model: type[BaseModel]
    key: str | None

    @classmethod
    def parse(cls, options: ModelOptions, step: str, context: StepContext) -> StructuredOutput | None:
        """The form that the options ask for, if any, checked against the state's keys."""
        model = options.structured_output
        if model is None:
            return None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise AgentConfigurationError(f"Step {step!r}: structured_output must be a pydantic model, not {model!r}.")
        if isinstance(options, LLMOptions) and options.tools:
            raise AgentConfigurationError(
                f"Step {step!r} has both tools and structured_output; use with_react_loop, or put the form into a "
                "step of its own."
            )
        for key in [options.key] if options.key else model.model_fields:
            context.require_key(key, step, "the structured answer")
        return cls(model, options.key)

    def update(self, asked: Asked, answer: Any) -> dict[str, Any]:
        """The state's update: the answer under its key or keys, and as JSON in the conversation."""
        if not isinstance(answer, self.model):
            raise TypeError(f"The model gave no {self.model.__name__}: {answer!r}")
        return {**self.values(answer), "messages": [*asked.new, AIMessage(answer.model_dump_json())]}

    def values(self, answer: BaseModel) -> dict[str, Any]:
        """The answer under its key, or each field under its own."""
        return {self.key: answer} if self.key else {name: getattr(answer, name) for name in self.model.model_fields}
