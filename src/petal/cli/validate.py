"""`petal validate`: is the file right, before anything runs."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petal.cli.failures import ExitCode, explained
from petal.cli.options import AgentFile, AsJson, Debug
from petal.cli.rendering import print_fields, print_json
from petal.errors import ModelError, PetalError, YAMLConfigurationError

if TYPE_CHECKING:
    from petal.core.agent import Agent
    from petal.core.config.agent import LLMConfig, StepConfig


def validate(agent: AgentFile, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check an agent's file: its keys, its functions, its models' packages.

    Nothing is run, opened or asked; keys of providers are not needed.
    """
    found: dict[str, Any] = {}
    try:
        found, mistakes = _looked_at(agent)
    except PetalError as error:
        if debug:
            raise
        mistakes = _mistakes(error, agent)
    if as_json:
        print_json({"valid": not mistakes, "file": str(agent), **found, "mistakes": mistakes})
    elif mistakes:
        for mistake in mistakes:
            print(_line(mistake), file=sys.stderr)
    else:
        steps = "\n".join(
            f"{step['name']} ({', '.join(filter(None, (step['type'], step['model'])))})" for step in found["steps"]
        )
        print_fields(
            {"Agent": found["name"], "Steps": steps, "Storage": found["storage"] or "none: nothing outlives a run"}
        )
        for oddity in found["warnings"]:
            print(_line(oddity), file=sys.stderr)
        print(f"{agent} is valid.")
    if mistakes:
        raise typer.Exit(ExitCode.FAILED)


def _looked_at(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the file describes, and what its models lack."""
    from petal.cli.loading import load
    from petal.core.models import check_model

    mistakes = []
    with closing(load(file, None)) as agent:
        models = {step.name: _model(step, agent) for step in agent.config.steps}
        for name, model in models.items():
            if model is None:
                continue
            try:
                check_model(model)
            except (ModelError, PetalError) as error:
                mistakes.append(_mistake(file, None, f"steps: {name}", explained(error)))
        steps = [
            {"name": step.name, "type": step.type, "model": model.name if (model := models[step.name]) else None}
            for step in agent.config.steps
        ]
        found = {"name": agent.name, "steps": steps, "storage": getattr(agent.checkpointer, "where", None)}
        return {**found, "warnings": _warnings(file, agent)}, mistakes


def _warnings(file: Path, agent: Agent) -> list[dict[str, Any]]:
    """What is odd about the ways between the steps, with its line."""
    from petal.core.config.ways import oddities
    from petal.core.yaml.document import read

    document = read(file.read_text("utf-8-sig"), file)
    names = [step.name for step in agent.config.steps]
    told = [document.error(("steps", names.index(name)), text) for name, text in oddities(agent.config.steps).items()]
    return [_mistake(one.file, one.line, one.key, one.problem) for one in told]


def _model(step: StepConfig, agent: Agent) -> LLMConfig | None:
    """The model that a step asks, if it asks one."""
    from petal.core.config.agent import LLMConfig

    if step.type not in ("llm", "react"):
        return None
    named = step.config.get("llm")
    model = agent.config.llm if named is None else named
    return LLMConfig.model_validate(model)


def _mistakes(error: PetalError, file: Path) -> list[dict[str, Any]]:
    """An error as one entry a mistake; what is found when the graph is put together has no line."""
    if not isinstance(error, YAMLConfigurationError):
        return [_mistake(file, None, "", explained(error))]
    return [_mistake(one.file, one.line, one.key, one.problem) for one in (error, *error.others)]


def _mistake(file: Path | str | None, line: int | None, key: str, problem: str) -> dict[str, Any]:
    from petal.core.config.checkpointer import redacted

    return {"file": None if file is None else str(file), "line": line, "key": key, "problem": redacted(problem)}


def _line(mistake: dict[str, Any]) -> str:
    where = YAMLConfigurationError(mistake["file"], mistake["line"], mistake["key"], mistake["problem"])
    return f"petal: {where}" if mistake["file"] else f"petal: {mistake['problem']}"
