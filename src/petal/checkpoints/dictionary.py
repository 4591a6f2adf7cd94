"""What is in most of what LangGraph and LangChain keep, so that even small rows compress.

The bytes are part of the format: rows that were written with them cannot be read without them. Another dictionary
would be another one beside this, with a head byte of its own in `petal.checkpoints.envelope`.
"""

from __future__ import annotations

from typing import Final

_ENGLISH = (
    b" might should could would where which while there their these those other about after before because between "
    b"through without every first second last number people something another however example following information "
    b"question answer result please thank Here is the are not have has been was were will can You your I'm It's The "
    b"This that with from they we what when who how does do all one two any more some into than then only also for "
    b"and in on to of a "
)
_ANSWER = (
    b"\xc8\x02\x00\x18\x93\xa9AIMessage\xcd\x01b\x89\xa7content\xa0\xb1additional_kwargs\x81\xa7refusal\xc0"
    b"\xb1response_metadata\x88\xabtoken_usage\x85\xb1completion_tokens\x01\xadprompt_tokens\x01\xactotal_tokens\x02"
    b"\xb9completion_tokens_details\x84\xbaaccepted_prediction_tokens\x00\xacaudio_tokens\x00\xb0reasoning_tokens\x00"
    b"\xbarejected_prediction_tokens\x00\xb5prompt_tokens_details\x82\xacaudio_tokens\x00\xadcached_tokens\x00"
    b"\xabstop_reason\xa8end_turn\xadstop_sequence\xc0\xa5usage\xaemodel_provider\xa9anthropic\xa6openai"
    b"\xaamodel_name\xa6gpt-4o\xb2system_fingerprint\xc0\xa2id\xa9chatcmpl-\xacservice_tier\xa7default"
    b"\xadfinish_reason\xaatool_calls\xa4stop\xa8logprobs\xc0\xa4type\xa2ai\xa4name\xc0\xa2id\xd9*lc_run--0"
    b"\xaatool_calls\x91\x84\xa4name\xa6search\xa4args\x81\xa5query\xa1x\xa2id\xa6call_a\xa4type\xa9tool_call"
    b"\xb2invalid_tool_calls\x90\xaeusage_metadata\x85\xacinput_tokens\x01\xadoutput_tokens\x02\xactotal_tokens\x03"
    b"\xb3input_token_details\x82\xa5audio\x00\xaacache_read\x00\xb4output_token_details\x82\xa5audio\x00"
    b"\xa9reasoning\x00"
)
_MESSAGES = (
    b"\xadSystemMessage\x02\x86\xa7content\xbbYou are a helpful assistant\xb1additional_kwargs\x80"
    b"\xb1response_metadata\x80\xa4type\xa6system\xa4name\xc0\xa2id\xc0"
    b"\xc7\x82\x18\x93\xabToolMessage\xcc\x94\x89\xa7content\xa1x\xb1additional_kwargs\x80\xb1response_metadata\x80"
    b"\xa4type\xa4tool\xa4name\xa6search\xa2id\xd9$\xactool_call_id\xa6call_1\xa8artifact\xc0\xa6status\xa7success"
    b"\xc7\x87\x18\x93\xa9AIMessage\x06\x89\xa7content\xa2\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type"
    b"\xa2ai\xa4name\xc0\xa2id\xd9$\xaatool_calls\x90\xb2invalid_tool_calls\x90\xaeusage_metadata\xc0"
    b"\x92\x02\x92\xc4\t\xa8messages\xc5\x02\x00\x91\xc8\x02\x00\x18\x93\xacHumanMessage\x06\x86\xa7content\xda"
    b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa5human\xa4name\xc0\xa2id\xd9$"
)
_HEADERS = (
    b"\x85\xa6source\xa4fork\xa6update\xa4step\x01\xa7parents\x80\xa6run_id\xd9$\xa5model\xa5tools\xa5agent\xa4node"
    b"\xabbranch:to:model\xabbranch:to:tools\xaf__pregel_tasks\xad__interrupt__\xb1jump_to\xa9__input__\x80\xa9__start__"
    b"\x83\xa6source\xa5input\xa4step\xff\xa7parents\x80\x83\xa6source\xa4loop\xa4step\x00\xa7parents\x80"
    b"\x99\x01\x04\xd9 2026-01-01T00:00:00.000000+00:00\x94\xb70000000004.\xb70000000003.\xb70000000002.\xb70000000001."
    b"\x83\xa9__start__\x00\xa8messages\x00\xa5input\x00\xa6output\x00\xafbranch:to:reply\x00\x83\xa9__input__\x80"
    b"\xa9__start__\x81\xa9__start__\x01\xa5reply\x81\xafbranch:to:reply\x02\x82\xa8messages\x03\xafbranch:to:reply\x00"
    b"\x92\xafbranch:to:reply\xa8messages\x80"
)
DICTIONARY: Final = _ENGLISH + _ANSWER + _MESSAGES + _HEADERS
"""Raw content for zstandard; what comes up most stands last."""
