"""A model in the layout of Hugging Face's transformers: config.json, model.safetensors, the vocabulary.

  plain BERT        BertForPreTraining, BertForSequenceClassification
  Google's family   AlbertForPreTraining, AlbertForSequenceClassification

A …ForMaskedLM model is also accepted if its file has the pooler and the other head; bert-base-chinese's does.

The same numbers under other names: a dense layer's weight is transposed, the output matrix of the masked LM
is the embedding table and is not stored twice. Features that are missing there are expanded, see
`written_out`, and a model without a projection between embeddings and layers, since both have the same width,
gets the identity. The albert_zh family has no counterpart, see `require_counterpart`.
"""
import dataclasses
import os
import re
import shutil
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

import albert_config
from albert_config import AlbertConfig
from estimator.model import heads, kernels, modeling
from estimator.weights import safetensors
from estimator.weights.model_folder import ModelFolder
from etl.common import files, json_text
from etl.common.command_line import UserError
from etl.text.pairs import MIN_SEQ_LENGTH
from etl.text.tokenization import TokenizerConfig, load_tokenizer

Values = Dict[str, np.ndarray]
Shape = Tuple[int, ...]

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer_config.json"
VOCAB_FILE, SPM_FILE = "vocab.txt", "spiece.model"
PRETRAINING, CLASSIFICATION = "ForPreTraining", "ForSequenceClassification"
MASKED_LM = "ForMaskedLM"                      # used by released models that have both heads
ERF_GELU = "gelu"                              # x Φ(x); ours is the tanh approximation of it

_CLASS = {"bert": "Bert", "google": "Albert"}  # by family
_FAMILY = {"bert": "bert", "albert": "google"}           # by model_type
_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", ERF_GELU: "gelu", "swish": "swish",
                "silu": "swish",
                "relu": "relu", "tanh": "tanh", "linear": "linear"}
_SAME_FIELDS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "type_vocab_size", "hidden_dropout_prob",
                "attention_probs_dropout_prob", "initializer_range")
_ALBERT_FIELDS = ("embedding_size", "num_hidden_groups", "inner_group_num")
_FIXED = {"position_embedding_type": "absolute", "layer_norm_eps": kernels.LAYER_NORM_EPSILON,
          "is_decoder": False, "add_cross_attention": False}        # the only values our encoder supports

_LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "output_weights": "weight",
           "output_bias": "bias"}
_ALBERT_SCOPES = {
    "bert/pooler/dense": "albert.pooler", "cls/predictions": "predictions",
    "cls/predictions/transform/dense": "predictions.dense",
    "cls/predictions/transform/LayerNorm": "predictions.LayerNorm",
    "cls/seq_relationship": "sop_classifier.classifier"}
_ALBERT_LAYER = {
    "attention_1/self/query": "attention.query", "attention_1/self/key": "attention.key",
    "attention_1/self/value": "attention.value", "attention_1/output/dense": "attention.dense",
    "LayerNorm": "attention.LayerNorm",
    "ffn_1/intermediate/dense": "ffn", "ffn_1/intermediate/output/dense": "ffn_output",
    "LayerNorm_1": "full_layer_layer_norm"}
_ALBERT_LAYER_SCOPE = re.compile(r"bert/encoder/transformer/group_(\d+)/inner_group_(\d+)/(.*)")
_MAPPING = "albert.encoder.embedding_hidden_mapping_in."


