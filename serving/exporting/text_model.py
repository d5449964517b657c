"""A trained model as a SavedModel that takes raw text, or ids if its vocabulary is a SentencePiece
model; checked when it is written."""
import os
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from estimator.finetuning import label_thresholds
from estimator.model.kinds import CLASSES, MULTI_LABEL, SPANS, TAGS
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.tokenization import WordPieceTokenizer, load_tokenizer
from serving.exporting import model_card, reading_model, reference, signatures, tagging_model, warmup
from serving.exporting.graph_tokenization import GraphTokenizer
from serving.exporting.parity import TRICKY_TEXTS, Parity
from serving.exporting.reference import SAMPLES
from serving.label_rows import LABELS, labels_of
from serving.saved_model import SavedModel, rows_of
from serving.version_files import MODEL_FILE

# only gradients need these; their bytes differ from run to run
CONTROL_FLOW_NOTES = ("cond_context", "while_context")


def write(folder: str, model: ModelFolder, checkpoint: str) -> str:
    """Writes a SavedModel and its warm-up requests and checks its outputs; returns the next command.

    Raises UserError for a checkpoint or a vocabulary that does not fit, before anything is written, and for
    outputs that differ from those of the trained model.
    """
    tokenizer = load_tokenizer(model.tokenizer)
    if model.kind not in (CLASSES, MULTI_LABEL):
        return write_reader(folder, model, checkpoint, tokenizer)
    takes_text = not model.tokenizer.spm_model_file
    ids = reference.inputs(SAMPLES, tokenizer, model.max_seq_length)
    wanted = reference.outputs(model, checkpoint, ids)
    twin = make_twin(model, tokenizer) if isinstance(tokenizer, WordPieceTokenizer) else None
    thresholds = label_thresholds.of_model(checkpoint, model) if model.kind == MULTI_LABEL else []
    write_graph(folder, model, checkpoint, twin, thresholds)
    model_card.write(folder, model, checkpoint, thresholds)
    questions = {signatures.PREDICT_IDS: ids, **({signatures.DEFAULT: sample_texts()} if takes_text else {})}
    saved, output = SavedModel(folder), "probabilities" if model.labels else "value"
    for signature, inputs in questions.items():
        reference.require_same(saved.run(inputs, signature)[output], wanted, SAMPLES)
    if LABELS in saved.signatures:
        questions[LABELS] = sample_texts()
        _require_chosen(saved.run(questions[LABELS], LABELS), wanted, thresholds, model.labels)
    logs = [warmup.predict_log(signature, inputs) for signature, inputs in questions.items()]
    examples = {"inputs": [example.SerializeToString() for example in warmup.examples_of(SAMPLES)]}
    if signatures.CLASSIFY in saved.signatures:
        reference.require_same(saved.run(examples, signatures.CLASSIFY)["scores"], wanted, SAMPLES)
        logs.append(warmup.classify_log(signatures.CLASSIFY, SAMPLES))
    if signatures.REGRESS in saved.signatures:
        reference.require_same(saved.run(examples, signatures.REGRESS)["outputs"],
                               wanted[:, 1] if model.labels else wanted, SAMPLES)
        logs.append(warmup.regress_log(signatures.REGRESS, SAMPLES))
    warmup.write(folder, logs)
    if takes_text:
        print("In-graph tokenization and outputs checked against Python's")
        return ("python -m serving.predict --model_dir %(output_dir)s --text_a 手机没信号怎么办 --text_b "
                "手机搜不到网络怎么处理")
    return _tell_of_ids()


