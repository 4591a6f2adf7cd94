"""A mistake in a YAML file: which file, line and key, what was found, what is allowed, and the nearest name."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from petal.core.yaml.loader import load_agent, load_step, parse_agent, parse_step
from petal.errors import YAMLConfigurationError

STEP = "steps: [{type: llm, name: chat}]\n"
OPTIONS = (
    "llm, prompt_template, system_prompt, tools, structured_output, key, scratchpad_key, dangling, on_unknown, "
    "provider, model, temperature, max_tokens, timeout, max_retries, base_url, api_key"
)


@pytest.fixture(autouse=True)
def fresh_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("petal", "lang", "pydantic")):
            del sys.modules[name]


def failure(text: str, base: Path = Path("/srv")) -> YAMLConfigurationError:
    with pytest.raises(YAMLConfigurationError) as raised:
        parse_agent(text, base=base, file=Path("agent.yaml"))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # the document
        (STEP + "name: {a: b}\n", "agent.yaml:2: name: Found a mapping; allowed: text."),
        (STEP + "name: true\n", "agent.yaml:2: name: Found true; allowed: text."),
        (
            STEP + "llm: {provider: x, api_key: 5}\n",
            "agent.yaml:2: llm.api_key: Found a value that is not shown; allowed: text.",
        ),
        ("- a\n", "agent.yaml:1: An agent is a mapping of keys such as 'name:'; found a list."),
        ("hello\n", "agent.yaml:1: An agent is a mapping of keys such as 'name:'; found 'hello'."),
        ("null\n", "agent.yaml:1: An agent is a mapping of keys such as 'name:'; found nothing."),
        ("name: x\n", "agent.yaml:1: steps: The key 'steps' is missing."),
        (
            "name: x\ntype: llm\n",
            "agent.yaml:2: type: The file holds a single step; put it under 'steps:', or use node_from_yaml.",
        ),
        ("name: x\nsteps: []\n", "agent.yaml:2: steps: Found an empty list; allowed: at least one."),
        ("name: x\nsteps:\n", "agent.yaml:2: steps: Found nothing; allowed: a list."),
        (
            STEP + "nmae: x\n",
            "agent.yaml:2: nmae: There is no key 'nmae'. Did you mean 'name'? "
            "Known: name, state_type, state_schema, llm, checkpointer, tools, steps, version, migrations.",
        ),
        (STEP + "3: x\n", "agent.yaml:2: [3]: There is no key '3'. Known: name, state_type, "),
        (STEP + "name: [x]\n", "agent.yaml:2: name: Found a list; allowed: text."),
        (STEP + "name: 3\n", "agent.yaml:2: name: Found 3; allowed: text."),
        # state
        (
            STEP + "state_type: ConversatonState\n",
            "agent.yaml:2: state_type: There is no state type 'ConversatonState'. Did you mean 'ConversationState'? "
            "Known: DefaultState, ConversationState, and package.module:Name.",
        ),
        (
            STEP + "state_type: json:loads\n",
            "agent.yaml:2: state_type: 'json:loads' is of type function, not a TypedDict, a dataclass "
            "or a pydantic model.",
        ),
        (
            STEP + "state_type: builtins:dict\n",
            "agent.yaml:2: state_type: 'builtins:dict' is the class dict, not a TypedDict, a dataclass "
            "or a pydantic model.",
        ),
        (STEP + "state_type: json:lods\n", "agent.yaml:2: state_type: 'json' has no 'lods'. Did you mean 'loads'?"),
        (
            STEP + "state_type: DefaultState\nstate_schema: {a: int}\n",
            "agent.yaml:1: Both state_type and state_schema are given; keep one.",
        ),
        (STEP + "state_schema: {}\n", "agent.yaml:2: state_schema: Found a mapping; allowed: at least one."),
        (
            STEP + "state_schema:\n  a: int\n  b:\n    default: 1\n",
            "agent.yaml:4: state_schema.b.type: The key 'type' is missing.",
        ),
        (
            STEP + "state_schema:\n  a: itn\n",
            "agent.yaml:3: state_schema.a: 'itn' is no type: unknown name 'itn'; did you mean 'int'? Known: str, ",
        ),
        (
            STEP + "state_schema:\n  a: 3\n",
            "agent.yaml:3: state_schema.a: Found 3; allowed: the name of a type or a mapping.",
        ),
        # models
        (STEP + "llm: 5\n", "agent.yaml:2: llm: Found 5; allowed: 'provider:model' or a mapping."),
        (
            STEP + "llm:\n  provider: x\n  temprature: 1\n",
            "agent.yaml:2: llm: No setting 'temprature'; did you mean 'temperature'?",
        ),
        (
            STEP + "llm:\n  provider: x\n  temperature: hot\n",
            "agent.yaml:4: llm.temperature: Found 'hot'; allowed: a number.",
        ),
        (
            STEP + "llm:\n  provider: x\n  max_tokens: 0\n",
            "agent.yaml:4: llm.max_tokens: Found 0; allowed: a number not less than 1.",
        ),
        # checkpointers
        (STEP + "checkpointer: 5\n", "agent.yaml:2: checkpointer: Found 5; allowed: a database URL or a mapping."),
        (
            STEP + "checkpointer:\n  type: sqlit\n",
            "agent.yaml:3: checkpointer.type: Found 'sqlit'; allowed: 'memory', 'sqlite', 'postgres'. "
            "Did you mean 'sqlite'?",
        ),
        (STEP + "checkpointer: {type: sqlite}\n", "agent.yaml:2: checkpointer.config: The key 'config' is missing."),
        (
            STEP + "checkpointer: {type: sqlite, config: {}}\n",
            "agent.yaml:2: checkpointer.config.db_file: The key 'db_file' is missing.",
        ),
        (
            STEP + "checkpointer:\n  type: postgres\n  config:\n    connection_string: x\n    shema: y\n",
            "agent.yaml:6: checkpointer.config.shema: There is no key 'shema'. Did you mean 'schema'? Known: ",
        ),
        (
            STEP + "checkpointer:\n  type: memory\n  config:\n    durability: snyc\n",
            "agent.yaml:5: checkpointer.config.durability: Found 'snyc'; allowed: 'sync', 'async' or "
            "'exit'. Did you mean 'sync'?",
        ),
        (
            STEP + "checkpointer:\n  enabled: 7\n",
            "agent.yaml:3: checkpointer.enabled: Found 7; allowed: true or false.",
        ),
        (
            STEP + "checkpointer: runs.db\n",
            "agent.yaml:2: checkpointer: 'runs.db' is no database URL; write sqlite:///",
        ),
        # tools
        (STEP + "tools: {1: 'json:loads'}\n", "agent.yaml:2: tools[1]: This key is no text; put it in quotes."),
        (STEP + "tools: {a: 5}\n", "agent.yaml:2: tools.a: Found 5; allowed: 'package.module:name' or a mapping."),
        (
            STEP + "tools:\n  a:\n    function: json:loads\n    descripton: x\n",
            "agent.yaml:5: tools.a.descripton: There is no key 'descripton'. Did you mean "
            "'description'? Known: function, description, mcp.",
        ),
        (
            STEP + "tools: {a: json.loads}\n",
            "agent.yaml:2: tools.a: 'json.loads' is no reference; write it as 'json:loads'.",
        ),
        (
            STEP + "tools:\n  a:\n    function: math:pi\n",
            "agent.yaml:4: tools.a.function: 'math:pi' is of type float, not a function or a LangChain tool.",
        ),
        (
            STEP + "tools: {a: 'colorsys:rgb_to_yiq'}\n",
            "agent.yaml:2: tools.a: 'colorsys:rgb_to_yiq' cannot be a tool: Function must have a docstring if "
            "description not provided.",
        ),
        # steps
        ("steps:\n  - chat\n", "agent.yaml:2: steps[0]: Found 'chat'; allowed: a mapping."),
        ("steps: {type: llm}\n", "agent.yaml:1: steps: Found a mapping; allowed: a list."),
        ("steps:\n  - name: a\n", "agent.yaml:2: steps[0].type: The key 'type' is missing."),
        ("steps:\n  - type: llm\n", "agent.yaml:2: steps[0].name: The key 'name' is missing."),
        ("steps:\n  - type: 5\n    name: a\n", "agent.yaml:2: steps[0].type: Found 5; allowed: text."),
        (
            "steps:\n  - type: lm\n    name: a\n",
            "agent.yaml:2: steps[0].type: There is no kind of step 'lm'. Did you mean 'llm'? "
            "Known: llm, react, tool, custom; others are registered on a StepRegistry.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    tiemout: 5\n",
            "agent.yaml:4: steps[0].tiemout: There is no key 'tiemout'. Did you mean 'timeout'? "
            "Known: name, condition, next, retry, timeout, approval, type, config.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    config:\n      provder: openai\n",
            f"agent.yaml:5: steps[0].config.provder: There is no key 'provder'. Did you mean "
            f"'provider'? Known: {OPTIONS}.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    config:\n      provider: x\n      max_tokens: many\n",
            "agent.yaml:6: steps[0].config.max_tokens: Found 'many'; allowed: a whole number.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    config:\n      llm: x\n      model: y\n",
            "agent.yaml:4: steps[0].config: Both llm and model are given; keep one.",
        ),
        (
            "steps:\n  - type: react\n    name: a\n    config: {max_iteration: 3}\n",
            "agent.yaml:4: steps[0].config.max_iteration: There is no key 'max_iteration'. Did you "
            "mean 'max_iterations'? Known: ",
        ),
        (
            "steps:\n  - type: tool\n    name: a\n    config: {tools: []}\n",
            "agent.yaml:4: steps[0].config.tools: Found an empty list; allowed: at least one.",
        ),
        (
            "tools: {search: 'json:loads'}\nsteps:\n  - {type: tool, name: a, config: {tools: [serch]}}\n",
            "agent.yaml:3: steps[0].config.tools[0]: There is no tool 'serch'. Did you mean 'search'? "
            "Known: search; or write package.module:name.",
        ),
        (
            "steps:\n  - {type: tool, name: a, config: {tools: ['json:lods']}}\n",
            "agent.yaml:2: steps[0].config.tools[0]: 'json' has no 'lods'. Did you mean 'loads'?",
        ),
        (
            "steps:\n  - {type: custom, name: a, config: {function: 'math:pi'}}\n",
            "agent.yaml:2: steps[0].config.function: 'math:pi' is of type float, not a function or a graph.",
        ),
        ("steps:\n  - {type: custom, name: a}\n", "agent.yaml:2: steps[0].config: The key 'config' is missing."),
        (
            "steps:\n  - {type: llm, name: a, config: {structured_output: 'json:loads'}}\n",
            "agent.yaml:2: steps[0].config.structured_output: 'json:loads' is of type function, not a pydantic model.",
        ),
        (
            "steps:\n  - {type: llm, name: a, config: {structured_output: 'builtins:dict'}}\n",
            "agent.yaml:2: steps[0].config.structured_output: 'builtins:dict' is the class dict, not a pydantic model.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    condition: {key: x, function: 'json:loads', routes: {a: END}}\n",
            "agent.yaml:4: steps[0].condition: A condition has either a function or a key of the state.",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    condition: {function: 'json:lods', routes: {a: END}}\n",
            "agent.yaml:4: steps[0].condition.function: 'json' has no 'lods'. Did you mean 'loads'?",
        ),
        (
            "steps:\n  - type: llm\n    name: a\n    condition:\n      key: x\n      routes:\n        true: 5\n",
            "agent.yaml:7: steps[0].condition.routes.true: Found 5; allowed: text.",
        ),
        (
            "steps:\n  - type: llm\n    name: chat\n    condition:\n      key: x\n      routes:\n        yes: caht\n",
            "agent.yaml:7: steps[0].condition.routes.yes: There is no step 'caht'. Did you mean "
            "'chat'? Known: chat, END.",
        ),
        (
            "steps:\n  - {type: llm, name: a, next: b}\n",
            "agent.yaml:2: steps[0].next: There is no step 'b'. Known: a, END.",
        ),
        (
            "steps:\n  - {type: llm, name: a, next: a, condition: {key: x, routes: {a: a}}}\n",
            "agent.yaml:2: steps[0]: A step has a condition or a next step, not both.",
        ),
        (
            "steps:\n  - {type: llm, name: a, approval: {on_reject: b}}\n",
            "agent.yaml:2: steps[0].approval.on_reject: There is no step 'b'. Known: a, END.",
        ),
        (
            "steps:\n  - {type: llm, name: a, approval: 5}\n",
            "agent.yaml:2: steps[0].approval: Found 5; allowed: true, the question or a mapping.",
        ),
        (
            "steps:\n  - {type: llm, name: a}\n  - {type: llm, name: a}\n",
            "agent.yaml:3: steps[1].name: Step 1 is called 'a' too.",
        ),
        (
            "steps:\n  - {type: llm, name: 'a:b'}\n",
            "agent.yaml:2: steps[0].name: 'a:b' cannot name a step: it is empty, reserved, or holds ':' or '|'.",
        ),
        (
            "steps:\n  - {type: llm, name: a, retry: often}\n",
            "agent.yaml:2: steps[0].retry: Found 'often'; allowed: a whole number or a mapping.",
        ),
        (
            "steps:\n  - {type: llm, name: a, retry: 0}\n",
            "agent.yaml:2: steps[0].retry: Found 0; allowed: a number not less than 1.",
        ),
        (
            "steps:\n  - {type: llm, name: a, timeout: 0}\n",
            "agent.yaml:2: steps[0].timeout: Found 0; allowed: a number greater than 0.",
        ),
        (
            "steps:\n  - {type: llm, name: a, retry: {attempts: 2, on: [TimeotError]}}\n",
            "agent.yaml:2: steps[0].retry.on[0]: There is no built-in exception 'TimeotError'. Did you "
            "mean 'TimeoutError'? "
            "Others are written as package.module:Name.",
        ),
        (
            "steps:\n  - {type: llm, name: a, retry: {attempts: 2, on: ['json:loads']}}\n",
            "agent.yaml:2: steps[0].retry.on[0]: 'json:loads' is of type function, not an exception type.",
        ),
        # prompts
        (
            "steps:\n  - type: llm\n    name: a\n    config:\n      llm: 'demo:'\n      prompt_template: '{inptu}'\n",
            "agent.yaml:6: steps[0].config.prompt_template: The prompt of step 'a' names {inptu}, which the state does "
            "not have. Did you mean 'input'? Known: messages, input. Write {{ and }} for literal braces.",
        ),
        (
            "llm: 'demo:'\nsteps:\n  - type: react\n    name: a\n    config:\n      tools: ['json:loads']\n"
            "      system_prompt: 'As {'\n",
            "agent.yaml:7: steps[0].config.system_prompt: The prompt of step 'a' cannot be read: ",
        ),
        (
            "llm: 'demo:'\nstate_schema: {city: str}\nsteps:\n  - type: llm\n    name: a\n    approval: 'To {ctiy}?'\n",
            "agent.yaml:6: steps[0].approval: The prompt of step 'approve_a' names {ctiy}, which the state does not "
            "have. Did you mean 'city'? Known: city, messages, step. Write {{ and }} for literal braces.",
        ),
        (
            "llm: 'demo:'\nsteps:\n  - type: llm\n    name: a\n    approval:\n      prompt: '{}?'\n",
            "agent.yaml:6: steps[0].approval.prompt: The prompt of step 'approve_a' has a field without a name; ",
        ),
        # the environment
        (
            "steps:\n  - type: llm\n    name: a\n    timeout: ${PETAL_NOT_SET}\n",
            "agent.yaml:4: steps[0].timeout: The environment variable 'PETAL_NOT_SET' is not set. "
            "Set it, write ${PETAL_NOT_SET:-default}, or $${PETAL_NOT_SET} for the characters themselves.",
        ),
        (
            STEP + "name: ${PETAL\n",
            "agent.yaml:2: name: '${' is not closed by '}'; write $${ for the characters themselves.",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    error = failure(text)
    whole = message.endswith((".", "?"))
    assert str(error) == message if whole else str(error).startswith(message)
    assert "\n" not in str(error)
    assert error.__cause__ is None


def test_all_mistakes_are_listed_in_the_order_of_the_lines() -> None:
    error = failure(
        """\
