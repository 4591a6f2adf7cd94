"""Tools that live in an MCP server, which is a program to start or an address to reach."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal, Self

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from petal.errors import ToolServerError


class MCPServer(BaseModel):
    """An MCP server; given among a step's tools it stands for all tools that it offers.

    ```python
    AgentFactory(DefaultState).with_react_loop([MCPServer(command="python", args=["server.py"])], llm="openai:gpt-4o")
    ```

    Its tools are listed when the agent is opened. Each call opens a session of its own, so a call works in
    any event loop and nothing stays open between two of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    command: str | None = None
    """The program to start, which speaks MCP over its standard input and output."""
    args: tuple[str, ...] = ()
    """The program's arguments."""
    env: dict[str, str] | None = Field(default=None, repr=False)
    """The program's environment; default: a few harmless variables of this process."""
    cwd: str | None = None
    """The folder it is started in; default: this process's."""
    url: str | None = None
    """The address of a server that runs already."""
    transport: Literal["stdio", "streamable_http", "sse"] | None = None
    """Default: `stdio` with a command, `streamable_http` with a url."""
    headers: dict[str, str] | None = Field(default=None, repr=False)
    """HTTP headers of each request, e.g. an Authorization."""
    only: tuple[str, ...] | None = None
    """Names of the tools to offer; default: all."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has either a command to start or a url")
        if self.command is None and (self.args or self.env or self.cwd or self.transport == "stdio"):
            raise ValueError("args, env, cwd and stdio belong to a command, and none is given")
        if self.url is None and (self.headers or self.transport in ("streamable_http", "sse")):
            raise ValueError("headers and HTTP transports belong to a url, and none is given")
        return self

    @property
    def where(self) -> str:
        """The server for messages: its command or address, without its secrets."""
        return self.url.partition("?")[0] if self.url else " ".join((self.command or "", *self.args))

    async def aload(self) -> list[BaseTool]:
        """The server's tools.

        Raises:
            ToolServerError: If the package is missing, the server cannot be reached, or a tool of `only` is
                not there.
        """
        if importlib.util.find_spec("langchain_mcp_adapters") is None:
            raise ToolServerError(self.where, "the package langchain-mcp-adapters is missing: pip install 'petal[mcp]'")
        from langchain_mcp_adapters.client import MultiServerMCPClient

        client = MultiServerMCPClient({"server": self._connection()})  # type: ignore[dict-item]
        try:
            tools = await client.get_tools()
        except Exception as error:
            raise ToolServerError(self.where, f"its tools cannot be listed: {_cause(error)}") from error
        if self.only is None:
            return tools
        offered = {tool.name: tool for tool in tools}
        for name in self.only:
            if name not in offered:
                raise ToolServerError(self.where, f"it has no tool {name!r}, but {', '.join(offered)}")
        return [offered[name] for name in self.only]

    def _connection(self) -> Mapping[str, Any]:
        if self.command is not None:
            return {
                "transport": "stdio",
                "command": self.command,
                "args": list(self.args),
                "env": self.env,
                "cwd": self.cwd,
            }
        return {"transport": self.transport or "streamable_http", "url": self.url, "headers": self.headers}


def _cause(error: BaseException) -> str:
    """The innermost cause: task groups wrap what went wrong several times over."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
