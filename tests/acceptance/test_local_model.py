"""`local:` loads a real GGUF file into this process and chats with it, streams, and stops where it was told to."""

from __future__ import annotations

import asyncio
import operator
import random
import struct
import subprocess
import sys
from array import array
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel

from petal.core.config.agent import LLMConfig
from petal.core.models import LocalChatModel, check_model, open_model
from petal.core.models.weights import loaded
from petal.errors import ModelError

SENTENCE = ["▁petals", "▁fall", "▁softly", "."]
"""What the file below always says, a token each."""
GO, END = "<go>", "</s>"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}" + GO
CALL = ["<tool_call>", '{"name":', '"water",', '"arguments":', '{"much":', "true}}", "</tool_call>"]
"""What a model says that was taught to call tools."""
TOOLS_TEMPLATE = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}{% if message.tool_calls %}{% for call in message.tool_calls %}"
    '<tool_call>{"name":"{{ call.function.name }}","arguments":{{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}{% else %}{{ message.content }}{% endif %}{% endfor %}" + GO
)
CONTEXT = 65536
"""Tokens of conversation at most."""
WIDTH = 64
"""Length of an embedding."""


class GGUF:
    """Writes a file of GGUF, version 3: values of the header, then tensors of 32-bit floats."""

    def __init__(self) -> None:
        self._values: list[bytes] = []
        self._tensors: list[tuple[str, tuple[int, ...], bytes]] = []

    def add(self, key: str, value: int | float | str | list[Any]) -> None:
        kind, data = self._packed(value)
        self._values.append(self._text(key) + struct.pack("<I", kind) + data)

    def add_tensor(self, name: str, shape: tuple[int, ...], numbers: list[float]) -> None:
        self._tensors.append((name, shape, array("f", numbers).tobytes()))

    def write(self, path: Path) -> None:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self._tensors), len(self._values)) + b"".join(self._values)
        body = b""
        for name, shape, data in self._tensors:
            head += self._text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(body))
            body += data + b"\0" * (-len(data) % 32)
        path.write_bytes(head + b"\0" * (-len(head) % 32) + body)

    def _packed(self, value: Any) -> tuple[int, bytes]:
        match value:
            case int():
                return 4, struct.pack("<I", value)
            case float():
                return 6, struct.pack("<f", value)
            case str():
                return 8, self._text(value)
            case list():
                kinds, items = zip(*map(self._packed, value), strict=True)
                kind = 5 if kinds[0] == 4 else kinds[0]  # llama.cpp wants the whole numbers of a list signed
                return 9, struct.pack("<IQ", kind, len(value)) + b"".join(items)
            case _:
                raise TypeError(value)

    @staticmethod
    def _text(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode()


def write_weights(
    path: Path, sentence: Sequence[str] = SENTENCE, template: str = TEMPLATE, endless: bool = False
) -> None:
    """A llama of one layer that does nothing, whose output takes each word to the next of the sentence."""
    tokens = ["<unk>", "<s>", END, *(f"<0x{byte:02X}>" for byte in range(256)), GO, *sentence]
    unknown, control, as_byte, normal = 2, 3, 6, 1
    kinds = [unknown, control, control, *[as_byte] * 256, control, *[normal] * len(sentence)]
    chance = random.Random(0)
    embedding = {token: [chance.gauss(0, 1) for _ in range(WIDTH)] for token in tokens}
    before = dict(zip([*sentence, END], [GO, *sentence], strict=True))
    nothing = [0.0] * WIDTH
    if endless:
        del before[END]
        embedding[GO] = embedding[sentence[-1]]

    file = GGUF()
    header: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": WIDTH,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": template,
    }
    for key, value in header.items():
        file.add(key, value)
    file.add_tensor("token_embd.weight", (WIDTH, len(tokens)), [n for token in tokens for n in embedding[token]])
    for name in ("attn_norm", "ffn_norm"):
        file.add_tensor(f"blk.0.{name}.weight", (WIDTH,), [1.0] * WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        file.add_tensor(f"blk.0.{name}.weight", (WIDTH, WIDTH), nothing * WIDTH)
    file.add_tensor("output_norm.weight", (WIDTH,), [1.0] * WIDTH)
    # Small, so that the next word is the likeliest, but not the only one that chance may take.
    following = {token: [n / 32 for n in embedding[before[token]]] for token in before}
    file.add_tensor(
        "output.weight", (WIDTH, len(tokens)), [n for token in tokens for n in following.get(token, nothing)]
    )
    file.write(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is written once, and so loaded once."""
    path = tmp_path_factory.mktemp("weights") / "petals.gguf"
    write_weights(path)
    return path


def local(path: Path, **settings: Any) -> LocalChatModel:
    config = {"provider": "local", "model": str(path), "temperature": 0, "context_size": 256, "threads": 1}
    model = open_model(LLMConfig.model_validate(config | settings))
    assert isinstance(model, LocalChatModel)
    return model


class Mood(BaseModel):
    """How somebody feels."""

    level: Literal["low", "high"]
    happy: bool


@tool
def water(much: bool) -> str:
    """Water the flowers."""
    return "more" if much else "less"


def test_it_answers(weights: Path) -> None:
    """From the weights, until they end the sentence; the answer says how many tokens it took."""
    check_model(LLMConfig(provider="local", model=str(weights)))
    answer = local(weights).invoke([("system", "be brief"), ("user", "Hi")])
    assert answer.text == " petals fall softly."
    assert answer.response_metadata == {"model_name": "petals", "finish_reason": "stop"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == len(SENTENCE) + 1
    assert answer.usage_metadata["input_tokens"] > len("be brief")


async def test_it_streams(weights: Path) -> None:
    """A token each, in both faces, under one id."""
    pieces = list(local(weights).stream("Hi"))
    assert [piece.text for piece in pieces] == [" petals", " fall", " softly", ".", ""]
    assert len({piece.id for piece in pieces}) == 1
    whole: AIMessageChunk = reduce(operator.add, pieces)
    assert whole.usage_metadata == local(weights).invoke("Hi").usage_metadata
    assert [piece.text async for piece in local(weights).astream("Hi")] == [piece.text for piece in pieces]
    assert (await local(weights).ainvoke("Hi")).text == " petals fall softly."


def test_it_stops_where_it_is_told(weights: Path) -> None:
    """After so many tokens, or before a text."""
    cut = local(weights, max_tokens=2).invoke("Hi")
    assert (cut.text, cut.response_metadata["finish_reason"]) == (" petals fall", "length")
    assert cut.usage_metadata is not None
    assert cut.usage_metadata["output_tokens"] == 2
    assert local(weights).invoke("Hi", stop=["soft"]).text == " petals fall "


def test_chance_follows_the_seed(weights: Path) -> None:
    """Another seed makes another answer, and the same one the same; chance has no say where one choice is left."""
    answers = [local(weights, temperature=1, max_tokens=8, seed=seed).invoke("Hi").text for seed in (1, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1
    assert local(weights, temperature=1, seed=1, top_k=1).invoke("Hi").text == " petals fall softly."
    assert local(weights, temperature=1, seed=1, top_p=0.01).invoke("Hi").text == " petals fall softly."


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose answer goes on until its context is full."""
    path = tmp_path_factory.mktemp("weights") / "endless.gguf"
    write_weights(path, ["▁on", "▁and"], endless=True)
    return path


async def test_an_answer_may_be_left(endless: Path) -> None:
    """A closed stream and a cancelled reader end what would go on for minutes, so that the next has its turn."""
    model = local(endless, context_size=CONTEXT)
    stream = model.stream("Hi")
    assert next(stream).text == " on"
    stream.close()  # type: ignore[attr-defined]
    assert model.invoke("Hi", max_tokens=3).text == " on and on"

    begun = asyncio.Event()

    async def read() -> None:
        async for _ in model.astream("Hi"):
            begun.set()

    reader = asyncio.create_task(read())
    await begun.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (await model.ainvoke("Hi", max_tokens=3)).text == " on and on"


async def test_many_may_ask_at_once(weights: Path) -> None:
    """They are answered one after the other."""
    answers = await asyncio.gather(*(local(weights).ainvoke(f"Hi {n}") for n in range(8)))
    assert {answer.text for answer in answers} == {" petals fall softly."}


def test_a_file_is_loaded_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its path is written; another size of context needs another."""
    monkeypatch.chdir(weights.parent)
    paths = {
        local(path).path for path in (weights, Path("petals.gguf"), Path("..") / weights.parent.name / weights.name)
    }
    assert paths == {weights}
    assert loaded(weights, 256, 1) is loaded(weights, 256, 1)
    assert loaded(weights, 256, 1) is not loaded(weights, 128, 1)


def test_a_demanded_call_is_made(weights: Path) -> None:
    """A grammar leaves weights that know nothing of tools no choice."""
    mood = local(weights, max_tokens=100).with_structured_output(Mood).invoke("How do you feel?")
    assert isinstance(mood, Mood)
    either = local(weights, max_tokens=200).bind_tools([Mood, water], tool_choice="any").invoke("Hi")
    assert isinstance(either, AIMessage)
    (call,) = either.tool_calls
    assert call["name"] in ("Mood", "water")
    assert (call["id"] or "").startswith("call_")
    cut = local(weights, max_tokens=3).bind_tools([Mood], tool_choice="Mood").invoke("Hi")
    assert isinstance(cut, AIMessage)
    assert cut.tool_calls == []
    assert cut.response_metadata["finish_reason"] == "length"


def test_offered_tools_need_not_be_called(weights: Path) -> None:
    """The file's template decides whether the model sees them."""
    assert local(weights).bind_tools([water]).invoke("Hi").text == " petals fall softly."


async def test_offered_tools_may_be_called(tmp_path: Path) -> None:
    """By a model that was taught to, in the words of its template; streamed in pieces too."""
    path = tmp_path / "tools.gguf"
    write_weights(path, CALL, TOOLS_TEMPLATE)
    model = local(path, context_size=1024).bind_tools([water])
    answer = model.invoke("Hi")
    assert isinstance(answer, AIMessage)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("water", {"much": True})]
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    whole: Any = reduce(operator.add, [piece async for piece in model.astream("Hi")])
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("water", {"much": True})]


