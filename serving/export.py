"""Turns a fine-tuned model into a SavedModel that takes raw text and needs nothing but TensorFlow.

  python -m serving.export
  python -m serving.export --checkpoint_dir output/lcqmc --output_dir output/lcqmc_export --version 7

Writes <output_dir>/<version>/, which appears whole or not at all: saved_model.pb, variables/, and in assets/ the
vocabulary, the config and the labels. Signatures:

  serving_default   text_a, text_b: string [batch]; an empty text_b means there is none
  predict_ids       input_ids, input_mask, segment_ids: int32 [batch, length]

Both give probabilities and logits, float [batch, labels], and label, string [batch]. A batch is as long as its longest
text, not as max_seq_length. Texts are tokenized inside the graph; that it does so exactly as in training is checked
first, and a model that fails is not written.
"""
import os
import shutil
import time
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from estimator import model_folder
from estimator.model_folder import ModelFolder
from etl import files, pairs
from etl.command_line import UserError, flag, run
from etl.tokenization import WordPieceTokenizer, load_tokenizer
from serving.saved_model import SavedModel

BEST = "best"
DEFAULT, TEXT_INPUTS = "serving_default", ("text_a", "text_b")
PREDICT_IDS, IDS_INPUTS = "predict_ids", ("input_ids", "input_mask", "segment_ids")
TOLERANCE = 1e-4                               # between the probabilities of a text, padded in its batch, and its ids
SAMPLE_PAIRS = (("手机没信号怎么办", "手机搜不到网络？"), ("普通话ABC，Ω", ""), ("", "x" * 201), ("字" * 600, "句" * 600))


@dataclass(frozen=True)
class ExportConfig:
    """The flags of this command."""
    checkpoint_dir: str = flag("output/finetune", "folder of estimator.finetune; best/ in it, if any, goes first")
    output_dir: str = flag("output/export", "folder of all versions")
    version: Optional[int] = flag(None, "name of the new version's folder; without it the seconds since 1970")

    def __post_init__(self):
        if self.version is not None and self.version < 0:
            raise ValueError("version must be at least 0, got %d" % self.version)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.export", __doc__, ExportConfig, export, argv)


