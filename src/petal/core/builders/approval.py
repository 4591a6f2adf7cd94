"""The question to a human before a step: a node of its own, so that an answer once given stays given."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel, ConfigDict, model_validator

from petal.core.config.agent import StepConfig
from petal.core.detours import approval_name
from petal.core.steps.prompts import Prompt
from petal.core.steps.registry import StepContext
from petal.errors import StepRejectedError
from petal.types.state import values_of

YES = ("yes", "y", "true", "ok", "approve", "approved")
NO = ("no", "n", "false", "reject", "rejected")

_SENT = "__pregel_push"
"""Where the path of a task begins with which LangGraph answers a `Send`."""


class Approval(BaseModel):
    """An answer: a bool, a word of `YES` or `NO`, or `{"approved": …, "reason": …}`."""

    model_config = ConfigDict(extra="forbid")

    approved: bool
    reason: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, answer: Any) -> Any:
        if isinstance(answer, bool):
            return {"approved": answer}
        if isinstance(answer, str) and (word := answer.strip().lower()) in YES + NO:
            return {"approved": word in YES}
        if isinstance(answer, dict | Approval):
            return answer
        raise ValueError("answer yes or no, or {'approved': true or false, 'reason': '…'}")


def approval_node(step: StepConfig, reject: str | None, context: StepContext) -> Runnable[Any, Any]:
    """The node that asks, and goes on to the step or to `reject`; without one a no raises StepRejectedError.

    What a condition sent to the step by a `Send` comes here first, and is handed on.
    """
    assert step.approval is not None
    prompt = Prompt.parse(step.approval.prompt, approval_name(step.name), (*context.keys, "step"))

    def ask(state: Any, config: RunnableConfig) -> Command[Any]:
        known = values_of(state) if prompt.keys - {"step"} else {}
        question = prompt.fill({**known, "step": step.name})
        answer: Approval = interrupt({"step": step.name, "question": question}, response_schema=Approval)
        if answer.approved:
            return Command(goto=Send(step.name, state) if _was_sent(config) else step.name)
        if reject is None:
            raise StepRejectedError(step.name, answer.reason)
        return Command(goto=reject)

    return RunnableLambda(ask, name=approval_name(step.name))


def _was_sent(config: RunnableConfig) -> bool:
    """Whether the node was given something of its own, rather than the state."""
    return _SENT in (config.get("metadata") or {}).get("langgraph_path", ())[:1]
