"""Turns a fine-tuned model into a SavedModel that takes raw text and needs nothing but TensorFlow.

  python -m serving.export
  python -m serving.export --checkpoint_dir output/lcqmc --output_dir output/lcqmc_export --version 7
  python -m serving.export --format ascend --batch_sizes 1 8 --lengths 64 128

Writes <output_dir>/<version>/, which appears whole or not at all: saved_model.pb, variables/, and in assets.extra/ the
vocabulary, the labels, a model card and TensorFlow Serving's warm-up requests. Signatures:

  serving_default   text_a, text_b: string [batch]; an empty text_b means there is none
  predict_ids       input_ids, input_mask, segment_ids: int32 [batch, length]
  examples          examples: string [batch], serialized tf.Examples with text_a and, if there is one, text_b
  classify          the same as inputs; gives classes and scores [batch, labels], for the Classify call
  encode            text_a, text_b; gives input_ids, input_mask, segment_ids
  embed             text_a, text_b; gives pooled and mean, float [batch, hidden]

The first three give probabilities and logits, float [batch, labels], and label, string [batch]. A batch is as long as
its longest text, not as max_seq_length. Texts are tokenized inside the graph; that it does so exactly as in training is
checked first, and a model that fails is not written. A model with a SentencePiece vocabulary has predict_ids alone.

--format ascend writes what Ascend's atc makes offline models of, for each batch size and length: a frozen graph with
static int32 inputs, sample inputs with the outputs wanted, and convert.sh with the commands.
"""
import itertools
import os
import shutil
import time
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from estimator.data.tasks import Example
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError, flag, run
from etl.text import pairs
from etl.text.tokenization import WordPieceTokenizer, load_tokenizer
from serving.saved_model import MODEL_FILE, SavedModel

SAVED_MODEL, ASCEND = "saved_model", "ascend"
SOC_VERSION = "Ascend310P3"
MAX_VERSION = 10 ** 18 - 1                     # servers hold it in 64 bits
CONTROL_FLOW_NOTES = ("cond_context", "while_context")       # gradients want these; their bytes differ from run to run
SAMPLES = tuple(Example(text_a, text_b, None) for text_a, text_b in (
    ("手机没信号怎么办", "手机搜不到网络？"), ("普通话ABC，Ω", ""), ("", "x" * 201), ("字" * 600, "句" * 600)))


@dataclass(frozen=True)
class ExportConfig:
    """The flags of this command."""
    checkpoint_dir: str = flag("output/finetune", "folder of estimator.finetune; best/ in it, if any, goes first")
    output_dir: Optional[str] = flag(None, "folder of all versions; without it output/export, or output/ascend")
    version: Optional[int] = flag(None, "name of the new version's folder; without it the seconds since 1970")
    format: str = flag(SAVED_MODEL, "what to write", (SAVED_MODEL, ASCEND))
    batch_sizes: Tuple[int, ...] = flag((), "ascend: batch sizes of the graphs; without it 1")
    lengths: Tuple[int, ...] = flag((), "ascend: their lengths; without it the model's max_seq_length")
    soc_version: Optional[str] = flag(None, "ascend: the processor that atc compiles for; without it " + SOC_VERSION)

    def __post_init__(self) -> None:
        if self.version is not None and self.version < 0:
            raise ValueError("version must be at least 0, got %d" % self.version)
        if self.version is not None and self.version > MAX_VERSION:
            raise ValueError("version must be at most %d, got %d" % (MAX_VERSION, self.version))
        for name in ("batch_sizes", "lengths", "soc_version"):
            if getattr(self, name) and self.format != ASCEND:
                raise ValueError("%s is for --format %s alone" % (name, ASCEND))
        for name, least in (("batch_sizes", 1), ("lengths", pairs.MIN_SEQ_LENGTH)):
            for value in getattr(self, name):
                if value < least:
                    raise ValueError("%s must be at least %d, got %d" % (name, least, value))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.export", __doc__, ExportConfig, export, argv)


