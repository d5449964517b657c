"""A model in the layout of Hugging Face's transformers: config.json, model.safetensors, the vocabulary.

  plain BERT        BertForPreTraining, BertForSequenceClassification
  Google's family   AlbertForPreTraining, AlbertForSequenceClassification

…ForMaskedLM and …Model, and models without a class, are also accepted; they may lack the heads that their
class does not have, which training then initializes. A classifier with several labels for a text is refused:
here the labels exclude each other.

The same numbers under other names: a dense layer's weight is transposed, the output matrix of the masked LM
is the embedding table and is not stored twice. Features that are missing there are expanded, see
`written_out`, and a model without a projection between embeddings and layers, since both have the same width,
gets the identity. The albert_zh family has no counterpart, see `require_counterpart`.
"""
import dataclasses
import os
import re
import shutil
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

import albert_config
from albert_config import AlbertConfig
from estimator.model import heads, kernels, kinds, modeling
from estimator.weights import safetensors, transformers_tokenizer
from estimator.weights.model_folder import Labelling, ModelFolder
from etl.common import files, json_text
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig, load_tokenizer

Values = Dict[str, np.ndarray]
Shape = Tuple[int, ...]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PRETRAINING, CLASSIFICATION = "ForPreTraining", "ForSequenceClassification"
MASKED_LM, ENCODER = "ForMaskedLM", "Model"    # released models that say so may have all heads
REGRESSION, MULTI_LABEL = "regression", "multi_label_classification"     # values of problem_type

_POOLER, _WORDS, _ORDER = "bert/pooler/", "cls/predictions/", "cls/seq_relationship/"
_MAY_LACK = {PRETRAINING: (), MASKED_LM: (_POOLER, _ORDER), ENCODER: (_POOLER, _WORDS, _ORDER),
             CLASSIFICATION: ()}               # beginnings of names, by what a model is for
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


class Description(NamedTuple):
    """What a folder says of its model.

    Attributes:
      model: its tokenizer reads a vocabulary in the folder, or one written out of its files.
      num_labels: of its classifier, 0 for a regression; None: there is none.
      may_lack: beginnings of the names of variables that may be missing, each beginning as a whole.
      notes: what the user should know, a line each.
    """
    model: ModelFolder
    num_labels: Optional[int]
    may_lack: Tuple[str, ...]
    notes: List[str]


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


def to_ours(config: AlbertConfig, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Shape],
            may_lack: Collection[str] = ()) -> Values:
    """Their weights by name → our variables, which have these shapes; without those of `may_lack` of which
    there are none.

    Raises UserError that lists missing and unknown weights and those of the wrong shape.
    """
    weights = _without_ties(config, _below_encoder(config, weights))
    if _has_identity(config):
        kernel, bias = weights.pop(_MAPPING + "weight", None), weights.pop(_MAPPING + "bias", None)
        if kernel is None or bias is None or bias.any() or not np.array_equal(
                kernel, np.eye(config.hidden_size)):
            raise UserError("%sweight and bias must be the identity, since embedding_size and hidden_size "
                            "are both %d; here such a model has no projection"
                            % (_MAPPING, config.hidden_size))
    theirs = {name: their_name(config, name) for name in shapes}
    for beginning in may_lack:
        part = [name for name in theirs if name.startswith(beginning)]
        if not any(theirs[name] in weights for name in part):
            theirs = {name: theirs[name] for name in theirs if name not in part}
    values = {name: weights[theirs[name]].T if name.endswith("/kernel") else weights[theirs[name]]
              for name in theirs if theirs[name] in weights}
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
                      finetuning_task=description.task,
                      problem_type=MULTI_LABEL if description.kind == kinds.MULTI_LABEL else
                      REGRESSION if len(labels) == 1 else "single_label_classification")
    safetensors.write(os.path.join(folder, WEIGHTS_FILE), to_theirs(config, values))
    source, name = (tokenizer.spm_model_file,
                    transformers_tokenizer.SPM_FILE) if tokenizer.spm_model_file else (
                        tokenizer.vocab_file, transformers_tokenizer.VOCAB_FILE)
    shutil.copyfile(source, os.path.join(folder, name))
    files.write_json(os.path.join(folder, transformers_tokenizer.CONFIG_FILE), {
        "do_lower_case": tokenizer.do_lower_case, "model_max_length": description.max_seq_length,
        # without them ALBERT's tokenizer says nothing of segments
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "tokenizer_class": tokenizer_class})
    files.write_json(os.path.join(folder, CONFIG_FILE), fields)
    return class_name


