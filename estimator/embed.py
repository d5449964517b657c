"""Turns texts into vectors with a pretrained or fine-tuned model.

  python -m estimator.embed --input_file texts.txt --output_file vectors.npy
  echo 手机没信号怎么办 | python -m estimator.embed --checkpoint_dir albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt

A text is a line. Vectors go to standard output as JSON lines, {"text": …, "vector": […]}, or into a file in
the order of the texts: .npy, float32 [texts, hidden], or .jsonl. --pooling says what a text's vector is:

  pooled   the pooled output, which the heads read
  mean     the mean over the tokens of --layer, [CLS] and [SEP] too, as the exported signature `embed` has it
  cls      the vector of [CLS] in --layer
"""
from typing import Optional, Sequence

from estimator.tools.flags import EmbedConfig
from etl.common.command_line import run


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.embed", __doc__, EmbedConfig, embed, argv)


def embed(config: EmbedConfig) -> None:
    """Writes the vector of each text. Raises UserError before anything is written for what does not fit."""
    from estimator.tools import embedding      # TensorFlow takes two seconds: --help need not wait
    embedding.embed(config)


if __name__ == "__main__":
    raise SystemExit(main())
