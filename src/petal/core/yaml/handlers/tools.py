"""The tools of an agent, as a YAML file names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from petal.core.yaml.document import Place
from petal.core.yaml.format import ToolEntry
from petal.core.yaml.mistakes import unknown
from petal.core.yaml.paths import beside
from petal.core.yaml.resolution import Resolution
from petal.tools.mcp import MCPServer
from petal.types.references import is_reference


def tools_of(entries: Mapping[str, ToolEntry], resolution: Resolution) -> dict[str, Any]:
    """The tools under `tools:`, by name; where a mistake was noted, None.

    A function that has the name of its tool, and no other description than its own, stays the function that it is.
    """
    tools: dict[str, Any] = {}
    for name, entry in entries.items():
        if entry.mcp is not None:
            tools[name] = mcp_server(entry.mcp, resolution.folder)
            continue
        assert entry.function is not None
        place: Place = ("tools", name)
        written = resolution.mistakes.has((*place, "function"))
        found = _found((*place, "function") if written else place, entry.function, resolution)
        try:
            tools[name] = found if found is None else named(found, name, entry.description)
        except Exception as error:
            tools[name] = None
            resolution.mistakes.add(place, f"{entry.function!r} cannot be a tool: {error}")
    return tools


def chosen(names: Sequence[str], tools: Mapping[str, Any], place: Place, resolution: Resolution) -> tuple[Any, ...]:
    """The tools of a step.

    Args:
        names: Names under `tools:`, or `package.module:name`.
        tools: The tools by name.
        place: Where the names stand.
        resolution: Finds what references name.
    """
    found = []
    for index, name in enumerate(names):
        if name in tools:
            found.append(tools[name])
        elif is_reference(name):
            found.append(_found((*place, index), name, resolution))
        else:
            problem = unknown("tool", name, tools, "; or write package.module:name")
            resolution.mistakes.add((*place, index), problem)
    return tuple(found)


def named(tool: Any, name: str, description: str | None) -> Any:
    """The tool under a name and with a description of its own, if they are not its own already."""
    if isinstance(tool, BaseTool):
        described = description or tool.description
        if (name, described) == (tool.name, tool.description):
            return tool
        return tool.model_copy(update={"name": name, "description": described})
    if description is None and getattr(tool, "__name__", None) == name:
        return tool
    form = {"coroutine": tool} if inspect.iscoroutinefunction(tool) else {"func": tool}
    return StructuredTool.from_function(**form, name=name, description=description)


def mcp_server(server: MCPServer, folder: Path) -> MCPServer:
    """The server, whose program is started in the document's folder, or in one that is relative to it."""
    return server if server.command is None else server.model_copy(update={"cwd": beside(server.cwd or ".", folder)})


def _found(place: Place, reference: str, resolution: Resolution) -> Any:
    return resolution.find(place, reference, "a function or a LangChain tool", _is_tool)


def _is_tool(found: Any) -> bool:
    return isinstance(found, BaseTool) or callable(found)
