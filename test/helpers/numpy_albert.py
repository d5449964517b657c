"""The models once more in NumPy and float64, from the papers' formulas: the graph code is compared
with them."""
from typing import Dict, List, NamedTuple

import numpy as np

from albert_config import AlbertConfig

Weights = Dict[str, np.ndarray]


class Forward(NamedTuple):
    layers: List[np.ndarray]                   # [batch, seq_length, hidden] each
    probs: List[np.ndarray]                    # [batch, heads, seq_length, seq_length] each
    pooled: np.ndarray                         # [batch, hidden]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def swish(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    exps = np.exp(x - x.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def cross_entropy(logits, labels):
    return -np.take_along_axis(np.log(softmax(logits)), labels[..., np.newaxis], -1)[..., 0]


def dense(weights: Weights, scope, x):
    return np.tensordot(x, weights[scope + "/kernel"], 1) + weights[scope + "/bias"]


def grouped_dense(weights: Weights, scope, x):
    kernel = weights[scope + "/kernel"]
    if kernel.ndim == 2:
        return dense(weights, scope, x)
    inputs, _, groups = kernel.shape
    y = np.einsum("bsig,iog->bsgo", x.reshape(x.shape[:2] + (inputs, groups)), kernel)
    return y.reshape(x.shape[:2] + (-1,)) + weights[scope + "/bias"]


def layer_norm(weights: Weights, scope, x):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return (x - x.mean(-1, keepdims=True)) / deviation * weights[scope + "/gamma"] + weights[scope + "/beta"]


def attention(weights: Weights, scope, x, mask, num_heads):
    def heads(name):
        y = dense(weights, scope + "/self/" + name, x)
        return y.reshape(y.shape[:2] + (num_heads, -1))
    query, key, value = heads("query"), heads("key"), heads("value")
    scores = np.einsum("bqnd,bknd->bnqk", query, key) / np.sqrt(query.shape[-1])
    probs = softmax(scores - 10000.0 * (1 - mask[:, np.newaxis, np.newaxis, :]))
    joined = np.einsum("bnqk,bknd->bqnd", probs, value).reshape(x.shape)
    return dense(weights, scope + "/output/dense", joined), probs


def embeddings(weights: Weights, input_ids, segment_ids):
    scope = "bert/embeddings/"
    x = weights[scope + "word_embeddings"][input_ids]
    if scope + "word_embeddings_2" in weights:
        x = x @ weights[scope + "word_embeddings_2"]
    x = x + weights[scope + "token_type_embeddings"][segment_ids]
    x = x + weights[scope + "position_embeddings"][:input_ids.shape[1]]
    return layer_norm(weights, scope + "LayerNorm", x)


def bert_layer(weights: Weights, scope, x, mask, num_heads, act, pre_norm):
    if pre_norm:
        normed = layer_norm(weights, scope + "/attention/output/LayerNorm", x)
        attended, probs = attention(weights, scope + "/attention", normed, mask, num_heads)
        x = x + attended
        inner = act(dense(weights, scope + "/intermediate/dense",
                          layer_norm(weights, scope + "/output/LayerNorm", x)))
        return x + dense(weights, scope + "/output/dense", inner), probs
    attended, probs = attention(weights, scope + "/attention", x, mask, num_heads)
    x = layer_norm(weights, scope + "/attention/output/LayerNorm", x + attended)
    inner = act(dense(weights, scope + "/intermediate/dense", x))
    return layer_norm(weights, scope + "/output/LayerNorm",
                      x + dense(weights, scope + "/output/dense", inner)), probs


def google_layer(weights: Weights, scope, x, mask, num_heads, act):
    attended, probs = attention(weights, scope + "/attention_1", x, mask, num_heads)
    x = layer_norm(weights, scope + "/LayerNorm", x + attended)
    inner = act(grouped_dense(weights, scope + "/ffn_1/intermediate/dense", x))
    outer = grouped_dense(weights, scope + "/ffn_1/intermediate/output/dense", inner)
    return layer_norm(weights, scope + "/LayerNorm_1", x + outer), probs


def forward(config: AlbertConfig, weights: Weights, input_ids, input_mask, segment_ids) -> Forward:
    act = {"gelu": gelu, "swish": swish}[config.hidden_act]
    x = embeddings(weights, input_ids, segment_ids)
    if "bert/encoder/embedding_hidden_mapping_in/kernel" in weights:
        x = dense(weights, "bert/encoder/embedding_hidden_mapping_in", x)
    layers, probs = [], []
    for layer in range(config.num_hidden_layers):
        for inner in range(config.inner_group_num or 1):
            if config.family == "google":
                group = int(layer / config.num_hidden_layers * config.num_hidden_groups)
                scope = "bert/encoder/transformer/group_%d/inner_group_%d" % (group, inner)
                x, prob = google_layer(weights, scope, x, input_mask, config.num_attention_heads, act)
            else:
                scope = "bert/encoder/" + ("layer_shared" if config.family == "albert_zh"
                                           else "layer_%d" % layer)
                x, prob = bert_layer(weights, scope, x, input_mask, config.num_attention_heads, act,
                                     config.ln_type == "preln")
            layers.append(x)
            probs.append(prob)
    return Forward(layers, probs, np.tanh(dense(weights, "bert/pooler/dense", x[:, 0])))


def masked_lm_logits(config: AlbertConfig, weights: Weights, sequence, positions):
    act = {"gelu": gelu, "swish": swish}[config.hidden_act]
    x = np.stack([row[at] for row, at in zip(sequence, positions)])
    x = act(dense(weights, "cls/predictions/transform/dense", x))
    x = layer_norm(weights, "cls/predictions/transform/LayerNorm", x)
    if config.family == "albert_zh":
        x = x @ weights["bert/embeddings/word_embeddings_2"].T
    return x @ weights["bert/embeddings/word_embeddings"].T + weights["cls/predictions/output_bias"]