def require_counterpart(config: AlbertConfig) -> None:
    """Raises UserError for a model that no transformers class can represent."""
    if config.family == "albert_zh":
        raise UserError("the albert_zh family (tiny, base, large, xlarge, xxlarge) has no counterpart in "
                        "transformers: it projects the embeddings before it adds segments and positions and "
                        "normalizes, and its masked LM goes back through that projection; AlbertModel does "
                        "both at the embeddings' own width")
    layers, groups, inner = (config.num_hidden_layers, config.num_hidden_groups or 1,
                             config.inner_group_num or 1)
    if inner > (layers // groups if layers % groups == 0 else 1):
        raise UserError("inner_group_num is %d: transformers needs as many layers per group, but "
                        "num_hidden_layers is %d and num_hidden_groups %d" % (inner, layers, groups))


def written_out(config: AlbertConfig, values: Values) -> Tuple[AlbertConfig, Values]:
    """The same model without features that transformers lacks: groups of layers that are unused or used
    unevenly, and the "fast" variant's parallel narrow feed-forward layers, whose matrices become full ones
    filled with zeros.

    Args:
      values: all variables by name.
    """
    layers, groups = config.num_hidden_layers, config.num_hidden_groups or 1
    if layers % groups:                        # each layer gets its own group
        scopes = ["bert/encoder/%s/" % modeling.layer_scope(config, layer) for layer in range(layers)]
        config = dataclasses.replace(config, num_hidden_groups=layers)
        written = {name: value for name, value in values.items() if "/transformer/group_" not in name}
        for layer, scope in enumerate(scopes):
            new_scope = "bert/encoder/%s/" % modeling.layer_scope(config, layer)
            written.update((new_scope + name[len(scope):], value)
                           for name, value in values.items() if name.startswith(scope))
        values = written
    return dataclasses.replace(config, num_ffn_groups=1), {
        name: whole_kernel(value) if value.ndim == 3 else value for name, value in values.items()}


def their_name(config: AlbertConfig, name: str) -> str:
    """The transformers name of one of our variables: `bert/pooler/dense/kernel` → `albert.pooler.weight`."""
    scope, _, leaf = name.rpartition("/")
    if leaf.endswith("_embeddings"):           # a table
        scope, leaf = name, "weight"
    return "%s.%s" % (_their_scope(config, scope), _LEAVES.get(leaf, leaf))


def to_theirs(config: AlbertConfig, values: Mapping[str, np.ndarray]) -> Values:
    """Our variables by name → their weights by name. Both are those of a `written_out` model."""
    weights = {}
    for name, value in values.items():
        weights[their_name(config, name)] = value.T if name.endswith("/kernel") else value
    if _has_identity(config):
        weights[_MAPPING + "weight"] = np.eye(config.hidden_size, dtype=np.float32)
        weights[_MAPPING + "bias"] = np.zeros(config.hidden_size, dtype=np.float32)
    return weights


def to_ours(config: AlbertConfig, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Values:
    """Their weights by name → our variables, which have these shapes.

    Raises UserError that lists missing and unknown weights and those of the wrong shape.
    """
    weights = _without_ties(config, weights)
    if _has_identity(config):
        kernel, bias = weights.pop(_MAPPING + "weight", None), weights.pop(_MAPPING + "bias", None)
        if kernel is None or bias is None or bias.any() or not np.array_equal(
                kernel, np.eye(config.hidden_size)):
            raise UserError("%sweight and bias must be the identity, since embedding_size and hidden_size "
                            "are both %d; here such a model has no projection"
                            % (_MAPPING, config.hidden_size))
    theirs = {name: their_name(config, name) for name in shapes}
    values = {name: weights[theirs[name]].T if name.endswith("/kernel") else weights[theirs[name]]
              for name in shapes if theirs[name] in weights}
    complaints = [(set(theirs.values()) - set(weights), "missing"),
                  (set(weights) - set(theirs.values()), "unknown here"),
                  ({theirs[name] for name in values if values[name].shape != tuple(shapes[name])},
                   "of another shape")]
    if any(names for names, _ in complaints):
        raise UserError("; ".join("%d %s: %s" % (len(names), what, ", ".join(sorted(names)))
                                  for names, what in complaints if names))
    return values


def whole_kernel(kernel: np.ndarray) -> np.ndarray:
    """The matrix equivalent to parallel narrow layers: [width / G, units / G, G] → [width, units].

    Row k · G + g is input k of group g, column g · units / G + j its output j, as in `modeling`.
    """
    width, units, groups = kernel.shape
    whole = np.zeros((width, groups, groups, units), np.float32)
    for group in range(groups):
        whole[:, group, group] = kernel[:, :, group]
    return whole.reshape(width * groups, groups * units)


def write(folder: str, description: ModelFolder, values: Values) -> str:
    """Writes the four files and returns the name of the class. Raises UserError for a tokenizer that it does
    not have.

    Args:
      folder: must be empty.
      description: config, tokenizer and, for a classifier, its labels.
      values: all variables of the model and its heads, by name.
    """
    config, values = written_out(description.config, values)
    tokenizer = description.tokenizer
    _require_vocabulary(tokenizer, config)
    is_classifier = "output_weights" in values
    class_name = _CLASS[config.family] + (CLASSIFICATION if is_classifier else PRETRAINING)
    if tokenizer.spm_model_file and config.family == "bert":
        raise UserError("%s: BERT has no SentencePiece tokenizer in transformers" % tokenizer.spm_model_file)
    tokenizer_class = "AlbertTokenizer" if tokenizer.spm_model_file else "BertTokenizer"
    fields = dict(_their_fields(config), architectures=[class_name], tokenizer_class=tokenizer_class)
    if is_classifier:
        labels = description.labels or tuple(str(number) for number in range(len(values["output_weights"])))
        fields.update(id2label={str(number): label for number, label in enumerate(labels)},
                      label2id={label: number for number, label in enumerate(labels)},
                      finetuning_task=description.task)
    safetensors.write(os.path.join(folder, WEIGHTS_FILE), to_theirs(config, values))
    source, name = (tokenizer.spm_model_file,
                    SPM_FILE) if tokenizer.spm_model_file else (tokenizer.vocab_file, VOCAB_FILE)
    shutil.copyfile(source, os.path.join(folder, name))
    files.write_json(os.path.join(folder, TOKENIZER_FILE), {
        "do_lower_case": tokenizer.do_lower_case, "model_max_length": description.max_seq_length,
        "tokenizer_class": tokenizer_class})
    files.write_json(os.path.join(folder, CONFIG_FILE), fields)
    return class_name


def read_description(folder: str) -> Tuple[ModelFolder, List[str]]:
    """Reads config and vocabulary; a pretrained model has no labels there.

    Returns:
      The description, whose tokenizer reads the vocabulary in `folder`, and notes for the user, one line
      each.

    Raises UserError, naming file and field, for unsupported values.
    """
    path = os.path.join(folder, CONFIG_FILE)
    fields = files.read_json(path)
    try:
        config = _our_config(fields)
        labels: Tuple[str, ...] = (_labels(fields) if fields["architectures"][0].endswith(CLASSIFICATION)
                                   else ())
    except (UserError, albert_config.ConfigError) as error:
        raise UserError("%s: %s" % (path, error))
    require_counterpart(config)
    tokenizer, max_seq_length = _tokenizer(folder, config)
    notes = []
    if fields["hidden_act"] == ERF_GELU:
        notes.append("hidden_act is gelu, x Φ(x), there; here it is the tanh approximation of that: logits "
                     "differ a little")
    return ModelFolder(config, tokenizer, max_seq_length, fields.get("finetuning_task") if labels else None,
                       labels), notes


def read_weights(folder: str, config: AlbertConfig, shapes: Mapping[str, Shape]) -> Values:
    """Reads the weights as the variables with these shapes. Raises UserError if they are different or
    damaged."""
    path = os.path.join(folder, WEIGHTS_FILE)
    if not os.path.isfile(path):
        raise UserError('%s: no such file: in transformers, model.save_pretrained(folder, '
                        'safe_serialization=True, max_shard_size="100GB") writes it, in one piece' % path)
    weights = safetensors.read(path)
    odd = sorted(name for name, value in weights.items() if not np.isfinite(value).all())
    if odd:
        raise UserError("%s: values that are not finite in %s" % (path, ", ".join(odd)))
    try:
        return to_ours(config, weights, shapes)
    except UserError as error:
        raise UserError("%s: %s" % (path, error))


def _their_scope(config: AlbertConfig, scope: str) -> str:
    if not scope:
        return "classifier"
    if config.family == "bert":
        return scope.replace("/layer_", "/layer/").replace("/", ".")
    layer = _ALBERT_LAYER_SCOPE.match(scope)
    if layer:
        group, inner, part = layer.groups()
        return ("albert.encoder.albert_layer_groups.%s.albert_layers.%s.%s"
                % (group, inner, _ALBERT_LAYER[part]))
    return _ALBERT_SCOPES.get(scope) or scope.replace("bert/", "albert/", 1).replace("/", ".")


def _has_identity(config: AlbertConfig) -> bool:
    return config.family == "google" and config.embedding_size == config.hidden_size


def _without_ties(config: AlbertConfig, weights: Mapping[str, np.ndarray]) -> Values:
    """The weights without the masked LM's second copy of the table and of the bias. Raises UserError if
    copies differ.

    Older files use our names, gamma and beta, for a layer normalization's variables.
    """
    weights = {re.sub(r"LayerNorm\.(gamma|beta)$", lambda match: "LayerNorm." + _LEAVES[str(match.group(1))],
                      name): value for name, value in weights.items()}
    prefix = "cls.predictions." if config.family == "bert" else "predictions."
    table = _CLASS[config.family].lower() + ".embeddings.word_embeddings.weight"
    for copy, original in ((prefix + "decoder.weight", table), (prefix + "decoder.bias", prefix + "bias")):
        if copy in weights and not np.array_equal(weights.setdefault(original, weights[copy]),
                                                  weights.pop(copy)):
            raise UserError("%s is not %s; here they are the same" % (copy, original))
    return weights


def _their_fields(config: AlbertConfig) -> Dict[str, Any]:
    fields = {name: getattr(config, name) for name in _SAME_FIELDS}
    fields.update(_FIXED, hidden_act=next(theirs for theirs, ours in _ACTIVATIONS.items()
                                          if ours == config.hidden_act),
                  model_type=_CLASS[config.family].lower(), pad_token_id=0)
    if config.family == "google":
        fields.update(embedding_size=config.embedding_size, num_hidden_groups=config.num_hidden_groups,
                      inner_group_num=config.inner_group_num or 1,
                      classifier_dropout_prob=heads.CLASSIFIER_DROPOUT)
    else:
        fields.update(classifier_dropout=heads.CLASSIFIER_DROPOUT)
    return fields


def _our_config(fields: Any) -> AlbertConfig:
    """Raises UserError or ConfigError, naming the field."""
    if not isinstance(fields, dict) or fields.get("model_type") not in _FAMILY:
        raise UserError("model_type must be one of %s, got %r"
                        % (", ".join(_FAMILY),
                           fields.get("model_type") if isinstance(fields, dict) else fields))
    family, classes = _FAMILY[fields["model_type"]], fields.get("architectures")
    wanted = [_CLASS[family] + purpose for purpose in (PRETRAINING, MASKED_LM, CLASSIFICATION)]
    if not (isinstance(classes, list) and len(classes) == 1 and classes[0] in wanted):
        raise UserError("architectures must be one of %s, got %s" % (", ".join(wanted), classes))
    for name, value in _FIXED.items():
        if fields.get(name, value) != value:
            raise UserError("%s must be %s, got %s" % (name, value, fields[name]))
    if fields.get("hidden_act") not in _ACTIVATIONS:
        raise UserError("hidden_act must be one of %s, got %s"
                        % (", ".join(_ACTIVATIONS), fields.get("hidden_act")))
    names = _SAME_FIELDS + (_ALBERT_FIELDS if family == "google" else ())
    missing = [name for name in names if fields.get(name) is None]
    if missing:
        raise UserError("missing field %s" % ", ".join(missing))
    return albert_config.from_dict(dict({name: fields[name] for name in names},
                                        hidden_act=_ACTIVATIONS[fields["hidden_act"]]))


def _labels(fields: Mapping[str, Any]) -> Tuple[str, ...]:
    # what two are called by default is left out
    by_number = fields.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(by_number, dict) or sorted(by_number) != sorted(
            str(number) for number in range(len(by_number))):
        raise UserError("id2label must name the labels 0, 1, … of the classes, got %s" % by_number)
    labels = tuple(by_number[str(number)] for number in range(len(by_number)))
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != len(labels):
        raise UserError("id2label must give each class a different name, got %s" % by_number)
    try:
        json_text.require_whole_characters(labels)
    except ValueError as error:
        raise UserError("id2label: %s" % error)
    return labels


def _tokenizer(folder: str, config: AlbertConfig) -> Tuple[TokenizerConfig, int]:
    """The tokenizer, which reads the vocabulary in `folder`, and the longest sequence."""
    path = os.path.join(folder, TOKENIZER_FILE)
    fields = files.read_json(path) if os.path.isfile(path) else {}
    if not isinstance(fields, dict):
        raise UserError("%s: must be a JSON object, got %s" % (path, type(fields).__name__))
    do_lower_case = fields.get("do_lower_case", True)
    if not isinstance(do_lower_case, bool):
        raise UserError("%s: do_lower_case must be true or false, got %r" % (path, do_lower_case))
    longest = config.max_position_embeddings
    max_seq_length = fields.get("model_max_length") or longest           # 10^30 if unknown
    if not isinstance(max_seq_length, (int, float)) or max_seq_length < MIN_SEQ_LENGTH:
        raise UserError("%s: model_max_length must be at least %d, got %r"
                        % (path, MIN_SEQ_LENGTH, max_seq_length))
    vocabulary = {name: os.path.join(folder, name) for name in (VOCAB_FILE, SPM_FILE)}
    if os.path.isfile(vocabulary[VOCAB_FILE]):
        tokenizer = TokenizerConfig(vocabulary[VOCAB_FILE], do_lower_case)
    elif os.path.isfile(vocabulary[SPM_FILE]):
        tokenizer = TokenizerConfig(do_lower_case=do_lower_case, spm_model_file=vocabulary[SPM_FILE])
    else:
        raise UserError("%s: no vocabulary: neither %s nor %s is there" % (folder, VOCAB_FILE, SPM_FILE))
    _require_vocabulary(tokenizer, config)
    return tokenizer, int(min(max_seq_length, longest))


def _require_vocabulary(tokenizer: TokenizerConfig, config: AlbertConfig) -> None:
    size = len(load_tokenizer(tokenizer).vocabulary)
    if size != config.vocab_size:
        raise UserError("vocab_size is %d in the config, but the vocabulary %s has %d entries"
                        % (config.vocab_size, tokenizer.vocabulary_file, size))
