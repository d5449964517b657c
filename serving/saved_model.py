"""Loads an exported model, which needs TensorFlow and none of the code that made it."""
import functools
import json
import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from etl.common import files, json_text
from etl.common.command_line import UserError
from serving.version_files import CARD_FILE, VOCABULARY_FILE

POSITIONS = "max_position_embeddings"          # of the card's config
MAX_JOINED = 32                                # sets of signatures run together whose calls are kept

Call = Callable[[Mapping[str, Any]], Dict[str, Any]]


class SavedModel:
    """One version of an exported model. Raises UserError when files are missing or damaged.

    `session_config` sets the number of threads; the default is one per core.

    Attributes:
      card: the model card, a dict; its labels are by class index.
      labels: those labels.
      signatures: SignatureDefs by name.
      vocabulary: tokens by id; empty unless the vocabulary is a vocab.txt.
      example_tensors: names of the tensors that the graph parses tf.Examples from.
    """

    def __init__(self, folder: str, session_config: Optional[tf.ConfigProto] = None) -> None:
        tf.logging.set_verbosity(tf.logging.ERROR)
        self.card = _read_card(os.path.join(folder, CARD_FILE))
        self.labels = self.card["labels"]
        self.vocabulary = _read_vocabulary(os.path.join(folder, VOCABULARY_FILE))
        self._session = tf.Session(graph=tf.Graph(), config=session_config)
        try:
            with self._session.graph.as_default():
                loaded = tf.saved_model.loader.load(self._session, [tf.saved_model.tag_constants.SERVING],
                                                    folder)
        except (tf.errors.OpError, RuntimeError) as error:     # the latter if it is no SavedModel
            self._session.close()              # a server retries while a copy is in progress
            raise UserError("%s: not a complete model: %s" % (folder, str(error).split("\n")[0]))
        self.signatures: Dict[str, Any] = dict(loaded.signature_def)
        self._calls: Dict[str, Call] = {}      # by signature, once it was used
        self._call_joined: Callable[..., Call] = functools.lru_cache(MAX_JOINED)(self._prepare_joined)
        self.example_tensors = {operation.inputs[0].name for operation in self._session.graph.get_operations()
                                if operation.type == "ParseExample"}

    def run(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> Dict[str, Any]:
        """Maps arrays by the signature's input names to arrays by its output names. Raises UserError for an
        unknown signature."""
        if signature not in self.signatures:
            raise UserError("the model has no signature %s, only %s"
                            % (signature, ", ".join(sorted(self.signatures))))
        if signature not in self._calls:       # each costs a fifth of a second; two threads may make it twice
            self._calls[signature] = self._prepare(self.signatures[signature])
        return self._calls[signature](inputs)

    def run_joined(self, inputs: Mapping[str, Any], *signatures: str) -> Dict[str, Any]:
        """Arrays by `signature/output`, for signatures whose inputs are the same tensors: computed once."""
        return self._call_joined(*sorted(signatures))(inputs)

    def _prepare_joined(self, *signatures: str) -> Call:
        joined = SignatureDef()
        for signature in signatures:
            definition = self.signatures[signature]
            for name, info in definition.inputs.items():
                joined.inputs[name].CopyFrom(info)
            for name, info in definition.outputs.items():
                joined.outputs["%s/%s" % (signature, name)].CopyFrom(info)
        return self._prepare(joined)

    def _prepare(self, definition: Any) -> Call:
        """A callable for a signature. Names are looked up once here; Session.run would do so at each call,
        which takes a tenth of tiny's time."""
        dtypes = {name: tf.as_dtype(info.dtype).as_numpy_dtype for name, info in definition.inputs.items()}
        options = CallableOptions(feed=[info.name for info in definition.inputs.values()],
                                  fetch=[info.name for info in definition.outputs.values()])
        run, outputs = (self._session._make_callable_from_options(options),
                        list(definition.outputs))    # all that 1.15 has for it

        def call(inputs: Mapping[str, Any]) -> Dict[str, Any]:
            return dict(
                zip(outputs, run(*[np.asarray(inputs[name], dtype) for name, dtype in dtypes.items()])))
        return call

    def probabilities(self, pairs: Sequence[Tuple[str, Optional[str]]]) -> List[Dict[str, float]]:
        """Probabilities by label, for each text_a and text_b."""
        found = self.run({"text_a": [text_a for text_a, _ in pairs],
                          "text_b": [text_b or "" for _, text_b in pairs]})
        return [dict(zip(self.labels, row)) for row in found["probabilities"].tolist()]

    def values(self, pairs: Sequence[Tuple[str, Optional[str]]]) -> List[float]:
        """The number that `regress` gives for each text_a and text_b."""
        examples = []
        for pair in pairs:
            example = tf.train.Example()
            for name, text in zip(("text_a", "text_b"), pair):
                example.features.feature[name].bytes_list.value.append((text or "").encode("utf-8"))
            examples.append(example.SerializeToString())
        values: List[float] = self.run({"inputs": examples}, "regress")["outputs"].ravel().tolist()
        return values

    def rows(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
        """A signature's outputs by name for each row of inputs by name; texts are str."""
        return rows_of(self.run({name: [row[name] for row in rows] for name in rows[0]}, signature))

    def close(self) -> None:
        """Frees the weights; afterwards `run` fails."""
        self._session.close()


def rows_of(outputs: Mapping[str, np.ndarray]) -> List[Dict[str, Any]]:
    """Outputs by name, of each row; texts are str."""
    columns = {name: values.tolist() for name, values in outputs.items()}
    return [{name: _as_text(value) for name, value in zip(columns, row)} for row in zip(*columns.values())]


def _as_text(value: Any) -> object:
    """Bytes, also those in lists, as texts."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _read_card(path: str) -> Dict[str, Any]:
    """Raises UserError if a card has no labels, or holds text that cannot be encoded in UTF-8, as
    responses are."""
    card = files.read_json(path)
    labels = card.get("labels") if isinstance(card, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError("%s: labels must be a list of texts" % path)
    _require_positions(card, path)
    try:
        json_text.require_whole_characters(card)
    except ValueError as error:
        raise UserError("%s: %s" % (path, error))
    return dict(card)


def _require_positions(card: Dict[str, Any], path: str) -> None:
    """Checks the field that limits a row's length, which each request reads."""
    config = card.get("config", {})
    if not isinstance(config, dict):
        raise UserError("%s: config must be an object, got %s" % (path, json.dumps(config)[:40]))
    positions = config.get(POSITIONS, 1)
    if type(positions) is not int or positions < 1:
        raise UserError("%s: config: %s must be a whole number from 1, got %s"
                        % (path, POSITIONS, json.dumps(positions)[:40]))


def _read_vocabulary(path: str) -> List[str]:
    if not os.path.exists(path):
        return []
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            return [line.rstrip("\r\n") for line in stream]
    except UnicodeDecodeError as error:
        raise UserError("%s: %s" % (path, files.not_utf8(error)))
