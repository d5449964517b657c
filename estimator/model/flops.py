"""Operations (FLOPs) of a training step, estimated from the config and the number of tokens.

The rest is negligible (arXiv 2001.08361, section 2.1). `step_graph.flops_of` counts the same in a graph.
"""
from albert_config import AlbertConfig


def training_flops(config: AlbertConfig, batch_size: int, tokens: float, predictions: float = 0.0) -> float:
    """Floating-point operations of a batch, forward and backward: 2 m k n for [m, k] · [k, n], three times,
    since each product has a gradient for either side. The small classifiers on the pooled output are left
    out.

    Args:
      config: the model's.
      batch_size: sequences.
      tokens: total of the batch; attention is counted as if all sequences were equally long.
      predictions: total masked tokens to predict; 0 for a classifier.
    """
    hidden, length = config.hidden_size, tokens / batch_size
    outputs = batch_size + predictions         # where the last layer is needed

    def layer(rows: float) -> float:
        """With query, output and feed-forward at `rows` positions, keys and values at all."""
        feed_forward = 2 * hidden * config.intermediate_size / config.num_ffn_groups
        return tokens * 2 * hidden * hidden + rows * (2 * hidden * hidden + feed_forward
                                                      + 2 * hidden * length)

    layers = config.num_hidden_layers * (config.inner_group_num or 1)
    products = (layers - 1) * layer(tokens) + layer(min(outputs, tokens)) + batch_size * hidden * hidden
    table_width = config.embedding_size or hidden
    if table_width != hidden:
        products += tokens * table_width * hidden
    if predictions:
        transformed = table_width if config.family == "google" else hidden
        products += predictions * (hidden * transformed + table_width * config.vocab_size)
        if config.family == "albert_zh":
            products += predictions * hidden * table_width
    return 3 * 2 * products
