"""The REST interface as an OpenAPI 3.0 document."""
from typing import Any, Dict, Optional, Sequence

TEXTS = {"type": "array", "items": {"$ref": "#/components/schemas/Text"}}


def describe(model_names: Sequence[str], metrics_path: Optional[str]) -> Dict[str, Any]:
    """The document, for these models. Inputs of signatures that take ids, not text, are described only by
    /metadata."""
    paths: Dict[str, Any] = {
        "/healthz": _get("The process is alive", _schema({"status": _string()})),
        "/readyz": _get("A version answers", _schema({"status": _string()}), 503),
    }
    if metrics_path:
        paths[metrics_path] = {"get": {"summary": "Metrics", "responses": {"200": {
            "description": "Prometheus' text format", "content": {"text/plain": {"schema": _string()}}}}}}
    for path, parameters in [(path + suffix, parameters) for path in map("/v1/models/%s".__mod__, model_names)
                             for suffix, parameters in (("", []), ("/versions/{version}", [VERSION]))]:
        paths[path] = _get("State of the versions", _ref("Status"), 400, 404)
        paths[path + "/metadata"] = _get("Signatures", _ref("Metadata"), 400, 404)
        paths[path + ":predict"] = _post("Probabilities and label", "PredictRequest", "PredictResponse")
        paths[path + ":classify"] = _post("Label and score of each class", "ClassifyRequest",
                                          "ClassifyResponse")
        paths[path + ":regress"] = _post("A number for each example", "RegressRequest", "RegressResponse")
        paths[path + ":tag"] = _post("The entities of each text", "TagRequest", "TagResponse")
        for suffix in ("", "/metadata", ":predict", ":classify", ":regress", ":tag"):
            paths[path + suffix]["parameters"] = parameters
    return {"openapi": "3.0.3",
            "info": {"title": ", ".join(model_names), "version": "1",
                     "description": "TensorFlow Serving's REST interface"},
            "servers": [{"url": "."}],         # beside this document, wherever a proxy shows it
            "paths": paths, "components": {"schemas": SCHEMAS}}


def _schema(properties: Dict[str, Any], *required: str) -> Dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _closed(schema: Dict[str, Any]) -> Dict[str, Any]:
    return {**schema, "additionalProperties": False}


def _of_examples(signature: str) -> Dict[str, Any]:
    return _schema({"signature_name": {"type": "string", "enum": [signature]},
                    "context": {key: value for key, value in EXAMPLE.items() if key != "required"},
                    "examples": {"type": "array", "minItems": 1, "items": EXAMPLE}},
                   "signature_name", "examples")


def _string() -> Dict[str, Any]:
    return {"type": "string"}


def _ref(name: str) -> Dict[str, Any]:
    return {"$ref": "#/components/schemas/" + name}


def _content(schema: Dict[str, Any]) -> Dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _responses(schema: Dict[str, Any], *errors: int) -> Dict[str, Any]:
    return {"200": {"description": "The answer", "content": _content(schema)},
            **{str(status): {"description": ERRORS[status], "content": _content(_ref("Error"))}
               for status in (403, *errors)}}


def _get(summary: str, schema: Dict[str, Any], *errors: int) -> Dict[str, Any]:
    return {"get": {"summary": summary, "responses": _responses(schema, *errors)}}


def _post(summary: str, asked: str, answered: str) -> Dict[str, Any]:
    return {"post": {"summary": summary, "requestBody": {"required": True, "content": _content(_ref(asked))},
                     "responses": _responses(_ref(answered), *ERRORS)}}


ERRORS = {400: "The request is not valid", 403: "The host is not allowed",
          404: "There is no such model or version",
          413: "The body is too large", 415: "A request from another origin is not JSON",
          503: "The queue is full, too many bytes are in flight, or the server is shutting down",
          504: "Timed out"}
VERSION = {"name": "version", "in": "path", "required": True,
           "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"}}
FEATURE = {"oneOf": [_ref("Text"), {"type": "array", "minItems": 1, "maxItems": 1, "items": _ref("Text")}]}
EXAMPLE = _closed(_schema({"text_a": FEATURE, "text_b": FEATURE}, "text_a"))
SIGNATURE = {"type": "string", "enum": ["serving_default", "encode", "embed", "labels"]}
READING = {"type": "string", "enum": ["read", "choose"]}
TAGGING = {"type": "string", "enum": ["tag"]}
TAGGED = {"instances": {"type": "array", "minItems": 1, "items": {
    "oneOf": [_ref("Text"), _closed(_schema({"text": _ref("Text")}))]}}}
QUESTION = {"question": _ref("Text"), "passage": _ref("Text"),
            "candidates": {"type": "array", "minItems": 1, "items": _ref("Text")}}
SCHEMAS: Dict[str, Any] = {
    "Error": _schema({"error": _string()}),
    "Text": {"oneOf": [_string(), _closed(_schema({"b64": {"type": "string", "format": "byte"}}))]},
    "PredictRequest": {"oneOf": [
        _schema({"signature_name": SIGNATURE, "instances": {"type": "array", "minItems": 1, "items": _closed(
            _schema({"text_a": _ref("Text"), "text_b": _ref("Text")}))}}, "instances"),
        _schema({"signature_name": SIGNATURE, "inputs": _schema({"text_a": TEXTS, "text_b": TEXTS})},
                "inputs"),
        _schema({"signature_name": READING, "instances": {"type": "array", "minItems": 1, "items": _closed(
            _schema(QUESTION, "question", "passage"))}}, "signature_name", "instances"),
        _schema({"signature_name": TAGGING, **TAGGED}, "signature_name", "instances")]},
    # a single output has no name
    "PredictResponse": {"oneOf": [_schema({"predictions": {"type": "array", "items": {}}}),
                                  _schema({"outputs": {}})]},
    "ClassifyRequest": _of_examples("classify"),
    "RegressRequest": _of_examples("regress"),
    "RegressResponse": _schema({"results": {"type": "array", "items": {"type": "number"}}}),
    "ClassifyResponse": _schema({"results": {"type": "array", "items": {"type": "array", "items": {
        "type": "array", "minItems": 2, "maxItems": 2,
        "items": {"oneOf": [_string(), {"type": "number"}]}}}}}),
    "TagRequest": _schema({"signature_name": TAGGING, **TAGGED}, "instances"),
    "TagResponse": _schema({
        "results": {"type": "array", "items": {"type": "array", "items": _schema({
            "text": _string(), "label": _string(), "start": {"type": "integer"}, "end": {"type": "integer"},
            "score": {"type": "number"}})}},
        "left_out": {"type": "array", "items": {"type": "integer"}}}, "results"),
    "Status": _schema({"model_version_status": {"type": "array", "minItems": 1, "items": _schema({
        "version": _string(),
        "state": {"type": "string", "enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
        "status": _schema({"error_code": _string(), "error_message": _string()})})}}),
    "Metadata": _schema({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}),
}
