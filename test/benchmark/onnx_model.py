"""Their half of onnx_speed.py: runs where onnx and onnxruntime are installed, and nothing of ours is.

  onnx_model.py FOLDER THREADS    answers requests from standard input, a JSON object a line, until it ends

FOLDER holds weights.npz, the variables of an albert_zh classifier under their own names, and config.json. Two
models are made of them: `plain` of ONNX's standard operators, as an exporter writes them, and `fused` of the
operators that onnxruntime's transformer optimizer puts in their place. Both run with all of the runtime's own
graph optimizations. The first line says the version. A request is {"model", "input_ids", "input_mask",
"segment_ids"}; the answer {"probabilities", "wall", "cpu"}, times in ms.
"""
import json
import os
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

EPSILON = 1e-12
FUSED_DOMAIN = "com.microsoft"
IDS = ("input_ids", "input_mask", "segment_ids")


class Graph:
    """Nodes in the order in which they are added; weights are stored once, however many layers share them."""

    def __init__(self, weights):
        self.nodes, self.constants, self._weights = [], {}, weights

    def add(self, op, *inputs, domain="", **attributes):
        """Adds an operator; returns its output's name."""
        name = "%s_%d" % (op, len(self.nodes))
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, name, value):
        self.constants[name] = np.asarray(value)
        return name

    def weight(self, name):
        return self.constant(name, self._weights[name])

    def joined_weights(self, names):
        """Side by side."""
        return self.constant("+".join(names),
                             np.concatenate([self._weights[name] for name in names], axis=-1))

    def dense(self, x, scope):
        return self.add("Add", self.add("MatMul", x, self.weight(scope + "/kernel")),
                        self.weight(scope + "/bias"))

    def layer_norm(self, x, scope):
        return self.add("LayerNormalization", x, self.weight(scope + "/gamma"), self.weight(scope + "/beta"),
                        axis=-1, epsilon=EPSILON)


def make_model(weights, config, fused):
    """The classifier from ids to probabilities, for any batch and length."""
    graph = Graph(weights)
    x = embed(graph)
    mask = "input_mask"
    if not fused:
        away = graph.add("Sub", graph.constant("one", np.float32(1)),
                         graph.add("Cast", mask, to=TensorProto.FLOAT))
        mask = graph.add("Mul", graph.add("Unsqueeze", away, graph.constant("axes", [1, 2])),
                         graph.constant("masked_score", np.float32(-10000)))
    layer = fused_layer if fused else plain_layer
    for _ in range(config["num_hidden_layers"]):
        x = layer(graph, x, mask, config, "bert/encoder/layer_shared/")
    first = graph.add("Gather", x, graph.constant("first", np.int64(0)), axis=1)
    pooled = graph.add("Tanh", graph.dense(first, "bert/pooler/dense"))
    logits = graph.add("Gemm", pooled, graph.weight("output_weights"), graph.weight("output_bias"), transB=1)
    graph.nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=-1))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "albert",
            [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"]) for name in IDS],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", "labels"])],
            [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(FUSED_DOMAIN, 1)])
    onnx.checker.check_model(model)
    return model.SerializeToString()


def embed(graph):
    scope = "bert/embeddings/"
    x = graph.add("MatMul", graph.add("Gather", graph.weight(scope + "word_embeddings"), "input_ids"),
                  graph.weight(scope + "word_embeddings_2"))
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.constant("second", np.array([1])))
    positions = graph.add("Slice", graph.weight(scope + "position_embeddings"),
                          graph.constant("begin", np.array([0])), length)
    x = graph.add("Add", x, graph.add("Gather", graph.weight(scope + "token_type_embeddings"), "segment_ids"))
    return graph.layer_norm(graph.add("Add", x, positions), scope + "LayerNorm")


def plain_layer(graph, x, mask, config, scope):
    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads
    split = graph.constant("split", np.array([0, 0, heads, size]))

    def project(name, order):
        parts = graph.add("Reshape", graph.dense(x, scope + "attention/self/" + name), split)
        return graph.add("Transpose", parts, perm=order)

    query, value = project("query", [0, 2, 1, 3]), project("value", [0, 2, 1, 3])
    scores = graph.add("Mul", graph.add("MatMul", query, project("key", [0, 2, 3, 1])),
                       graph.constant("scale", np.float32(size ** -0.5)))
    probabilities = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", probabilities, value), perm=[0, 2, 1, 3])
    context = graph.add("Reshape", context, graph.constant("join", np.array([0, 0, config["hidden_size"]])))
    attended = graph.dense(context, scope + "attention/output/dense")
    x = graph.layer_norm(graph.add("Add", attended, x), scope + "attention/output/LayerNorm")
    wide = graph.add("Gelu", graph.dense(x, scope + "intermediate/dense"), approximate="tanh")
    return graph.layer_norm(graph.add("Add", graph.dense(wide, scope + "output/dense"), x),
                            scope + "output/LayerNorm")


def fused_layer(graph, x, mask, config, scope):
    def kernel(name):
        return graph.weight(scope + name + "/kernel")

    def normalized_sum(x, skip, name):
        """Of the product `x`, its bias and `skip`."""
        norm = scope + name.replace("dense", "LayerNorm")
        return graph.add("SkipLayerNormalization", x, skip, graph.weight(norm + "/gamma"),
                         graph.weight(norm + "/beta"),
                         graph.weight(scope + name + "/bias"), domain=FUSED_DOMAIN, epsilon=EPSILON)

    names = [scope + "attention/self/" + name for name in ("query", "key", "value")]
    joined = [graph.joined_weights([name + "/" + part for name in names]) for part in ("kernel", "bias")]
    context = graph.add("Attention", x, *joined, mask, domain=FUSED_DOMAIN,
                        num_heads=config["num_attention_heads"])
    x = normalized_sum(graph.add("MatMul", context, kernel("attention/output/dense")), x,
                       "attention/output/dense")
    wide = graph.add("FastGelu", graph.add("MatMul", x, kernel("intermediate/dense")),
                     graph.weight(scope + "intermediate/dense/bias"), domain=FUSED_DOMAIN)
    return normalized_sum(graph.add("MatMul", wide, kernel("output/dense")), x, "output/dense")


def make_session(model, threads):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main(folder, threads):
    weights = dict(np.load(os.path.join(folder, "weights.npz")))
    with open(os.path.join(folder, "config.json")) as stream:
        config = json.load(stream)
    sessions = {name: make_session(make_model(weights, config, name == "fused"), threads)
                for name in ("plain", "fused")}
    print(json.dumps({"version": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        inputs = {name: np.array(request[name], np.int32) for name in IDS}
        wall, cpu = time.perf_counter(), time.process_time()
        probabilities = sessions[request["model"]].run(None, inputs)[0]
        wall, cpu = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
        print(json.dumps({"probabilities": probabilities.tolist(), "wall": wall, "cpu": cpu}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