def read_description(folder: str, names: Collection[str], scratch: str) -> Description:
    """Reads config and vocabulary; a pretrained model has no labels there.

    Args:
      names: of its weights, which show the kind of a model that names no class.
      scratch: folder for a vocabulary that is not a file of its own.

    Raises UserError, naming file and field, for unsupported values.
    """
    path = os.path.join(folder, CONFIG_FILE)
    fields = files.read_json(path)
    try:
        config = _our_config(fields)
        purpose = _purpose(fields, names)
        labels = _labels(fields) if purpose == CLASSIFICATION else ()
    except (UserError, albert_config.ConfigError) as error:
        raise UserError("%s: %s" % (path, error))
    require_counterpart(config)
    tokenizer, max_seq_length = transformers_tokenizer.read(folder, config.max_position_embeddings, scratch)
    _require_vocabulary(tokenizer, config)
    notes = []
    if fields["hidden_act"] == ERF_GELU:
        notes.append("hidden_act is gelu, x Φ(x), there; here it is the tanh approximation of that: logits "
                     "differ a little")
    is_regression = len(labels) == 1
    if labels and fields.get("problem_type") == MULTI_LABEL:
        model = ModelFolder(config, tokenizer, max_seq_length, kinds.MULTI_LABEL, labels,
                            kind=kinds.MULTI_LABEL, labelling=Labelling())
    else:
        model = ModelFolder(config, tokenizer, max_seq_length,
                            fields.get("finetuning_task") if labels else None,
                            () if is_regression else labels)
    return Description(model, None if purpose != CLASSIFICATION else 0 if is_regression else len(labels),
                       _MAY_LACK[purpose], notes)


def read_weights(folder: str) -> Values:
    """The weights by their names. Raises UserError if they are missing, damaged or not finite."""
    path = os.path.join(folder, WEIGHTS_FILE)
    if not os.path.isfile(path) and not os.path.isfile(path + safetensors.INDEX_ENDING):
        raise UserError("%s: no such file: in transformers, model.save_pretrained(folder, "
                        "safe_serialization=True) writes it" % path)
    weights = safetensors.read(path)
    odd = sorted(name for name, value in weights.items() if not np.isfinite(value).all())
    if odd:
        raise UserError("%s: values that are not finite in %s" % (path, ", ".join(odd)))
    return weights


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


def _below_encoder(config: AlbertConfig, weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The weights under the names that they have in a model with heads; an encoder alone has shorter ones."""
    prefix = _CLASS[config.family].lower() + "."
    if any(name.startswith(prefix) for name in weights):
        return weights
    return {prefix + name: value for name, value in weights.items()}


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
    family = _FAMILY[fields["model_type"]]
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
                                        hidden_act=_ACTIVATIONS[fields["hidden_act"]], num_ffn_groups=1))


def _purpose(fields: Mapping[str, Any], names: Collection[str]) -> str:
    """What a model is for, a key of _MAY_LACK: as it says, else as its weights have it."""
    prefix, classes = _CLASS[_FAMILY[fields["model_type"]]], fields.get("architectures")
    wanted = [prefix + purpose for purpose in _MAY_LACK]
    if not classes:
        if "qa_outputs.weight" in names:
            classes = [prefix + "ForQuestionAnswering"]
        else:
            classes = [prefix + (CLASSIFICATION if "classifier.weight" in names else ENCODER)]
    if not (isinstance(classes, list) and len(classes) == 1 and classes[0] in wanted):
        raise UserError("architectures must be one of %s, got %s" % (", ".join(wanted), classes))
    return str(classes[0])[len(prefix):]


def _labels(fields: Mapping[str, Any]) -> Tuple[str, ...]:
    """By class index; one alone is a regression's. Those that nobody has named are called `0`, `1`, …"""
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
    problem = fields.get("problem_type")
    if (problem == MULTI_LABEL and len(labels) < 2) or (problem == REGRESSION and len(labels) != 1):
        raise UserError("problem_type is %s with %d labels: such a head has no place here"
                        % (problem, len(labels)))
    if labels == tuple("LABEL_%d" % number for number in range(len(labels))):
        return tuple(str(number) for number in range(len(labels)))
    return labels


def _require_vocabulary(tokenizer: TokenizerConfig, config: AlbertConfig) -> None:
    size = len(load_tokenizer(tokenizer).vocabulary)
    if size != config.vocab_size:
        raise UserError("vocab_size is %d in the config, but the vocabulary %s has %d entries"
                        % (config.vocab_size, tokenizer.vocabulary_file, size))
