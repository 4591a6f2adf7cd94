"""Tools of real MCP servers, over standard input and output and over HTTP, in every kind of step."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import AgentConfigurationError, ToolServerError
from petal.testing.models import ScriptedChatModel
from petal.tools.mcp import MCPServer
from petal.types.state import DefaultState

SERVER = Path(__file__).with_name("mcp_server.py")


@pytest.fixture
def over_http() -> Iterator[MCPServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(SERVER), str(port)], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield MCPServer(url=f"http://127.0.0.1:{port}/mcp")
        process.terminate()


@pytest.fixture(params=["stdio", "http"])
def server(request: pytest.FixtureRequest) -> MCPServer:
    if request.param == "stdio":
        return MCPServer(command=sys.executable, args=(str(SERVER),))
    found: MCPServer = request.getfixturevalue("over_http")
    return found


def script() -> ScriptedChatModel:
    call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "call-1"}])
    return ScriptedChatModel(replies=[call, "It is 5."])


async def test_a_react_loop_calls_a_servers_tool(server: MCPServer, tmp_path: Path) -> None:
    storage = CheckpointerConfig(type="sqlite", config={"db_file": tmp_path / "mcp.db"})
    factory = AgentFactory(DefaultState).with_react_loop([server], llm=script()).with_checkpointer(storage)
    async with factory.build() as agent:
        result = await agent.ainvoke("Add.", thread_id="t")
        assert [message.text for message in result["messages"]] == ["Add.", "", "5", "It is 5."]
        assert [(call.name, call.status) for call in await agent.thread("t").atool_calls()] == [("add", "done")]


def test_a_chat_with_tools_calls_a_servers_tool_in_sync_code(server: MCPServer) -> None:
    with AgentFactory(DefaultState).with_chat(llm=script()).with_tools([server]).build() as agent:
        assert [message.text for message in agent.invoke("Add.")["messages"]] == ["Add.", "", "5", "It is 5."]


def test_only_some_of_a_servers_tools_are_offered() -> None:
    here = MCPServer(command=sys.executable, args=(str(SERVER),), only=("add",))
    model = script()
    with AgentFactory(DefaultState).with_chat(llm=model).with_tools([here]).build() as agent:
        agent.invoke("Add.")
    missing = here.model_copy(update={"only": ("subtract",)})
    agent = AgentFactory(DefaultState).with_chat(llm=model).with_tools([missing]).build()
    with pytest.raises(ToolServerError, match="it has no tool 'subtract', but add, folder"):
        agent.open()
    agent.close()


def test_a_servers_tool_of_another_ones_name_is_refused() -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    server = MCPServer(command=sys.executable, args=(str(SERVER),))
    agent = AgentFactory(DefaultState).with_chat(llm=script()).with_tools([server, add]).build()
    with pytest.raises(AgentConfigurationError, match="Step 'chat' has two tools called 'add'"):
        agent.open()
    agent.close()


@pytest.mark.parametrize(
    "gone",
    [
        MCPServer(command=sys.executable, args=("-c", "raise SystemExit(1)")),
        MCPServer(command="no-such-program-anywhere"),
        MCPServer(url="http://127.0.0.1:9/mcp", headers={"Authorization": "Bearer secret"}),
    ],
    ids=["dies", "missing", "unreachable"],
)
async def test_an_unreachable_server_is_said_before_anything_is_saved(gone: MCPServer, tmp_path: Path) -> None:
    storage = CheckpointerConfig(type="sqlite", config={"db_file": tmp_path / "mcp.db"})
    factory = AgentFactory(DefaultState).with_react_loop([gone], llm=script()).with_checkpointer(storage)
    agent = factory.build()
    with pytest.raises(ToolServerError, match="its tools cannot be listed") as caught:
        await agent.ainvoke("Add.", thread_id="t")
    assert "secret" not in str(caught.value) + repr(gone)
    assert not (tmp_path / "mcp.db").exists()
    await agent.aclose()


class _Refusing(BaseHTTPRequestHandler):
    """Takes no key, and so no request."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        program = MCPServer(command=sys.executable, args=("-c", "import time; time.sleep(60)"), timeout=0.5)
        server = program if way == "stdio" else MCPServer(url=url, timeout=0.5)
        agent = AgentFactory(DefaultState).with_react_loop([server], llm=script()).build()
        with pytest.raises(ToolServerError, match=r"it did not list its tools within 0\.5 s"):
            await asyncio.wait_for(agent.ainvoke("Add."), 20)
        await agent.aclose()


async def test_what_a_server_refuses_is_said_without_secrets() -> None:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{http.server_port}"
        server = MCPServer(url=f"http://ada:secret-1@{host}/mcp?apiKey=secret-2")
        with pytest.raises(ToolServerError, match="401 Unauthorized") as caught:
            await server.aload()
        http.shutdown()
    assert str(caught.value).startswith(f"MCP server 'http://ada:***@{host}/mcp': ")
    assert "secret" not in str(caught.value) + repr(server) + str(server)


def test_a_programs_secrets_are_not_shown() -> None:
    args = ("-y", "server", "postgresql://ada:secret-1@db/shop", "--token", "secret-2", "--api-key=secret-3", "-p=3")
    server = MCPServer(command="npx", args=args)
    assert server.where == "npx -y server postgresql://ada:***@db/shop --token *** --api-key=*** -p=3"
    assert "secret" not in repr(server) + str(server)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "either a command to start or a url"),
        ({"command": "x", "url": "http://127.0.0.1/"}, "either a command to start or a url"),
        ({"url": "http://127.0.0.1/", "args": ["x"]}, "belong to a command"),
        ({"command": "x", "headers": {"a": "b"}}, "belong to a url"),
    ],
)
def test_a_server_has_one_way_in(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MCPServer(**fields)


def test_a_yaml_file_names_a_server_beside_it(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER.read_text())
    (tmp_path / "agent.yaml").write_text(
        f"""
llm: "demo:"
tools:
  numbers:
    mcp: {{command: {sys.executable}, args: [server.py]}}
steps:
  - {{type: react, name: answer, config: {{tools: [numbers]}}}}
"""
    )
    with AgentFactory.from_yaml(tmp_path / "agent.yaml").build() as agent:
        assert str(tmp_path) in agent.invoke("call folder")["messages"][-1].text
