"""Turns a fine-tuned model into a SavedModel that takes raw text and needs nothing but TensorFlow.

  python -m serving.export
  python -m serving.export --checkpoint_dir output/lcqmc --output_dir output/lcqmc_export --version 7
  python -m serving.export --format ascend --batch_sizes 1 8 --lengths 64 128

Writes <output_dir>/<version>/ atomically: saved_model.pb, variables/, and in assets.extra/ the vocabulary,
the labels, a model card, and TensorFlow Serving's warm-up requests. Signatures:

  serving_default   text_a, text_b: string [batch]; text_b is empty for a single text
  predict_ids       input_ids, input_mask, segment_ids: int32 [batch, length]
  examples          examples: string [batch], serialized tf.Examples with text_a and, if there is one, text_b
  classify          the same as inputs; returns classes and scores [batch, labels], for the Classify call
  regress           the same; of two classes, returns the probability of the second as outputs [batch], for
                    the Regress call
  encode            text_a, text_b; returns input_ids, input_mask, segment_ids
  embed             text_a, text_b; returns pooled and mean, float [batch, hidden]

The first three return probabilities and logits, float [batch, labels], and label, string [batch]; a
regression has no classify, and they return value, float [batch]. A batch is padded to its longest text, not
to max_seq_length. Texts are tokenized inside the graph, exactly as in training: that is checked before
anything is written. A model with a SentencePiece vocabulary has the signature predict_ids only.

A model that reads passages has one signature, which tokenizes, reads through windows and finds the place in
the graph:

  read     question, passage: string [batch]; returns answer, start and end in characters, score, null_score
  choose   question, passage, candidates [batch, n], "" where there are fewer; returns answer, choice, count,
           probabilities

A model of several labels has no label there, nor, with two labels, regress, and one more signature:

  labels   text_a, text_b; returns count and, [batch, labels] each, label and score: those that reach their
           threshold, the likeliest first

A model that labels entities has one, too:

  tag      text: string [batch]; returns count and, [batch, 128] each, text, label, start and end in
           characters, score

A model that reads, with a SentencePiece vocabulary, has predict_ids, which ends at the logits of windows, or
the scores of candidates.

--format ascend writes the input of Ascend's offline compiler, atc: for each batch size and length a frozen
graph with static int32 inputs, and one with open dimensions for several profiles of them; sample inputs with
the expected outputs, convert.sh with the commands, and compare_om.py, which compares what a device gives.
"""
from typing import Optional, Sequence

from etl.common.command_line import run
from serving.exporting.flags import ExportConfig


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.export", __doc__, ExportConfig, export, argv)


def export(config: ExportConfig) -> None:
    """Writes and checks a new version. Raises UserError before anything is visible if model or flags do
    not fit."""
    from serving.exporting import new_version  # takes two seconds, which --help should not
    new_version.export(config)


if __name__ == "__main__":
    raise SystemExit(main())