def export(config: ExportConfig) -> None:
    """Writes and checks a new version. Raises UserError before anything appears when model or flags do not fit."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    from estimator import checkpoints
    tf.logging.set_verbosity(tf.logging.ERROR)
    files.require_folder(config.output_dir, "output_dir")
    model, tokenizer = read_model(config.checkpoint_dir)
    best = os.path.join(config.checkpoint_dir, BEST)
    checkpoint = checkpoints.resolve(best if os.path.isdir(best) else config.checkpoint_dir, "checkpoint_dir")
    version = str(int(time.time()) if config.version is None else config.version)
    destination = os.path.join(config.output_dir, version)
    if os.path.exists(destination):
        raise UserError("--version: %s exists; give another number" % destination)
    temporary = os.path.join(config.output_dir, ".%s.tmp-%d" % (version, os.getpid()))
    try:
        write_model(temporary, model, tokenizer, checkpoint)
        check_model(temporary, model, tokenizer)
        os.rename(temporary, destination)
    except tf.errors.OpError as error:         # a full disk, say
        raise UserError("--output_dir: %s: %s" % (config.output_dir, error.message.split("\n")[0]))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print("Exported %s to %s (%.1f MB)" % (checkpoint, destination, _megabytes(destination)))
    print("  task %s, labels %s, at most %d tokens" % (model.task, ", ".join(model.labels), model.max_seq_length))
    print("  in-graph tokenization and both signatures checked against Python")
    print("Next: python -m serving.predict --model_dir %s --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理" % config.output_dir)


def read_model(folder: str) -> Tuple[ModelFolder, WordPieceTokenizer]:
    """The description of a classifier and its tokenizer. Raises UserError for a model that cannot be exported."""
    model = model_folder.read(folder, made_by="estimator.finetune")
    if len(model.labels) < 2:
        raise UserError("%s: labels: a classifier has at least 2, this model has %d: run python -m estimator.finetune "
                        "first" % (os.path.join(folder, model_folder.DESCRIPTION_FILE), len(model.labels)))
    if model.tokenizer.spm_model_file:
        raise UserError("%s: a SentencePiece model cannot run inside the graph; only WordPiece models (vocab.txt) can "
                        "be exported" % model.tokenizer.spm_model_file)
    return model, load_tokenizer(model.tokenizer)


def write_model(folder: str, model: ModelFolder, tokenizer: WordPieceTokenizer, checkpoint: str) -> None:
    """Writes a SavedModel with both signatures. Raises UserError for a checkpoint or a vocabulary that does not fit."""
    import tensorflow.compat.v1 as tf
    from estimator import checkpoints
    from serving.graph_tokenization import GraphTokenizer, parity_check
    graph_tokenizer = GraphTokenizer(tokenizer)
    differing = parity_check(graph_tokenizer, tokenizer, [text for pair in SAMPLE_PAIRS for text in pair])
    if differing:
        raise UserError("%s: the graph tokenizes %d texts otherwise than Python, %r for one; nothing was written"
                        % (model.tokenizer.vocab_file, len(differing), differing[0]))
    with tf.Graph().as_default(), tf.Session() as session:
        text = {name: tf.placeholder(tf.string, [None], name) for name in TEXT_INPUTS}
        ids = {name: tf.placeholder(tf.int32, [None, None], name) for name in IDS_INPUTS}
        packed = graph_tokenizer.pack_pair(text["text_a"], text["text_b"], model.max_seq_length)
        make_signature = tf.saved_model.predict_signature_def
        signatures = {DEFAULT: make_signature(text, _classify(model, *packed)),
                      PREDICT_IDS: make_signature(ids, _classify(model, **ids))}
        plan = checkpoints.make_plan(checkpoint, model.config)
        checkpoints.check_data(checkpoint, plan.assignment_map)
        saver = tf.train.Saver(plan.assignment_map)
        saver.restore(session, checkpoint)
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(session, [tf.saved_model.tag_constants.SERVING], signatures, saver=saver,
                                             clear_devices=True, strip_default_attrs=True)
        builder.save()
    model_folder.write(os.path.join(folder, "assets"), model)


def check_model(folder: str, model: ModelFolder, tokenizer: WordPieceTokenizer) -> None:
    """Loads the SavedModel and asks it for each sample as text, all in one batch, and as ids, one by one."""
    import numpy as np
    saved = SavedModel(folder)
    texts_a, texts_b = zip(*SAMPLE_PAIRS)
    from_text = saved.run({"text_a": texts_a, "text_b": texts_b})["probabilities"]
    for row, (text_a, text_b) in enumerate(SAMPLE_PAIRS):
        packed = pairs.pack_pair(tokenizer, text_a, text_b, model.max_seq_length)
        from_ids = saved.run({"input_ids": [packed.input_ids], "input_mask": [np.ones_like(packed.input_ids)],
                              "segment_ids": [packed.segment_ids]}, PREDICT_IDS)["probabilities"]
        if not np.allclose(from_text[row], from_ids[0], rtol=0, atol=TOLERANCE):
            raise UserError("the exported model gives %s for the text %r, %s for its ids; nothing was written"
                            % (from_text[row].tolist(), text_a + text_b, from_ids[0].tolist()))


def _classify(model: ModelFolder, input_ids: Any, input_mask: Any, segment_ids: Any) -> Dict[str, Any]:
    import tensorflow.compat.v1 as tf
    from estimator import heads, modeling
    encoded = modeling.encode(model.config, input_ids, input_mask, segment_ids)
    found = heads.classifier(model.config, encoded, len(model.labels))
    label = tf.gather(tf.constant([label.encode("utf-8") for label in model.labels]), found.predictions)
    return {"probabilities": found.probabilities, "label": label, "logits": found.logits}


def _megabytes(folder: str) -> float:
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
