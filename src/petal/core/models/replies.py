"""What the demo model answers: rules in place of weights, so that the same history gives the same answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call

from petal.core.models.arguments import NotInTextError, arguments_from, stated_object

MARK = "(demo model)"
"""Stands before an answer that follows no rule."""

_SENTENCE = re.compile(r"(?:[^.!?\n]|[.](?=\S))+[.!?]*")
_FACT = re.compile(
    r"\b(?P<whose>my|our|the)\s+(?P<what>[^,;:]{1,60}?)\s*(?P<is>\bis\b|\bare\b|\bwas\b|['\u2019]s\b)\s+"
    r"(?P<value>.+?)(?=,?\s+(?:and|but)\s+(?:my|our|the|i)\b|[,;]|$)",
    re.I,
)
_CALLED = re.compile(r"\b(?:i am called|i['\u2019]m called|call me|they call me)\s+(?P<value>[^\s,;.!?]+)", re.I)
_I_AM = re.compile(r"\bI(?: am|['\u2019]m) (?P<value>[A-Z][\w-]*)\b")
_REMEMBER = re.compile(
    r"\b(?:remember|note|keep in mind)\s*(?:that\b|:)?\s+(?P<what>(?!what\b|me\b|when\b).+)", re.I | re.S
)
_WHAT_IS = re.compile(
    r"\b(?:what|who|where|when|which)\s*(?:is|are|was|['\u2019]s)\s+(?:my|our|the)\s+(?P<what>[^?.!,]+)"
    r"|\bwhat\s+(?:my|our|the)\s+(?P<what_is>[^?.!,]+?)\s+(?:is|are|was)\b",
    re.I,
)
_WHO_AM_I = re.compile(r"\bwho am i\b|\bdo you (?:know|remember) (?:me|my name)\b", re.I)
_WHAT_I_SAID = re.compile(
    r"\bwhat (?:did i (?:just |last )?(?:say|ask|write|tell you just now)|was my last message|have i just said)\b", re.I
)
_WHAT_I_TOLD = re.compile(
    r"\bwhat (?:did i (?:tell|ask) you(?: to remember)?|have i told you|do you (?:remember|know)(?: about me)?)\b", re.I
)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that the user told: whose, what, and what it is."""

    whose: str
    what: str
    verb: str
    value: str

    def __str__(self) -> str:
        return f"{'the' if self.whose == 'the' else 'your'} {self.what} {self.verb} {self.value}"


