"""TensorFlow Serving's REST interface, with the page, metrics and health, as an ASGI application.

  POST /v1/models/NAME[/versions/V | /labels/L]:predict, :classify, :regress, :tag
  GET  /v1/models/NAME[/versions/V | /labels/L][/metadata]
  GET  /healthz, /readyz   whether the process is alive; whether a version answers and the server is not
                           shutting down
  GET  /monitoring/prometheus/metrics                      GET /openapi.json, /, /model.json (for the page)
"""
import asyncio
import logging
import os
import re
import time
import urllib.parse
from typing import Any, Coroutine, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

import grpc
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from tensorflow_serving.apis import model_pb2

from serving.service import browsers, compression, openapi, rest
from serving.service.errors import RequestError, invalid, shortened
from serving.service.inference import (CLASSIFY_METHOD, PREDICT_METHOD, REGRESS_METHOD, Inference,
                                       Target)
from serving.service.messages import Arrays
from serving.service.monitoring import METRICS_PATH, METRICS_TYPE, REQUEST_ID_HEADER, Monitor, request_id_from
from serving.service.versions import ServedVersion
from serving.entity_lists import FIELDS, TAG
from serving.version_files import version_of

PAGE_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
PAGE_PATH = "/"
MAX_HOST_CHARS = 300                           # longer than any name
# The page may load nothing but its own content and this server's answers.
PAGE_HEADERS = {"content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src "
                "'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri "
                "'none'; form-action 'none'"}
COMPUTED_PATH = re.compile("/v1/models/([^/:]+)(?:/(?:versions|labels)/[^/:]+)?:"
                           "(predict|classify|regress|tag)")
GZIP_CODINGS = ("gzip", "x-gzip")              # of a body; RFC 9110, 8.4.1.3
LOG = logging.getLogger("serving")
Headers = List[Tuple[bytes, bytes]]
MODEL_PATHS = ("/v1/models/{name:part}", "/v1/models/{name:part}/versions/{version:part}",
               "/v1/models/{name:part}/labels/{label:part}")


class _Part(StringConvertor):
    """A part of a path as TensorFlow Serving has it: what stands behind a colon is the method."""
    regex = "[^/:]+"


register_url_convertor("part", _Part())


class HttpLimits(NamedTuple):
    """Limits on one request."""
    max_body_bytes: int
    timeout_seconds: float                     # from its head to the end of its answer


