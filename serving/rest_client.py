"""Asks a server: ours, or TensorFlow Serving itself, by REST's :classify, which says labels, too."""
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Dict, List, Optional, Sequence, Tuple

from etl.command_line import UserError

TIMEOUT_SECONDS = 60


class RestClient:
    """A client of the model `model_name` at `server`, as `http://127.0.0.1:8501`."""

    def __init__(self, server: str, model_name: str) -> None:
        self._url = "%s/v1/models/%s:classify" % (server.rstrip("/"), urllib.parse.quote(model_name, safe=""))

    def probabilities(self, pairs: Sequence[Tuple[str, Optional[str]]]) -> List[Dict[str, float]]:
        """By label, for each text_a and text_b. Raises UserError with what the server or the network says."""
        examples = [{"text_a": text_a, "text_b": text_b or ""} for text_a, text_b in pairs]
        body = json.dumps({"signature_name": "classify", "examples": examples}).encode("utf-8")
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return [dict(row) for row in json.load(answer)["results"]]
        except urllib.error.HTTPError as error:
            raise UserError("--server: %s: %d: %s" % (self._url, error.code, _message(error.read())))
        except urllib.error.URLError as error:
            raise UserError("--server: %s: %s" % (self._url, getattr(error.reason, "strerror", None) or error.reason))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError("--server: %s: no answer of TensorFlow Serving's: %s" % (self._url, error))


def _message(body: bytes) -> str:
    try:
        return json.loads(body.decode("utf-8"))["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200]