name: x
checkpointer:
  type: sqlit
steps:
  - type: llm
    name: chat
    confg: {}
  - type: react
    name: chat
    timeout: -1
llm: {provider: x, max_tokens: 0}
"""
    )
    assert (error.file, error.line, error.key) == (Path("agent.yaml"), 3, "checkpointer.type")
    assert str(error) == (
        "agent.yaml:3: checkpointer.type: Found 'sqlit'; allowed: 'memory', 'sqlite', 'postgres'. "
        "Did you mean 'sqlite'?\n"
        "agent.yaml:7: steps[0].confg: There is no key 'confg'. Did you mean 'config'? "
        "Known: name, condition, next, retry, timeout, approval, type, config.\n"
        "agent.yaml:10: steps[1].timeout: Found -1; allowed: a number greater than 0.\n"
        "agent.yaml:11: llm.max_tokens: Found 0; allowed: a number not less than 1."
    )


def test_every_prompt_is_looked_at() -> None:
    error = failure(
        "llm: 'demo:'\nsteps:\n  - type: llm\n    name: a\n    approval: 'Ask {messages} by {step}?'\n"
        "    config: {prompt_template: '{inptu}',\n             system_prompt: '{day}'}\n"
    )
    assert [(one.line, one.key) for one in (error, *error.others)] == [
        (6, "steps[0].config.prompt_template"),
        (7, "steps[0].config.system_prompt"),
    ]


def test_a_state_that_cannot_be_read_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "trips.py").write_text(
        "from __future__ import annotations\nfrom typing import TypedDict\n\nclass Trip(TypedDict):\n    by: Ship\n"
    )
    error = failure("state_type: trips:Trip\n" + STEP, tmp_path)
    assert str(error).startswith("agent.yaml:1: state_type: The annotations of Trip cannot be read: name 'Ship' is not")


def test_what_a_module_raised_is_the_cause(tmp_path: Path) -> None:
    (tmp_path / "bad_steps.py").write_text("\n\nraise OSError('disk')\n")
    error = failure("steps:\n  - {type: custom, name: a, config: {function: 'bad_steps:run'}}\n", tmp_path)
    assert str(error) == "agent.yaml:2: steps[0].config.function: Importing 'bad_steps' raised OSError: disk."
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize(
    "text",
    [
        STEP + "checkpointer: {type: postgres, config: {connection_string: ['hunter22']}}\n",
        STEP + "checkpointer: {type: postgres, config: {connection_string: "
        "'postgresql://u:hunter22@h/db', min_size: 9, max_size: 2}}\n",
        STEP
        + "checkpointer: {type: postgres, config: {connection_string: 'postgresql://u:hunter22@h/db', max_size: x}}\n",
        STEP + "checkpointer: mysql://u:hunter22@h/db\n",
        STEP + "checkpointer: mysql://u:${PETAL_SECRET}@h/db\n",
        STEP + "checkpointer: ${PETAL_SECRET}\n",
        STEP + "checkpointer: {type: '${PETAL_SECRET}'}\n",
        STEP + "checkpointer: {enabled: '${PETAL_SECRET}'}\n",
        STEP + "state_type: ${PETAL_SECRET}\n",
        STEP + "state_type: json:${PETAL_SECRET}\n",
        STEP + "state_type: x${PETAL_SECRET}:y\n",
        STEP + "state_schema: {a: '${PETAL_SECRET}'}\n",
        STEP + "state_schema: {a: {type: int, reducer: '${PETAL_SECRET}'}}\n",
        STEP + "state_schema: {a: {type: int, default: '${PETAL_SECRET}'}}\n",
        STEP + "tools: {a: '${PETAL_SECRET}'}\n",
        STEP + "tools: {a: {mcp: {url: 'http://x', headers: 'Authorization: hunter22'}}}\n",
        STEP + "tools: {a: {mcp: {command: x, env: 'KEY=hunter22'}}}\n",
        STEP + "llm: {provider: x, api_key: [hunter22], max_tokens: 0}\n",
        STEP + "llm: {provider: x, password: hunter22, temperature: x}\n",
        STEP + "llm: {provider: x, timeout: '${PETAL_SECRET}'}\n",
        "steps: [{type: '${PETAL_SECRET}', name: a}]\n",
        "steps: [{type: llm, name: 'a:${PETAL_SECRET}'}]\n",
        "steps: [{type: llm, name: a, next: '${PETAL_SECRET}'}]\n",
        "steps: [{type: llm, name: '${PETAL_SECRET}'}, {type: llm, name: '${PETAL_SECRET}'}]\n",
        "steps: [{type: llm, name: '${PETAL_SECRET}', next: elsewhere}]\n",
        "steps: [{type: llm, name: a, retry: {attempts: 2, on: ['${PETAL_SECRET}']}}]\n",
        "steps: [{type: llm, name: a, config: {tools: ['${PETAL_SECRET}']}}]\n",
        "steps: [{type: llm, name: a, config: {api_key: hunter22, temperature: x}}]\n",
        "steps: [{type: custom, name: a, config: {function: '${PETAL_SECRET}'}}]\n",
    ],
)
@pytest.mark.parametrize("secret", ["hunter22", "a'\\b\n"])
def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, text: str, secret: str) -> None:
    monkeypatch.setenv("PETAL_SECRET", secret)
    error = failure(text)
    assert secret not in str(error)
    assert repr(secret)[1:-1] not in str(error)
    assert "hunter22" not in str(error)
    assert error.__cause__ is None


def test_a_short_value_from_the_environment_leaves_the_message_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETAL_SHORT", "a")
    assert str(failure("steps: [{type: llm, name: x, next: '${PETAL_SHORT}'}]\n")) == (
        "agent.yaml:1: steps[0].next: There is no step '${PETAL_SHORT}'. Known: x, END."
    )


def test_a_long_value_is_cut() -> None:
    assert str(failure(STEP + f"checkpointer: {{enabled: {'x' * 500}}}\n")) == (
        f"agent.yaml:2: checkpointer.enabled: Found '{'x' * 60}…'; allowed: true or false."
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes(b"name: x\nsteps: \xff\n")
    (tmp_path / "empty.yaml").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "plain.txt").write_text("x")
    (tmp_path / "bare").mkdir()
    for path, problem in {
        "agent.yaml": ":2: The file is not UTF-8; save it as UTF-8.",
        "agnt.yaml": ": There is no file 'agnt.yaml'. Did you mean 'agent.yaml'? Known: agent.yaml, empty.yaml.",
        "zzz/x.yaml": f": There is no folder '{tmp_path / 'zzz'}'.",
        "bare/x.yaml": ": There is no file 'x.yaml', nor any other YAML file beside it.",
        "empty.yaml": ": The file is empty; an agent has at least a list of steps.",
        ".": ": This is a folder; name the YAML file in it.",
        "plain.txt/x": ": The file cannot be read: Not a directory.",
    }.items():
        for load in (load_agent, load_step):
            with pytest.raises(YAMLConfigurationError) as raised:
                load(tmp_path / path)
            assert str(raised.value) == f"{tmp_path / path}{problem}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STEP, "<text>:1: steps: The file holds a whole agent, not a single step; use from_yaml."),
        ("- x\n", "<text>:1: A step is a mapping of keys such as 'name:'; found a list."),
        ("type: llm\n", "<text>:1: name: The key 'name' is missing."),
        (
            "type: llm\nname: a\nconfig:\n  tmperature: 1\n",
            "<text>:4: config.tmperature: There is no key 'tmperature'.",
        ),
        ("type: llm\nname: a\nsteps: []\n", "<text>:3: steps: There is no key 'steps'. Known: name, condition, "),
        (
            "type: llm\nname: a\ntools:\n  x: 5\n",
            "<text>:4: tools.x: Found 5; allowed: 'package.module:name' or a mapping.",
        ),
        (
            "type: llm\nname: a\nconfig: {tools: [x]}\n",
            "<text>:3: config.tools[0]: There is no tool 'x'. Known: none; or write ",
        ),
        ("type: llm\nname: a\ncheckpointer: mysql://x\n", "<text>:3: checkpointer: "),
        ("type: tol\nname: a\n", "<text>:1: type: There is no kind of step 'tol'. Did you mean 'tool'?"),
        (
            "type: custom\nname: a\nllm: demo:x\nconfig: {function: 'json:loads'}\n",
            "<text>:3: llm: A step of type 'custom' asks no model.",
        ),
    ],
)
def test_mistakes_in_a_file_of_one_step(text: str, message: str) -> None:
    with pytest.raises(YAMLConfigurationError) as raised:
        parse_step(text, base=Path("/srv"))
    assert str(raised.value).startswith(message)