class Refusal(NamedTuple):
    """A complete answer; its headers lack the length of the body."""
    status: int
    headers: Headers
    body: bytes

    async def send(self, send: Any) -> None:
        """As an ASGI application sends it."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class HttpApp:
    """The ASGI application. Setting `draining` tells load balancers to go elsewhere.

    Args:
      names: of hosts, as `browsers.is_allowed_host` takes them.
      metrics_path: None for no metrics.
    """

    def __init__(self, inference: Inference, monitor: Monitor, limits: HttpLimits,
                 names: FrozenSet[str] = frozenset(), metrics_path: Optional[str] = METRICS_PATH) -> None:
        self.draining = False
        self._metrics_path = metrics_path
        self._inference, self._monitor, self._limits = inference, monitor, limits
        self._names = names
        with open(PAGE_FILE, "rb") as stream:
            self._page = stream.read()
        gets = {PAGE_PATH: self.get_page, "/model.json": self.get_model, "/openapi.json": self.get_openapi,
                "/healthz": self.get_health, "/readyz": self.get_readiness,
                **({metrics_path: self.get_metrics} if metrics_path else {})}
        routes = []                            # tried in order: the most frequent first
        for path in MODEL_PATHS:
            routes += [Route(path + ":predict", self.predict, methods=["POST"]),
                       Route(path + ":classify", self.classify, methods=["POST"]),
                       Route(path + ":regress", self.regress, methods=["POST"]),
                       Route(path + ":tag", self.tag, methods=["POST"]),
                       Route(path + "/metadata", self.get_metadata, methods=["GET"]),
                       Route(path, self.get_status, methods=["GET"])]
        routes += [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request within the time limit, assigns its id, counts it and logs it."""
        scope["app"] = self                    # makes the router raise for unknown paths
        start = time.perf_counter()
        asked = dict(scope["headers"])
        given_id = asked.get(REQUEST_ID_HEADER.encode(), b"").decode("latin-1")
        refusal = self.refuse_if_full(scope["method"], scope["path"], given_id, scope["client"])
        if refusal:
            await refusal.send(send)
            return
        request_id = request_id_from(given_id)
        status = 0                             # none was sent

        async def send_named(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((REQUEST_ID_HEADER.encode(), request_id.encode()))
                if scope["path"] != PAGE_PATH:     # the page has a stricter policy of its own
                    message["headers"].append(browsers.NO_FRAMES)
            await send(message)

        try:
            respond = self._browser_refusal(scope, asked) or _coding_refusal(scope) or self._respond
            await asyncio.wait_for(respond(scope, receive, send_named), self._limits.timeout_seconds)
        except asyncio.TimeoutError:
            if not status:
                error = RequestError(grpc.StatusCode.DEADLINE_EXCEEDED,
                                     "Timed out after %g s" % self._limits.timeout_seconds)
                await _error_response(error)(scope, receive, send_named)
        except asyncio.CancelledError:         # an Exception in Python 3.7
            raise
        except Exception:                      # our own bug, or the model's
            LOG.exception("request %s failed", request_id)
            if status:
                raise
            error = RequestError(grpc.StatusCode.INTERNAL,
                                 "The server failed; its log says more of request %s" % request_id)
            await _error_response(error)(scope, receive, send_named)
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "unknown")
            _, method = computed_request(scope["method"], scope["path"]) or ("", endpoint)
            self._count(method, status or 500, time.perf_counter() - start, request_id, scope["path"],
                        scope["client"])

    def is_overloaded(self) -> bool:
        """Whether `refuse_if_full` may refuse a request."""
        return self._inference.models.is_any_queue_full()

    def refuse_if_full(self, method: str, path: str, request_id: Optional[str],
                       client: Any) -> Optional[Refusal]:
        """The answer to a request for which the queue is full, counted and logged; else None.

        This is the only place where REST refuses under overload. It runs before anything else, possibly
        before the request has a task: refusals must be cheap.
        """
        asked = computed_request(method, path)
        if not asked:
            return None
        model, computed = asked
        try:
            self._inference.require_room(urllib.parse.unquote(model))
        except RequestError as error:
            name = request_id_from(request_id)
            self._count(computed, error.http_status, 0.0, name, path, client)
            headers = [(b"content-type", b"application/json"), (REQUEST_ID_HEADER.encode(), name.encode()),
                       browsers.NO_FRAMES]
            return Refusal(error.http_status, headers, rest.error_response(str(error)))
        return None

    def _count(self, method: str, status: int, seconds: float, request_id: str, path: str,
               client: Any) -> None:
        address = "%s:%d" % tuple(client or ("", 0))
        self._monitor.count("rest", method, status, seconds, request_id, path=path, client=address)

    def _browser_refusal(self, scope: Any, asked: Dict[bytes, bytes]) -> Optional[Response]:
        """The answer to a request that browsers must not send for other pages."""
        host = asked[b"host"].decode("latin-1")[:MAX_HOST_CHARS] if b"host" in asked else None
        if not browsers.is_allowed_host(host, self._names):
            return _json(rest.error_response("Host %s is not allowed; --allowed_hosts can allow it" % host),
                         403)
        if scope["method"] == "POST" and browsers.is_of_another_page(asked) and not browsers.is_json(
                asked.get(b"content-type", b"")):
            return _json(rest.error_response("The content-type of a request from another origin must be "
                                             "application/json"), 415)
        return None

    async def _respond(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._router(scope, receive, send)
        except RequestError as error:
            await _error_response(error)(scope, receive, send)
        except HTTPException:
            # As in TensorFlow Serving: 400 for unknown API paths, 404 elsewhere.
            message = "Malformed request: %s %s" % (scope["method"], scope["path"])
            if COMPUTED_PATH.fullmatch(scope["path"]):
                message += "; it takes POST"
            status = 400 if scope["path"].startswith("/v1/") else 404
            await _json(rest.error_response(message), status)(scope, receive, send)

    async def predict(self, request: Request) -> Response:
        target, by_columns, inputs = self._read_predict(request, await self._body(request))
        found = await _unless_client_goes(request, self._inference.predict(target, inputs))
        return _json(rest.predict_response(by_columns, found))

    async def classify(self, request: Request) -> Response:
        return _json(rest.classify_response(await self._of_examples(request, CLASSIFY_METHOD)))

    async def regress(self, request: Request) -> Response:
        return _json(rest.regress_response(await self._of_examples(request, REGRESS_METHOD)))

    async def tag(self, request: Request) -> Response:
        """The entities of each text as a list; a :predict of the signature has them padded."""
        target, _, inputs = self._read_predict(request, await self._body(request), TAG)
        missing = sorted({"count", *FIELDS} - set(target.signature.outputs))
        if missing:
            raise invalid("The signature %s gives no entities: it has no %s" % (TAG, ", ".join(missing)))
        found = await _unless_client_goes(request, self._inference.predict(target, inputs))
        return _json(rest.tag_response(found))

    async def _of_examples(self, request: Request, method: str) -> Arrays:
        target, examples = self._read_examples(request, await self._body(request), method)
        return await _unless_client_goes(request, self._inference.of_examples(target, examples))

    # Reading is a separate function, so that bodies and parsed objects are freed before any await.

    def _read_predict(self, request: Request, body: bytes, only: str = "") -> Tuple[Target, bool, Arrays]:
        """`only`: the signature that is asked, where the path says it."""
        asked = self._parsed(request, body)
        name = rest.signature_name(asked)
        if only and name not in ("", only):
            raise invalid("'signature_name' must be %s, or left out, got %s" % (only, shortened(name)))
        target = self._inference.find(_spec(request, only or name), PREDICT_METHOD)
        return target, rest.is_by_columns(asked), rest.predict_inputs(asked, target.signature.inputs,
                                                                      target.limits)

    def _read_examples(self, request: Request, body: bytes, method: str) -> Tuple[Target, List[bytes]]:
        asked = self._parsed(request, body)
        target = self._inference.find(_spec(request, rest.signature_name(asked)), method)
        return target, rest.serialized_examples(asked, target.limits)

    def _parsed(self, request: Request, body: bytes) -> Dict[str, Any]:
        if _content_codings(request.scope):
            body = compression.inflated(body, compression.GZIP, self._limits.max_body_bytes)
        return rest.parse(body, self._inference.limits)

    async def get_status(self, request: Request) -> Response:
        return _json(rest.status_response(self._inference.models.status(_spec(request))))

    async def get_metadata(self, request: Request) -> Response:
        version = self._version(_spec(request))
        return _json(rest.metadata_response(request.path_params["name"], version.number,
                                            version.model.signatures))

    async def get_model(self, request: Request) -> Response:
        """The description of a model for the page, and the vocabulary with which it shows token ids: of the
        model with the given name, or else of the first."""
        names = self._inference.models.names
        name = request.query_params.get("name", "") or next(iter(names), "")
        version = self._version(model_pb2.ModelSpec(name=name))
        return _json(rest.dumps({"name": name, "names": names, "version": version.number,
                                 "card": version.model.card,
                                 "signatures": sorted(version.model.signatures),
                                 "vocabulary": version.model.vocabulary}))

    async def get_page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html", headers=PAGE_HEADERS)

    async def get_openapi(self, request: Request) -> Response:
        return _json(rest.dumps(openapi.describe(self._inference.models.names, self._metrics_path)))

    async def get_health(self, request: Request) -> Response:
        return _json(rest.dumps({"status": "alive"}))

    async def get_readiness(self, request: Request) -> Response:
        if self.draining:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
        if not self._inference.models.is_ready:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "A model has no version that serves")
        return _json(rest.dumps({"status": "ready"}))

    async def get_metrics(self, request: Request) -> Response:
        return Response(self._monitor.expose(), media_type=METRICS_TYPE)

    def _version(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        return self._inference.models.find(spec).versions.find(spec)

    async def _body(self, request: Request) -> bytes:
        """The whole body. Raises RequestError as soon as it is known to be too large, or when the client
        disconnects."""
        too_large = RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "The body must have at most %d bytes"
                                 % self._limits.max_body_bytes)
        if int(request.headers.get("content-length", 0)) > self._limits.max_body_bytes:
            raise too_large
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self._limits.max_body_bytes:
                    raise too_large
        except ClientDisconnect:
            raise _client_gone()
        return bytes(body)


