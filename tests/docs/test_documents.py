"""Every code block of the README and the docs runs, every link leads somewhere, every option and error is told of."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import docs_blocks as docs
import pytest

from petal import errors
from petal.core.config.checkpointer import MemoryOptions, PostgresOptions, SqliteOptions
from petal.core.factory import AgentFactory
from petal.core.thread import Thread
from petal.core.yaml.loader import load_agent, load_step

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in docs.blocks(page)]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
async def test_python_runs(block: docs.Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await docs.execute(block, {})


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_builds(block: docs.Block, tmp_path: Path) -> None:
    for module in (ROOT / "examples").glob("*/**/*.py"):
        shutil.copy(module, tmp_path)  # what the documents name by function
    file = tmp_path / "agent.yaml"
    file.write_text(block.code)
    if "\nsteps:" in block.code:
        assert load_agent(file).steps
    else:
        assert load_step(file).step.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_option_of_a_checkpointer_is_told_of() -> None:
    page = (ROOT / "docs" / "checkpointers.md").read_text()
    for options in (MemoryOptions, SqliteOptions, PostgresOptions):
        for name, field in options.model_fields.items():
            assert f"`{field.alias or name}`" in page


def test_every_act_of_a_thread_is_told_of() -> None:
    page = (ROOT / "docs" / "running.md").read_text()
    acts = [name for name, _ in inspect.getmembers(Thread, inspect.isfunction) if not name.startswith(("_", "a"))]
    assert set(acts) > {"resume", "fork"}
    for act in acts:
        if act != "config":
            assert re.search(rf"`[^`\n]*\b{act}\b", page), act


def test_every_method_of_the_factory_is_told_of() -> None:
    pages = (ROOT / "docs" / "building.md").read_text() + (ROOT / "docs" / "yaml.md").read_text()
    for name, _ in inspect.getmembers(AgentFactory, inspect.isfunction):
        if not name.startswith("_") and name not in ("build", "add"):
            assert name in pages, name


def test_every_error_of_the_checkpointer_is_told_of() -> None:
    page = (ROOT / "docs" / "checkpointers.md").read_text()
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.CheckpointerError):
            assert f"`{name}`" in page, name
