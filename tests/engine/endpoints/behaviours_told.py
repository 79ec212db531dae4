"""Rows of the table: thoughts, and answers that come in events."""

import json

from behaviours import DONE, STREAMED, WHOLE, Behaviour, always, delta, first, message, stream

TOLD: dict[str, Behaviour] = {
    # Thoughts.
    "reasoning_content": Behaviour(always(message("42", reasoning_content="41?")), 1),
    "reasoning": Behaviour(always(message("42", reasoning="41?")), 1),
    "thinking": Behaviour(always(message("42", thinking="41?")), 1),
    "reasoning_details": Behaviour(always(message("42", reasoning_details=[{"text": "41?"}])), 1),
    "a thought among the parts": Behaviour(
        always(message([{"type": "thinking", "thinking": "4?"}, {"type": "text", "text": "42"}])), 1
    ),
    "a thought in the text": Behaviour(always(message("<think>\n41?\n</think>\n\n42")), 1),
    "a thought that the template began": Behaviour(always(message("41?\n</think>\n\n42")), 1),
    "nothing but a thought": Behaviour(always(message(None, reasoning_content="41?")), 1, ""),
    # Streams.
    "a stream": Behaviour(always(WHOLE), 1, how=STREAMED),
    "a stream without its end": Behaviour(
        always(stream(delta("4"), DONE, end=b"")), 1, how=STREAMED
    ),
    "a stream that tells usage and no reason": Behaviour(
        always(stream(delta("42"), {"usage": {"prompt_tokens": 1, "completion_tokens": 1}})),
        1,
        how=STREAMED,
    ),
    "a stream that breaks off once": Behaviour(
        first(stream(delta("4"), end=b""), then=WHOLE), 2, how=STREAMED
    ),
    "a stream that breaks off for good": Behaviour(
        always(stream(delta("4"), end=b"")), 5, "ServerError", "before its answer", how=STREAMED
    ),
    "a stream with comments": Behaviour(
        always(stream(delta("4"), end=b": ping\n\ndata: " + json.dumps(DONE).encode() + b"\n\n")),
        1,
        how=STREAMED,
    ),
    "a stream with an error once": Behaviour(
        first(stream(delta("4"), {"error": {"message": "x", "code": 500}}), then=WHOLE),
        2,
        how=STREAMED,
    ),
    "a stream with an error for good": Behaviour(
        always(stream({"error": {"message": "CUDA out of memory"}})),
        5,
        "ServerError",
        "within a stream: CUDA out of memory",
        how=STREAMED,
    ),
    "a stream with a wrong key": Behaviour(
        always(stream({"error": {"message": "k", "code": "invalid_api_key"}})),
        1,
        "AccessError",
        how=STREAMED,
    ),
    "a stream with a torn event": Behaviour(
        first(stream(delta("4"), end=b'data: {"choices": [\n\n'), then=WHOLE), 2, how=STREAMED
    ),
    "a stream with an event that is no object": Behaviour(
        always(stream(7)), 1, "ServerError", "no JSON object", how=STREAMED
    ),
}