def reply(
    messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]], forced: Sequence[dict[str, Any]]
) -> AIMessage:
    """The demo model's answer to a conversation.

    Args:
        messages: The conversation; system prompts are ignored.
        tools: What may be called, in OpenAI's form.
        forced: Those of which one has to be called.
    """
    turn = _Turn.last(messages)
    if forced:
        return _calling(turn, [_forced_call(turn, forced)])
    if turn.results:
        return AIMessage(" ".join(_reported(result) for result in turn.results))
    if calls := list(_named_calls(turn.text, tools)):
        return _calling(turn, calls)
    return AIMessage(_said(turn))


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the user said last, what tools answered to it, and what was said before."""

    text: str
    results: list[ToolMessage]
    called: frozenset[str]
    earlier: list[str]
    place: int

    @classmethod
    def last(cls, messages: Sequence[BaseMessage]) -> _Turn:
        said = [index for index, message in enumerate(messages) if isinstance(message, HumanMessage)]
        start = said[-1] if said else 0
        since = messages[start:]
        return cls(
            text=messages[start].text if said else "",
            results=[message for message in since if isinstance(message, ToolMessage)],
            called=frozenset(
                call["name"] for message in since if isinstance(message, AIMessage) for call in message.tool_calls
            ),
            earlier=[messages[index].text for index in said[:-1]],
            place=len(messages),
        )


def _said(turn: _Turn) -> str:
    text = turn.text
    if _WHAT_I_SAID.search(text):
        return f"You said: {turn.earlier[-1]}" if turn.earlier else "You have not said anything before that."
    if _WHAT_I_TOLD.search(text):
        told = list(dict.fromkeys(_told([*turn.earlier, text])))
        return f"You told me: {'; '.join(told)}." if told else "You have not told me anything to remember yet."
    if question := _WHAT_IS.search(text):
        return _recalled((question["what"] or question["what_is"]).strip(), turn)
    if _WHO_AM_I.search(text):
        return _recalled("name", turn)
    if told_now := _REMEMBER.search(text):
        return f"I will remember: {_turned(told_now['what'])}."
    facts = list(_facts(text))
    for fact in facts:
        if fact.what == "name":
            return f"Nice to meet you, {fact.value}!"
    if facts:
        return f"Noted: {'; '.join(map(str, facts))}."
    return f"{MARK} You said: {text}" if text else f"{MARK} You have not said anything."


def _recalled(what: str, turn: _Turn) -> str:
    facts = {_plain(fact.what): fact for said in [*turn.earlier, turn.text] for fact in _facts(said)}
    if fact := facts.get(_plain(what)):
        sentence = f"{fact}."
        return sentence[0].upper() + sentence[1:]
    if re.search(r"\bmy\b", turn.text, re.I) or what == "name":
        return f"You have not told me your {what} yet."
    return f"{MARK} You said: {turn.text}"


def _facts(text: str) -> Iterator[Fact]:
    """What a text tells, in its order; a question tells nothing."""
    for sentence in _SENTENCE.findall(text):
        if sentence.rstrip().endswith("?"):
            continue
        stated = sentence.strip().rstrip(".!")
        for found in _FACT.finditer(stated):
            verb = found["is"].lower().replace("\u2019", "'")
            yield Fact(
                found["whose"].lower(), found["what"].strip().lower(), "is" if verb == "'s" else verb, found["value"]
            )
        for pattern in (_CALLED, _I_AM):
            for found in pattern.finditer(stated):
                yield Fact("my", "name", "is", found["value"])


def _told(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        if found := _REMEMBER.search(text):
            yield _turned(found["what"])
        else:
            yield from map(str, _facts(text))


def _turned(told: str) -> str:
    """What the user says of themselves, as it is said to them."""
    turns = {"my": "your", "our": "your", "i": "you", "me": "you", "am": "are", "i'm": "you are", "mine": "yours"}
    return re.sub(
        r"\b(?:i'm|i|my|our|me|am|mine)\b",
        lambda found: turns[found[0].lower()],
        told.strip().rstrip(".!?"),
        flags=re.I,
    )


def _plain(what: str) -> str:
    return what.strip().lower().replace("favorite", "favourite")


def _reported(result: ToolMessage) -> str:
    verb = "failed:" if result.status == "error" else "says"
    text = result.text
    return f"{result.name or 'The tool'} {verb} {text}" + ("" if text.endswith((".", "!", "?")) else ".")


def _named_calls(text: str, tools: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A call for each time that the text names a tool and holds what it needs."""
    functions = {tool["function"]["name"].lower(): tool["function"] for tool in tools}
    if not functions:
        return
    # The longest first, so that `add_all` is not taken for `add`.
    names = "|".join(re.escape(name).replace("_", "[_ ]") for name in sorted(functions, key=len, reverse=True))
    found = list(re.finditer(rf"(?<!\w)(?:{names})(?!\w)", text, re.I))
    for index, name in enumerate(found):
        function = functions.get(name[0].lower()) or functions[name[0].lower().replace(" ", "_")]
        following = text[name.end() : found[index + 1].start() if index + 1 < len(found) else None]
        schema = function.get("parameters", {})
        try:
            # "What is 2 and 3? Use add." has its numbers before the only name.
            arguments = _first_that_fits(schema, [following, text] if len(found) == 1 else [following])
        except NotInTextError:
            continue
        yield function["name"], arguments


def _first_that_fits(schema: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    *others, last = texts
    for text in others:
        try:
            return arguments_from(schema, text, invent=False)
        except NotInTextError:
            continue
    return arguments_from(schema, last, invent=False)


def _forced_call(turn: _Turn, forced: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    open_tools = [tool for tool in forced if tool["function"]["name"] not in turn.called]
    # Where an answer's form is bound among tools, it stands last: the tools named in the text come before it.
    for name, arguments in _named_calls(turn.text, open_tools[:-1]):
        return name, arguments
    function = forced[-1]["function"]
    text = " ".join(result.text for result in turn.results) or turn.text
    schema = function.get("parameters", {})
    stated = stated_object(text)
    if stated is not None and set(schema.get("required", ())) <= set(stated) <= set(schema.get("properties", ())):
        return function["name"], stated
    return function["name"], arguments_from(schema, re.sub(r"[{}]", " ", text), invent=True)


def _calling(turn: _Turn, calls: Sequence[tuple[str, dict[str, Any]]]) -> AIMessage:
    return AIMessage("", tool_calls=[_call(turn, index, *call) for index, call in enumerate(calls)])


def _call(turn: _Turn, index: int, name: str, arguments: dict[str, Any]) -> ToolCall:
    """A call whose id is the same for the same history, and another at each place of it."""
    told = json.dumps([turn.place, index, name, arguments, turn.text], sort_keys=True)
    return tool_call(name=name, args=arguments, id=f"call_{hashlib.sha256(told.encode()).hexdigest()[:24]}")
