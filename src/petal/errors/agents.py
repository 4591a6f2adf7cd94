"""Errors of what an agent is made of: its definition, its models and tools, its steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from petal.errors.base import PetalError, known_names


class AgentConfigurationError(PetalError, ValueError):
    """An agent's definition cannot work as it stands."""


class YAMLConfigurationError(AgentConfigurationError):
    """A YAML file does not describe an agent, a step or a checkpointer.

    Attributes:
        file: The file, or None for text that came from no file.
        line: Line of the mistake, counted from 1.
        key: Dotted path of the key, e.g. `steps[0].config.provider`; empty for the whole document.
        problem: What was found, what is allowed, and the nearest known name.
        others: The document's further mistakes.
    """

    def __init__(
        self,
        file: Path | str | None,
        line: int | None,
        key: str,
        problem: str,
        others: tuple[YAMLConfigurationError, ...] = (),
    ) -> None:
        super().__init__(file, line, key, problem, others)
        self.file, self.line, self.key, self.problem, self.others = file, line, key, problem, others

    def __str__(self) -> str:
        return "\n".join([self._line(), *(str(other) for other in self.others)])

    def _line(self) -> str:
        where = str(self.file) if self.file is not None else "<text>"
        if self.line is not None:
            where += f":{self.line}"
        return f"{where}: {self.key}: {self.problem}" if self.key else f"{where}: {self.problem}"


class PromptKeyError(AgentConfigurationError, LookupError):
    """A prompt names a key that the state does not have."""

    def __init__(self, step: str, key: str, known: Sequence[str]) -> None:
        super().__init__(step, key, known)
        self.step, self.key, self.known = step, key, known

    def __str__(self) -> str:
        return (
            f"The prompt of step {self.step!r} names {{{self.key}}}, which the state does not have. "
            f"{known_names(self.key, self.known)} Write {{{{ and }}}} for literal braces."
        )


class ModelError(PetalError):
    """A chat model cannot be had."""


class UnknownModelError(ModelError, ValueError):
    """No provider of that name, or one without a model."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        if self.name in self.known:
            return f"{self.name!r} is a provider; write a model as 'provider:model', e.g. 'openai:gpt-4o' or 'demo:'."
        return (
            f"No model provider {self.name!r}; write a model as 'provider:model', e.g. 'openai:gpt-4o'. "
            f"{known_names(self.name, self.known)}"
        )


class ModelPackageMissingError(ModelError, ImportError):
    """The package of a model's provider is not installed."""

    def __init__(self, provider: str, package: str, install: str) -> None:
        super().__init__(provider, package, install)
        self.provider, self.package, self.install = provider, package, install

    def __str__(self) -> str:
        return f"Models of {self.provider!r} need the package {self.package!r}: {self.install}"


class ModelKeyMissingError(ModelError):
    """A model's provider wants a key, and there is none."""

    def __init__(self, provider: str, variable: str) -> None:
        super().__init__(provider, variable)
        self.provider, self.variable = provider, variable

    def __str__(self) -> str:
        return (
            f"Models of {self.provider!r} need a key: set the environment variable {self.variable}, "
            "or pass api_key in the model's configuration. Nothing was saved."
        )


class ToolServerError(PetalError, ConnectionError):
    """An MCP server does not give its tools.

    Attributes:
        where: The server's command or address.
        problem: What went wrong.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return f"MCP server {self.where!r}: {self.problem}"


class ThreadIdRequiredError(PetalError, ValueError):
    """A checkpointer is on, and no thread was named."""

    def __str__(self) -> str:
        return (
            "This agent keeps its state, so a run needs a thread: pass thread_id='user-123', or "
            "config={'configurable': {'thread_id': 'user-123'}}. The same id continues the same conversation."
        )


class CheckpointerRequiredError(PetalError):
    """State was asked of an agent that keeps none."""

    def __str__(self) -> str:
        return (
            "This agent has no checkpointer, so it has no threads; add "
            ".with_checkpointer(CheckpointerConfig(type='sqlite', config={'db_file': 'petal.db'}))."
        )


class StepRejectedError(PetalError):
    """A human said no to a step whose approval has `on_reject="fail"`."""

    def __init__(self, step: str, reason: str | None = None) -> None:
        super().__init__(step, reason)
        self.step, self.reason = step, reason

    def __str__(self) -> str:
        return f"Step {self.step!r} was not approved" + (f": {self.reason}" if self.reason else ".")


class StepGoneError(PetalError, LookupError):
    """A run would go on at a step that the agent no longer has. Nothing was run or saved.

    Attributes:
        step: The step.
        known: Those that the agent has; of a graph within a step, that graph's.
        within: The step in which that graph runs; "" for the agent itself.
    """

    def __init__(self, thread_id: str, step: str, known: Sequence[str], within: str = "") -> None:
        super().__init__(thread_id, step, known, within)
        self.thread_id, self.step, self.known, self.within = thread_id, step, known, within

    def __str__(self) -> str:
        whose = f"the graph of step {self.within!r}" if self.within else "the agent"
        return (
            f"Thread {self.thread_id!r} would go on at step {self.step!r}, which {whose} no longer has. "
            f"{known_names(self.step, self.known)} Give the step its name back, or move the thread on with "
            "update(values, as_node=...), or send new input, which drops what was left to do."
        )