def test_what_does_not_fit_is_an_error(weights: Path) -> None:
    """It names the file, and how much did not fit into what."""
    with pytest.raises(ModelError) as raised:
        local(weights).invoke("x" * 1000)
    assert str(raised.value).startswith("petals.gguf cannot answer: request (")
    assert "exceeds the available context size (256 tokens)" in str(raised.value)


def test_what_llama_cpp_refuses_is_an_error(weights: Path) -> None:
    """In its own words, behind the name of the file."""
    with pytest.raises(ModelError, match=r"^petals\.gguf cannot answer: "):
        local(weights).bind(
            response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}
        ).invoke("Hi")


def test_a_file_that_is_cut_off_is_an_error(weights: Path, tmp_path: Path) -> None:
    """It names the file and what may be wrong with it."""
    path = tmp_path / "half.gguf"
    path.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError) as raised:
        local(path).invoke("Hi")
    assert str(raised.value).startswith(f"{str(path)!r} cannot be loaded: it is cut off,")


def test_a_process_ends_cleanly(endless: Path) -> None:
    """In the middle of an answer: nothing is written to standard error, and it neither waits nor crashes."""
    script = (
        "import sys; from petal.core.config.agent import LLMConfig; from petal.core.models import open_model\n"
        "config = {'provider': 'local', 'model': sys.argv[1], 'temperature': 0, 'context_size': int(sys.argv[2])}\n"
        "stream = open_model(LLMConfig.model_validate(config)).stream('Hi')\n"
        "print(next(stream).text)"
    )
    command = [sys.executable, "-c", script, str(endless), str(CONTEXT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, " on\n", "")