def computed_request(method: str, path: str) -> Optional[Tuple[str, str]]:
    """The model's name in the path, and predict, classify, regress or tag; None for requests that need no
    model."""
    found = COMPUTED_PATH.fullmatch(path) if method == "POST" else None
    return (found.group(1), found.group(2)) if found else None


async def _unless_client_goes(request: Request, answer: Coroutine[Any, Any, Arrays]) -> Arrays:
    """The result of `answer`; it is cancelled when the client closes the connection, and with the caller."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(request.receive())         # after the body nothing else can come
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise _client_gone()
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


def _coding_refusal(scope: Any) -> Optional[Response]:
    """The answer to a request whose body is encoded otherwise than once by gzip."""
    codings = _content_codings(scope)
    if scope["method"] != "POST" or not codings or (len(codings) == 1 and codings[0] in GZIP_CODINGS):
        return None
    return _json(rest.error_response("The content-encoding must be gzip or identity, got %s"
                                     % shortened(", ".join(codings))), 415)


def _content_codings(scope: Any) -> List[str]:
    """How the body is encoded, in lower case; identity, and empty elements, say nothing (RFC 9110, 8.4)."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    codings = [coding.strip(" \t").lower() for coding in ",".join(given).split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


def _spec(request: Request, signature_name: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=request.path_params["name"], signature_name=signature_name)
    version = request.path_params.get("version")
    if "label" in request.path_params:
        spec.version_label = request.path_params["label"]
    if version is not None:
        number = version_of(version)
        if number is None:
            raise invalid("Failed to convert version: %s to numeric." % version)
        spec.version.value = number
    return spec


def _client_gone() -> RequestError:
    return RequestError(grpc.StatusCode.CANCELLED, "The client has closed the connection")


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _error_response(error: RequestError) -> Response:
    return _json(rest.error_response(str(error)), error.http_status)
