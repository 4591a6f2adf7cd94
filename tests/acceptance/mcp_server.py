"""A real MCP server for the tests, over standard input and output or over HTTP.

python mcp_server.py [PORT]
"""

from __future__ import annotations

import os
import sys

from mcp.server.fastmcp import FastMCP

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 0
server = FastMCP("numbers", host="127.0.0.1", port=PORT or 8000, log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def folder() -> str:
    """The folder in which the server was started."""
    return os.getcwd()


if __name__ == "__main__":
    server.run("streamable-http" if PORT else "stdio")
