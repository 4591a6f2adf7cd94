"""`petal diagram`: the agent's graph as Mermaid text."""

from __future__ import annotations

from contextlib import closing

from petal.cli.options import AgentFile, AsJson, Debug
from petal.cli.rendering import print_json


def diagram(agent: AgentFile, as_json: AsJson = False, debug: Debug = False) -> None:
    """Print the agent's graph as Mermaid text, for a README or mermaid.live."""
    from petal.cli.loading import load

    with closing(load(agent, None)) as built:
        text = built.diagram()
    if as_json:
        print_json({"name": built.name, "mermaid": text})
    else:
        print(text.rstrip("\n"))