def write_reader(folder: str, model: ModelFolder, checkpoint: str, tokenizer: Any) -> str:
    """The same of a model that reads passages, or labels entities. Raises UserError for one of entities with
    a SentencePiece vocabulary, too."""
    takes_text = isinstance(tokenizer, WordPieceTokenizer)
    if model.kind == TAGS and not takes_text:
        raise UserError(
            "task %s: a SentencePiece vocabulary cannot run inside the graph, and places are found there: "
            "only models with a vocab.txt are exported" % model.task)
    write_graph(folder, model, checkpoint, make_twin(model, tokenizer) if takes_text else None)
    model_card.write(folder, model, checkpoint)
    saved = SavedModel(folder)
    if takes_text:
        checks: Any = tagging_model if model.kind == TAGS else reading_model
        signature = checks.signature_of(model)
        inputs = checks.sample_inputs(signature)
        checks.require_same(model, checkpoint, tokenizer, saved.run(inputs, signature))
    else:
        signature, inputs = signatures.PREDICT_IDS, reading_model.sample_ids(model, tokenizer)
        reading_model.require_same_logits(model, checkpoint, inputs, saved.run(inputs, signature))
    warmup.write(folder, [warmup.predict_log(signature, inputs)])
    if not takes_text:
        return _tell_of_ids()
    print("In-graph tokenization and answers checked against Python's")
    if model.kind == TAGS:
        return "python -m serving.predict --model_dir %(output_dir)s --text 浙商银行的叶老桂在北京"
    candidates = "" if model.kind == SPANS else " --candidates 网络 手机"
    return ("python -m serving.predict --model_dir %(output_dir)s --question 先看什么？ "
            "--passage 先看网络，再看手机。" + candidates)


def _require_chosen(outputs: Dict[str, np.ndarray], wanted: np.ndarray, thresholds: Sequence[float],
                    labels: Sequence[str]) -> None:
    """Raises UserError, naming the sample, where the labels given for SAMPLES are not those whose
    probabilities, `wanted`, reach their thresholds. Within the tolerance of a threshold both are right."""
    for sample, row, probabilities in zip(SAMPLES, rows_of(outputs), wanted):
        found = labels_of(row)
        for label, probability, threshold in zip(labels, probabilities, thresholds):
            if (abs(probability - threshold) > reference.TOLERANCE
                    and (label in found) != (probability >= threshold)):
                raise UserError("the exported model gives the labels %s for the text %r, where %s has %s and "
                                "the threshold %s; nothing was written"
                                % (found, sample.text_a, label, probability, threshold))


def _tell_of_ids() -> str:
    print("Outputs checked against the trained model's. SentencePiece tokenization cannot run inside the "
          "graph: the model takes only ids, with the signature %s" % signatures.PREDICT_IDS)
    return "saved_model_cli show --all --dir %(output_dir)s/%(version)s"


def write_graph(folder: str, model: ModelFolder, checkpoint: str, twin: Optional[GraphTokenizer],
                thresholds: Sequence[float] = ()) -> None:
    """saved_model.pb and variables/; equal models give equal bytes. Without `twin` the graph takes only
    ids. thresholds: of several labels."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        definitions = signatures.build(model, twin, thresholds)
        saver = checkpoint_files.restore(session, checkpoint, model.config)
        for name in CONTROL_FLOW_NOTES:
            graph.clear_collection(name)
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(session, [tf.saved_model.tag_constants.SERVING], definitions,
                                             saver=saver, clear_devices=True, strip_default_attrs=True)
        builder.save()
    order_bytes(os.path.join(folder, MODEL_FILE))


def make_twin(model: ModelFolder, tokenizer: WordPieceTokenizer) -> GraphTokenizer:
    """The tokenizer inside a graph. Raises UserError when its ids differ from Python's."""
    parity = Parity(tokenizer, model.max_seq_length)
    texts: List[Any] = [*TRICKY_TEXTS, *tokenizer.vocabulary.tokens, *(sample.text_a for sample in SAMPLES)]
    sample_pairs = [(sample.text_a, sample.text_b or "") for sample in SAMPLES]
    tricky_pairs = zip(TRICKY_TEXTS, reversed(TRICKY_TEXTS))
    differing = parity.differing(texts) or parity.differing_pairs([*sample_pairs, *tricky_pairs])
    if differing:
        raise UserError("%s: the graph tokenizes %d of the checked texts differently from Python, e.g. %r; "
                        "nothing was written" % (model.tokenizer.vocab_file, len(differing), differing[0]))
    return parity.twin


def sample_texts() -> Dict[str, List[bytes]]:
    """SAMPLES as inputs of the signatures that take text."""
    return {"text_a": [sample.text_a.encode("utf-8") for sample in SAMPLES],
            "text_b": [(sample.text_b or "").encode("utf-8") for sample in SAMPLES]}


def order_bytes(path: str) -> None:
    """Rewrites a SavedModel's message with its maps in order, so that equal graphs have equal bytes."""
    message = saved_model_pb2.SavedModel()
    with open(path, "rb") as stream:
        message.ParseFromString(stream.read())
    with open(path, "wb") as stream:
        stream.write(message.SerializeToString(deterministic=True))
