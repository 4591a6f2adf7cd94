"""The tools of one step: those that are here, and those that a server has to be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as tool_of

from petal.errors import AgentConfigurationError
from petal.tools.mcp import MCPServer


class Toolbox:
    """Functions, LangChain tools, tools that the model's provider runs itself (dicts), and MCP servers.

    Raises:
        AgentConfigurationError: If one of them is none of these, or a function that can be no tool, or two have one
            name.
    """

    def __init__(self, tools: Sequence[Any], step: str) -> None:
        for tool in tools:
            if not (callable(tool) or isinstance(tool, dict | MCPServer) or hasattr(tool, "invoke")):
                raise AgentConfigurationError(
                    f"Step {step!r} has a tool {tool!r}; give a function, a LangChain tool or an MCPServer."
                )
            if callable(tool) and not isinstance(tool, BaseTool):
                _check_function(tool, step)
        self._given, self._step = tuple(tools), step
        _check_names(tools, step)
        self._loaded = None if any(isinstance(tool, MCPServer) for tool in tools) else list(tools)

    @property
    def is_loaded(self) -> bool:
        """Whether all tools are here; true from the beginning where no server has some."""
        return self._loaded is not None

    @property
    def tools(self) -> list[Any]:
        """All tools; they must be loaded."""
        if self._loaded is None:
            raise RuntimeError("Tools of an MCP server need the async face of the graph, or an Agent, which has both.")
        return self._loaded

    async def aload(self) -> list[Any]:
        """All tools, after asking the servers for theirs.

        Raises:
            ToolServerError: If a server cannot be reached.
            AgentConfigurationError: If a tool of a server has the name of another one.
        """
        if self._loaded is None:
            servers = [tool for tool in self._given if isinstance(tool, MCPServer)]
            listed = dict(zip(map(id, servers), await asyncio.gather(*(s.aload() for s in servers)), strict=True))
            tools = [one for tool in self._given for one in listed.get(id(tool), [tool])]
            _check_names(tools, self._step)
            self._loaded = tools
        return self._loaded


def _check_function(function: Callable[..., Any], step: str) -> None:
    """See that a function can be a tool: it is described, and its parameters have types that are known."""
    try:
        tool_of(function)
    except Exception as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise AgentConfigurationError(f"Step {step!r} has a tool {name!r} that cannot be one: {error}") from error


def _check_names(tools: Sequence[Any], step: str) -> None:
    """See that no two tools have one name, under which only the last would be called."""
    names = [tool.name if isinstance(tool, BaseTool) else getattr(tool, "__name__", None) for tool in tools]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise AgentConfigurationError(f"Step {step!r} has two tools called {name!r}; give one another name.")
