"""From YAML files to the configurations that code would build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from langgraph.graph import END
from pydantic import BaseModel, ValidationError

from petal.core.config.agent import AgentConfig, StepConfig
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.yaml.document import Document, Place, read
from petal.core.yaml.format import BUILT_IN, AgentFile, StepEntry, StepFile
from petal.core.yaml.handlers.checkpointer import located
from petal.core.yaml.handlers.migrations import migration_of
from petal.core.yaml.handlers.prompts import check_prompts
from petal.core.yaml.handlers.state import state_of
from petal.core.yaml.handlers.steps import step_of
from petal.core.yaml.handlers.tools import tools_of
from petal.core.yaml.mistakes import Mistakes, unknown
from petal.core.yaml.paths import local_model
from petal.core.yaml.resolution import Resolution
from petal.errors import AgentConfigurationError, CheckpointerConfigurationError, YAMLConfigurationError

if TYPE_CHECKING:
    from petal.core.steps.registry import StepRegistry

FileT = TypeVar("FileT", bound=BaseModel)

_BESIDE_STEP = ("llm", "checkpointer", "tools")
_MODEL_KINDS = ("llm", "react")


class LoadedStep(NamedTuple):
    """What a file of one step holds."""

    step: StepConfig
    checkpointer: CheckpointerConfig | None
    """Where the agent that gets the step keeps its state, if the file says so."""


def load_agent(source: str | Path, *, registry: StepRegistry | None = None) -> AgentConfig:
    """The agent that a YAML file describes: equal to the one that code would build.

    Args:
        source: The file.
        registry: The kinds of step there are; default: the built-in ones.

    Raises:
        YAMLConfigurationError: If the file cannot be read or holds a mistake; each is named with its line and key.
    """
    path = Path(source)
    return parse_agent(_text(path), base=path.parent, file=path, registry=registry)


def load_step(source: str | Path, *, registry: StepRegistry | None = None) -> LoadedStep:
    """The step that a YAML file of one step describes.

    Args:
        source: The file: a step's keys, and beside them `llm`, `checkpointer` and `tools`.
        registry: The kinds of step there are; default: the built-in ones.

    Raises:
        YAMLConfigurationError: If the file cannot be read or holds a mistake; each is named with its line and key.
    """
    path = Path(source)
    return parse_step(_text(path), base=path.parent, file=path, registry=registry)


def parse_agent(
    text: str, *, base: Path, file: Path | None = None, registry: StepRegistry | None = None
) -> AgentConfig:
    """The agent that YAML text describes.

    Args:
        text: The text.
        base: The folder that paths are relative to, and where modules are looked for first.
        file: Where the text comes from, for messages.
        registry: The kinds of step there are; default: the built-in ones.

    Raises:
        YAMLConfigurationError: If the text holds a mistake.
    """
    document = _mapping(text, file, "An agent")
    if "type" in document.value and "steps" not in document.value:
        raise document.error(("type",), "The file holds a single step; put it under 'steps:', or use node_from_yaml.")
    parsed, resolution = _parsed(document, document.value, AgentFile, base)
    mistakes = resolution.mistakes
    kinds = registry.kinds if registry is not None else BUILT_IN
    state_type = state_of(parsed, resolution)
    tools = tools_of(parsed.tools, resolution)
    steps = [step_of(step, ("steps", i), tools, kinds, resolution) for i, step in enumerate(parsed.steps)]
    checkpointer = _checkpointer(document.value.get("checkpointer"), resolution)
    migrations = [
        migration_of(migration, ("migrations", i), resolution) for i, migration in enumerate(parsed.migrations)
    ]
    _check_ways(parsed.steps, mistakes)
    mistakes.raise_any()
    check_prompts(parsed.steps, state_type, mistakes)
    mistakes.raise_any()
    config = AgentConfig(
        name=parsed.name,
        state_type=state_type,
        steps=tuple(step for step in steps if step is not None),
        llm=local_model(parsed.llm, resolution.folder) if parsed.llm else None,
        checkpointer=checkpointer,
        version=parsed.version,
        migrations=tuple(migrations),
    )
    try:
        return config.validated()
    except AgentConfigurationError as error:
        mistakes.add_error(("migrations",) if parsed.migrations else ("version",), error)
        raise mistakes.error() from None


def parse_step(text: str, *, base: Path, file: Path | None = None, registry: StepRegistry | None = None) -> LoadedStep:
    """The step that YAML text describes; the arguments are those of `parse_agent`.

    Raises:
        YAMLConfigurationError: If the text holds a mistake.
    """
    document = _mapping(text, file, "A step")
    if "steps" in document.value and "type" not in document.value:
        raise document.error(("steps",), "The file holds a whole agent, not a single step; use from_yaml.")
    beside = {key: document.value[key] for key in _BESIDE_STEP if key in document.value}
    own = {key: value for key, value in document.value.items() if key not in beside}
    parsed, resolution = _parsed(document, {**beside, "step": own}, StepFile, base)
    tools = tools_of(parsed.tools, resolution)
    kinds = registry.kinds if registry is not None else BUILT_IN
    step = step_of(parsed.step, (), tools, kinds, resolution)
    if parsed.llm is not None and parsed.step.type not in _MODEL_KINDS:
        resolution.mistakes.add(("llm",), f"A step of type {parsed.step.type!r} asks no model.")
    checkpointer = _checkpointer(document.value.get("checkpointer"), resolution)
    resolution.mistakes.raise_any()
    assert step is not None, "without a mistake there is a step"
    if parsed.llm is not None and "llm" not in step.config:
        config = {"llm": local_model(parsed.llm, resolution.folder), **step.config}
        step = step.model_copy(update={"config": config})
    return LoadedStep(step, checkpointer)


def _missing(path: Path) -> str:
    """What to say of a file that is not there."""
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r}."
    there = sorted(other.name for other in path.parent.glob("*.y*ml"))
    if there:
        return unknown("file", path.name, there)
    return f"There is no file {path.name!r}, nor any other YAML file beside it."


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise YAMLConfigurationError(path, None, "", _missing(path)) from None
    except IsADirectoryError:
        raise YAMLConfigurationError(path, None, "", "This is a folder; name the YAML file in it.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise YAMLConfigurationError(path, line, "", "The file is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise YAMLConfigurationError(path, None, "", f"The file cannot be read: {error.strerror}.") from error


def _mapping(text: str, file: Path | None, what: str) -> Document:
    document = read(text, file)
    if not isinstance(document.value, dict):
        found = Mistakes(document).shown(())
        raise document.error((), f"{what} is a mapping of keys such as 'name:'; found {found}.")
    return document


def _parsed(document: Document, value: Any, model: type[FileT], base: Path) -> tuple[FileT, Resolution]:
    mistakes = Mistakes(document)
    try:
        parsed = model.model_validate(value)
    except ValidationError as error:
        mistakes.add_validation(error, model)
        raise mistakes.error() from None
    return parsed, Resolution(base.absolute(), mistakes)


def _checkpointer(value: Any, resolution: Resolution) -> CheckpointerConfig | None:
    if value is None:
        return None
    try:
        config = CheckpointerConfig.from_url(value) if isinstance(value, str) else CheckpointerConfig(**value)
    except CheckpointerConfigurationError as error:
        resolution.mistakes.add_error(("checkpointer",), error)
        return None
    return located(config, resolution.folder)


def _check_ways(steps: tuple[StepEntry, ...], mistakes: Mistakes) -> None:
    """Note each name that is given twice and each step that leads to none."""
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        place: Place = ("steps", index)
        if step.name in names[:index]:
            mistakes.add((*place, "name"), f"Step {names.index(step.name) + 1} is called {step.name!r} too.")
        ways: list[tuple[Place, str | None]] = [((*place, "next"), step.next)]
        if step.condition is not None:
            ways += [((*place, "condition", "routes", key), way) for key, way in step.condition.routes.items()]
        if step.approval is not None and step.approval.on_reject not in ("skip", "fail"):
            ways.append(((*place, "approval", "on_reject"), step.approval.on_reject))
        for at, way in ways:
            if way is not None and way != END and way not in names:
                mistakes.add(at, unknown("step", way, [*names, "END"]))