def export(config: ExportConfig) -> None:
    """Writes and checks a new version. Raises UserError before anything appears when model or flags do not fit."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    from estimator.training import best_checkpoint
    tf.logging.set_verbosity(tf.logging.ERROR)
    output_dir = config.output_dir or ("output/export" if config.format == SAVED_MODEL else "output/ascend")
    files.require_folder(output_dir, "output_dir")
    model = read_model(config.checkpoint_dir)
    checkpoint = best_checkpoint.choose(config.checkpoint_dir, "checkpoint_dir")
    if model_folder.beside(checkpoint):        # best/ has a description of its own
        model = read_model(os.path.dirname(checkpoint))
    version = str(int(time.time()) if config.version is None else config.version)
    destination = os.path.join(output_dir, version)
    if os.path.exists(destination):
        raise UserError("--version: %s exists; give another number" % destination)
    temporary = files.temporary_path(os.path.join(output_dir, "." + version))
    write = write_saved_model if config.format == SAVED_MODEL else write_ascend_kit
    try:
        next_command = write(config, temporary, model, checkpoint)
        os.rename(temporary, destination)
    except tf.errors.OpError as error:         # a full disk, say
        raise UserError("--output_dir: %s: %s" % (output_dir, error.message.split("\n")[0]))
    except OSError as error:                   # the same; then it names no file
        raise error if error.filename else UserError("--output_dir: %s: %s" % (output_dir, error.strerror or error))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print("Exported %s to %s (%.1f MB)" % (checkpoint, destination, _megabytes(destination)))
    print("  task %s, labels %s, at most %d tokens" % (model.task, ", ".join(model.labels), model.max_seq_length))
    print("Next: " + next_command % {"output_dir": output_dir, "version": version})


def read_model(folder: str) -> ModelFolder:
    """The description of a classifier. Raises UserError for a model without labels."""
    model = model_folder.read(folder, made_by="estimator.finetune")
    if len(model.labels) < 2:
        raise UserError("%s: labels: a classifier has at least 2, this model has %d: run python -m estimator.finetune "
                        "first" % (os.path.join(folder, model_folder.DESCRIPTION_FILE), len(model.labels)))
    return model


def write_saved_model(config: ExportConfig, folder: str, model: ModelFolder, checkpoint: str) -> str:
    """Writes a SavedModel and its warm-up requests and asks it; returns the next command.

    Raises UserError for a checkpoint or a vocabulary that does not fit, before anything is written, and for answers
    that are not those of the trained model.
    """
    import tensorflow.compat.v1 as tf
    from estimator.weights import checkpoint_files
    from serving.exporting import model_card, reference, signatures, warmup
    tokenizer = load_tokenizer(model.tokenizer)
    takes_text = not model.tokenizer.spm_model_file
    ids = reference.inputs(SAMPLES, tokenizer, model.max_seq_length)
    wanted = reference.probabilities(model, checkpoint, ids)
    twin = make_twin(model, tokenizer) if isinstance(tokenizer, WordPieceTokenizer) else None
    with tf.Graph().as_default() as graph, tf.Session() as session:
        definitions = signatures.build(model, twin)
        saver = checkpoint_files.restore(session, checkpoint, model.config)
        for name in CONTROL_FLOW_NOTES:
            graph.clear_collection(name)
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(session, [tf.saved_model.tag_constants.SERVING], definitions, saver=saver,
                                             clear_devices=True, strip_default_attrs=True)
        builder.save()
    order_bytes(os.path.join(folder, MODEL_FILE))
    model_card.write(folder, model, checkpoint)
    texts = {"text_a": [sample.text_a.encode("utf-8") for sample in SAMPLES],
             "text_b": [(sample.text_b or "").encode("utf-8") for sample in SAMPLES]}
    questions = [(signatures.PREDICT_IDS, ids)] + ([(signatures.DEFAULT, texts)] if takes_text else [])
    saved = SavedModel(folder)
    for signature, inputs in questions:
        reference.require_same(saved.run(inputs, signature)["probabilities"], wanted, SAMPLES)
    warmup.write(folder, [warmup.predict_log(signature, inputs) for signature, inputs in questions]
                 + ([warmup.classify_log(signatures.CLASSIFY, SAMPLES)] if takes_text else []))
    if takes_text:
        print("In-graph tokenization and answers checked against Python's")
        return "python -m serving.predict --model_dir %(output_dir)s --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理"
    print("Answers checked against the trained model's. A SentencePiece vocabulary cannot run inside the graph: the model "
          "takes ids alone, by the signature %s" % signatures.PREDICT_IDS)
    return "saved_model_cli show --all --dir %(output_dir)s/%(version)s"


def make_twin(model: ModelFolder, tokenizer: WordPieceTokenizer) -> Any:
    """The tokenizer as a `GraphTokenizer`. Raises UserError when it gives other ids than Python's."""
    from serving.exporting.parity import TRICKY_TEXTS, Parity
    parity = Parity(tokenizer, model.max_seq_length)
    texts: List[Any] = [*TRICKY_TEXTS, *tokenizer.vocabulary.tokens, *(sample.text_a for sample in SAMPLES)]
    differing = parity.differing(texts) or parity.differing_pairs(
        [*((sample.text_a, sample.text_b or "") for sample in SAMPLES), *zip(TRICKY_TEXTS, reversed(TRICKY_TEXTS))])
    if differing:
        raise UserError("%s: the graph tokenizes %d of the texts checked otherwise than Python, %r for one; nothing was "
                        "written" % (model.tokenizer.vocab_file, len(differing), differing[0]))
    return parity.twin


def order_bytes(path: str) -> None:
    """Writes a SavedModel's message once more with its maps in order, so that equal graphs have equal bytes."""
    from tensorflow.core.protobuf import saved_model_pb2
    message = saved_model_pb2.SavedModel()
    with open(path, "rb") as stream:
        message.ParseFromString(stream.read())
    with open(path, "wb") as stream:
        stream.write(message.SerializeToString(deterministic=True))


def write_ascend_kit(config: ExportConfig, folder: str, model: ModelFolder, checkpoint: str) -> str:
    """Writes Ascend's kit and returns the next command. Raises UserError for a length that the model has not."""
    from serving.exporting import ascend_kit, model_card
    longest = model.config.max_position_embeddings
    lengths = config.lengths or (model.max_seq_length,)
    if max(lengths) > longest:
        raise UserError("--lengths: must be at most %d, the model's max_position_embeddings, got %d"
                        % (longest, max(lengths)))
    shapes = sorted(set(itertools.product(config.batch_sizes or (1,), lengths)))
    soc_version = config.soc_version or SOC_VERSION
    ascend_kit.write(folder, model, load_tokenizer(model.tokenizer), checkpoint, shapes, soc_version, SAMPLES)
    model_card.write(folder, model, checkpoint)
    print("Frozen graphs checked against the trained model's answers; what convert.sh will run where CANN is:")
    for command in ascend_kit.atc_commands(shapes, soc_version):
        print("  " + command)
    return "sh %(output_dir)s/%(version)s/convert.sh"


def _megabytes(folder: str) -> float:
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
