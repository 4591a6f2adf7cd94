"""`petal schema`: the JSON Schema of agent files."""

from __future__ import annotations

from petal.cli.options import AsJson, Debug
from petal.cli.rendering import print_json


def schema(as_json: AsJson = False, debug: Debug = False) -> None:
    """Print the JSON Schema of agent files, for editors; it is JSON with or without --json."""
    from petal.core.yaml.format import schema as schema_of_agents

    print_json(schema_of_agents())
