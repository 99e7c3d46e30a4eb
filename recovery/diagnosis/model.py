"""The language model that may be asked: any server that speaks OpenAI's chat completions.

Theory of operation. It is off unless a URL and a name are configured. One question is asked, with
one deadline for all of it: looking the name up, requests that are tried again since the server is
busy, and the one turn in which an answer that was refused may be corrected. The key comes from a
file or the environment, and is in no error, log, `repr` or question. What is asked is in `prompt`,
what is made of the answer in `answer`; rules come first and do not need any of this.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...errors import ProtocolError, UnavailableError, UsageError
from ..http_json import Endpoint, StatusError, exchange_json, parse_endpoint
from .answer import content_of, read_answer
from .prompt import answer_schema, correction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .answer import Suggestion
    from .prompt import Question

URL_VARIABLE = "PENSTOCK_MODEL_URL"
NAME_VARIABLE = "PENSTOCK_MODEL"
KEY_VARIABLE = "PENSTOCK_MODEL_KEY"
DEADLINE_S = 30.0
ANSWER_BYTES_MAX = 256 << 10
_KEY_CHARS_MAX = 4096
_PATH = "/chat/completions"
_TURNS = 2
_ATTEMPTS = 4
_PAUSE_S = 0.5
#: Statuses that may be others the next time.
_BUSY = (408, 409, 429, 500, 502, 503, 504)
#: What servers answer to a field that they do not know.
_UNKNOWN_FIELD = (400, 422)
_CORRECTED_CHARS_MAX = 4000


@dataclass(frozen=True, slots=True)
class Model:
    """Which model is asked.

    Attributes:
        endpoint: where, with the whole path.
        name: the model, as the server calls it.
        key: sent as a bearer token; "" if the server wants none.
        deadline_s: for one question with its answer.
    """

    endpoint: Endpoint
    name: str
    key: str = field(default="", repr=False)
    deadline_s: float = DEADLINE_S


def model_of(
    url: str | None,
    name: str | None,
    key_file: Path | None = None,
    *,
    deadline_s: float = DEADLINE_S,
    environment: Mapping[str, str] | None = None,
) -> Model | None:
    """The model that was configured; what is not given is taken from the environment.

    Args:
        url: the base of the server, such as http://127.0.0.1:8000/v1; else `PENSTOCK_MODEL_URL`.
        name: the model; else `PENSTOCK_MODEL`.
        key_file: a file that holds the key; else it is in `PENSTOCK_MODEL_KEY`, or there is none.
        deadline_s: for one question.
        environment: the process's own if None.

    Returns:
        None if there is no URL and nothing else was given.

    Raises:
        UsageError: one of them is missing or is not accepted.
    """
    known = os.environ if environment is None else environment
    url_name, url = ("--model-url", url) if url else (URL_VARIABLE, known.get(URL_VARIABLE))
    if not url:
        if name or key_file is not None:
            raise UsageError(f"--model and --model-key-file need --model-url or {URL_VARIABLE}")
        return None
    name = name or known.get(NAME_VARIABLE)
    if not name or len(name) > 200 or not name.isprintable():
        raise UsageError(f"{url_name} needs a model's name: --model or {NAME_VARIABLE}")
    if not deadline_s > 0:
        raise UsageError(f"--model-deadline must be more than 0 s, not {deadline_s:g}")
    endpoint = parse_endpoint(url, url_name)
    path, mark, query = endpoint.path.partition("?")
    if not path.endswith(_PATH):
        path = path.rstrip("/") + _PATH
    key = _key(key_file, known.get(KEY_VARIABLE, ""))
    return Model(replace(endpoint, path=path + mark + query), name, key, deadline_s)


def _key(path: Path | None, given: str) -> str:
    name = KEY_VARIABLE
    if path is not None:
        name = f"the key in {path}"
        try:
            with path.open("rb") as file:
                given = file.read(_KEY_CHARS_MAX + 1).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not ASCII"
            raise UsageError(f"--model-key-file: {path} cannot be read: {why}") from None
    key = given.strip()
    if len(key) > _KEY_CHARS_MAX or any(not 33 <= ord(char) <= 126 for char in key):
        raise UsageError(f"{name} must be at most {_KEY_CHARS_MAX} ASCII characters, no blanks")
    return key


def ask(model: Model, question: Question, *, stop: threading.Event | None = None) -> Suggestion:
    """Asks, and gives one chance to correct an answer that is refused.

    Args:
        model: whom.
        question: what; see `prompt.question_of`.
        stop: set by another thread, it ends a pause before the next attempt.

    Raises:
        UnavailableError: there was no answer before the deadline, or none will be.
        ProtocolError: what was answered is refused, twice.
    """
    ends_s = time.monotonic() + model.deadline_s
    stop = stop or threading.Event()
    messages = list(question.messages)
    refused = ProtocolError("it was not asked")
    for _ in range(_TURNS):
        content = content_of(_complete(model, messages, ends_s, stop))
        try:
            return read_answer(content, question, model.name)
        except ProtocolError as error:
            refused = error
        said = {"role": "assistant", "content": content[:_CORRECTED_CHARS_MAX]}
        messages = [*messages, said, correction(str(refused))]
    raise ProtocolError(f"the answer of the model {model.name} was refused: {refused}")


def _complete(
    model: Model, messages: Sequence[dict[str, str]], ends_s: float, stop: threading.Event
) -> bytes:
    """One completion, tried again where the server is busy and time is left."""
    headers = {"Authorization": f"Bearer {model.key}"} if model.key else None
    request = _request(model, messages)
    pause_s = _PAUSE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return exchange_json(
                model.endpoint, request, deadline_s=ends_s - time.monotonic(), headers=headers,
                answer_bytes_max=ANSWER_BYTES_MAX,
            )  # fmt: skip
        except StatusError as error:
            if error.status in _UNKNOWN_FIELD and "response_format" in request:
                request = {"model": model.name, "messages": list(messages)}
                continue
            wait_s = pause_s if error.retry_after_s is None else error.retry_after_s
            left_s = ends_s - time.monotonic()
            if error.status not in _BUSY or attempt == _ATTEMPTS or wait_s >= left_s:
                raise
        if stop.wait(wait_s):
            break
        pause_s *= 2
    raise UnavailableError(f"{model.endpoint!r} was not asked to the end")


def _request(model: Model, messages: Sequence[dict[str, str]]) -> dict[str, Any]:
    schema = {"name": "diagnosis", "strict": True, "schema": answer_schema()}
    return {
        "model": model.name,
        "messages": list(messages),
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
