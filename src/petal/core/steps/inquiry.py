"""The question to a human about tool calls that never got a result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.messages import ToolMessage
from langgraph.types import interrupt
from pydantic import BeforeValidator

from petal.core.steps.history import DanglingCall

RUN, SKIP = "run", "skip"
"""Words that answer the question about a call; every other text is its result."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Asks what is to become of dangling calls, all in one interrupt.

    Its value has the `question`, the `calls` (`id`, `tool`, `arguments`, whether it `began`) and the `choices`. An
    answer is one for all, or a dict of one for each call's id. One is `"run"`, `"skip"`, or the result as text;
    `{"result": "run"}` is a result too.
    """

    step: str
    calls: Sequence[DanglingCall]
    can_run: Sequence[bool]
    has_begun: Sequence[bool]

    def ask(self) -> list[ToolMessage | None]:
        """The result of each call; None if it is to be run."""
        schema: Any = Annotated[dict[str, Any], BeforeValidator(self._read)]
        answers = interrupt(self._value(), response_schema=schema)
        return [self._result(call, answers[str(number)]) for number, call in enumerate(self.calls)]

    def _value(self) -> dict[str, Any]:
        told = [f"{call.call['name']}({json.dumps(call.call['args'], default=str)})" for call in self.calls]
        what = f"The call {told[0]} was" if len(told) == 1 else f"The calls {', '.join(told)} were"
        return {
            "step": self.step,
            "question": f"{what} interrupted and never gave a result. {self._choices()}",
            "calls": [
                {"id": call.call["id"], "tool": call.call["name"], "arguments": call.call["args"], "began": began}
                for call, began in zip(self.calls, self.has_begun, strict=True)
            ],
            "choices": [RUN, SKIP] if any(self.can_run) else [SKIP],
        }

    def _choices(self) -> str:
        words = "run, skip" if any(self.can_run) else "skip"
        return f"Answer {words} or the result" + (", or a dict of these by id." if len(self.calls) > 1 else ".")

    def _read(self, answer: Any) -> dict[str, Any]:
        """The answer to each call, by its number."""
        ids = [call.call["id"] for call in self.calls]
        if isinstance(answer, dict) and answer.keys() != {"result"}:
            if unknown := [id for id in answer if id not in ids]:
                raise ValueError(
                    f"no call {', '.join(map(repr, unknown))} is asked about; there are {', '.join(map(str, ids))}"
                )
            if missing := [id for id in ids if id not in answer]:
                raise ValueError(f"say what becomes of {', '.join(map(str, missing))} too")
            given = [answer[id] for id in ids]
        else:
            given = [answer] * len(ids)
        return {str(number): self._one(number, one) for number, one in enumerate(given)}

    def _one(self, number: int, answer: Any) -> str | dict[str, str]:
        if isinstance(answer, dict) and answer.keys() == {"result"} and isinstance(answer["result"], str):
            return {"result": answer["result"]}
        if not isinstance(answer, str):
            raise ValueError("answer run, skip, or the result as text")
        word = answer.strip().lower()
        if word == RUN and not self.can_run[number]:
            raise ValueError(
                f"the step has no tool {self.calls[number].call['name']!r} to run; answer skip, or the result"
            )
        return word if word in (RUN, SKIP) else {"result": answer}

    def _result(self, call: DanglingCall, answer: Any) -> ToolMessage | None:
        if answer == RUN:
            return None
        if answer == SKIP:
            return call.result(f"The call of {call.call['name']!r} was skipped by the user and has no result.")
        return call.result(answer["result"], failed=False)
