"""A REST client for our server or TensorFlow Serving itself. It uses :classify, which also returns labels,
and :regress."""
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from etl.common import json_text
from etl.common.command_line import UserError

TIMEOUT_SECONDS = 60
LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES = 1 << 26, 1 << 16


class RestClient:
    """A client of the model `model_name` at `server`, as `http://127.0.0.1:8501`."""

    def __init__(self, server: str, model_name: str) -> None:
        self._url = "%s/v1/models/%s" % (server.rstrip("/"), urllib.parse.quote(model_name, safe=""))

    def probabilities(self, pairs: Sequence[Tuple[str, Optional[str]]]) -> List[Dict[str, float]]:
        """Probabilities by label, for each text_a and text_b. Raises UserError with the server's or network's
    message."""
        return self._ask(":classify", {"signature_name": "classify", "examples": _examples(pairs)},
                         lambda answer: _scores(answer, len(pairs)))

    def values(self, pairs: Sequence[Tuple[str, Optional[str]]]) -> List[float]:
        """The number for each text_a and text_b. Raises UserError as above."""
        return self._ask(":regress", {"signature_name": "regress", "examples": _examples(pairs)},
                         lambda answer: _numbers(answer, len(pairs)))

    def rows(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
        """A signature's outputs by name for each row of inputs by name. Raises UserError as above."""
        return self._ask(":predict", {"signature_name": signature, "instances": rows},
                         lambda answer: _predictions(answer, len(rows)))

    def _ask(self, method: str, body: Any, read: Callable[[Any], List[Any]]) -> List[Any]:
        url = self._url + method
        request = urllib.request.Request(url, json.dumps(body).encode("utf-8"),
                                         {"content-type": "application/json"})
        try:
            with _opener(url).open(request, timeout=TIMEOUT_SECONDS) as answer:
                return read(json_text.loads(_read(answer)))
        except urllib.error.HTTPError as error:
            raise UserError("--server: %s: %d: %s" % (url, error.code, _message(error)))
        except urllib.error.URLError as error:
            raise UserError("--server: %s: %s"
                            % (url, getattr(error.reason, "strerror", None) or error.reason))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UserError("--server: %s: not a TensorFlow Serving response: %s" % (url, error))


def _opener(url: str) -> urllib.request.OpenerDirector:
    """The environment's proxy is not asked for what is on this host."""
    is_here = LOOPBACK.fullmatch(urllib.parse.urlsplit(url).hostname or "")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_here else []))


def _read(answer: IO[bytes]) -> bytes:
    """The body. Raises ValueError when it is longer than the response to any batch."""
    body = answer.read(MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError("over %d bytes" % MAX_ANSWER_BYTES)
    return body


def _examples(pairs: Sequence[Tuple[str, Optional[str]]]) -> List[Dict[str, str]]:
    return [{"text_a": text_a, "text_b": text_b or ""} for text_a, text_b in pairs]


def _results(answer: Any, num_texts: int) -> List[Any]:
    rows = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != num_texts:
        raise ValueError("'results' must be a list of %d, one for each text" % num_texts)
    return rows


def _numbers(answer: Any, num_texts: int) -> List[float]:
    """Raises ValueError for any response but one number for each text."""
    rows = _results(answer, num_texts)
    if not all(type(row) in (int, float) for row in rows):
        raise ValueError("'results' must hold numbers")
    return [float(row) for row in rows]


def _scores(answer: Any, num_texts: int) -> List[Dict[str, float]]:
    """Scores by label, for each text. Raises ValueError for any other response."""
    rows = _results(answer, num_texts)
    json_text.require_whole_characters(rows)
    try:
        found = [{str(label): float(score) for label, score in row} for row in rows]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("'results' must hold pairs of label and score")
    if not all(found):
        raise ValueError("'results' has a text without labels")
    return found


def _predictions(answer: Any, num_rows: int) -> List[Dict[str, Any]]:
    """Outputs by name, for each row. Raises ValueError for any other response."""
    rows = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != num_rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError("'predictions' must be a list of %d objects, one for each row" % num_rows)
    json_text.require_whole_characters(rows)
    return rows


def _message(answer: IO[bytes]) -> str:
    """The server's error message, if the response has TensorFlow Serving's format."""
    try:
        body = answer.read(MAX_MESSAGE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    try:
        return str(json_text.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200]
