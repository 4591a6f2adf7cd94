"""Tools that live in an MCP server, which is a program to start or an address to reach."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from petal.core.config.checkpointer import redacted
from petal.errors import ToolServerError

_QUERY = re.compile(r"(\bhttps?://[^\s'\"?]+)\?[^\s'\"]*")
"""The query of an address, which may hold a key."""
_SECRET = re.compile(r"(?i)^--?[\w-]*(key|token|secret|passw|credential)[\w-]*$")
"""The name of a program's option whose value is not shown."""


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

    timeout: float = Field(default=60, gt=0)
    """Seconds that it may take to list its tools, its start included."""

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
        return _shown(self.url) if self.url else " ".join((self.command or "", *_without_secrets(self.args)))

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            match name:
                case "url" if value is not None:
                    yield name, _shown(value)
                case "args":
                    yield name, tuple(_without_secrets(value))
                case _:
                    yield name, value

    __str__ = BaseModel.__repr__

    async def aload(self) -> list[BaseTool]:
        """The server's tools.

        Raises:
            ToolServerError: If the package is missing, the server cannot be reached or does not answer in time, or
                a tool of `only` is not there.
        """
        if importlib.util.find_spec("langchain_mcp_adapters") is None:
            raise ToolServerError(self.where, "the package langchain-mcp-adapters is missing: pip install 'petal[mcp]'")
        from langchain_mcp_adapters.client import MultiServerMCPClient

        client = MultiServerMCPClient({"server": self._connection()})  # type: ignore[dict-item]
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                tools = await client.get_tools()
        except Exception as error:
            if limit.expired():
                problem = f"it did not list its tools within {self.timeout:g} s; raise its timeout to allow it longer"
                raise ToolServerError(self.where, problem) from error
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
    """The innermost cause, without secrets: task groups wrap what went wrong several times over."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {_shown(str(error))}"


def _shown(text: str) -> str:
    """A text in which addresses have neither passwords nor queries."""
    return _QUERY.sub(r"\1", redacted(text))


def _without_secrets(args: Iterable[str]) -> Iterator[str]:
    """A program's arguments, as they may be shown."""
    is_secret = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if equals and _SECRET.match(name):
            yield f"{name}=***"
        else:
            yield "***" if is_secret else _shown(arg)
        is_secret = not equals and _SECRET.match(name) is not None
