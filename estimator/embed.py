"""Turns texts into vectors with a pretrained or fine-tuned model.

  python -m estimator.embed --input_file texts.txt --output_file vectors.npy
  echo 手机没信号怎么办 | python -m estimator.embed --checkpoint_dir albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt

Each line is a text. Vectors go to standard output as JSON lines, {"text": …, "vector": […]}, or to a file in
the order of the texts: .npy, float32 [texts, hidden], or .jsonl. --pooling selects a text's vector:

  pooled   the pooled output, which the heads read
  mean     the mean over the tokens of --layer, including [CLS] and [SEP], as in the signature `embed`
  cls      the vector of [CLS] in --layer
"""
from typing import Optional, Sequence

from estimator.tools.flags import EmbedConfig
from etl.common.command_line import run


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.embed", __doc__, EmbedConfig, embed, argv)


def embed(config: EmbedConfig) -> None:
    """Writes the vector of each text. Raises UserError for invalid input, before anything is written."""
    from estimator.tools import embedding      # TensorFlow takes two seconds, which --help should not
    embedding.embed(config)


if __name__ == "__main__":
    raise SystemExit(main())
