"""What a training step asks of an Ascend 910, operator by operator, on paper. Nothing runs.

  python test/benchmark/ascend_operators.py --configs base xlarge --batch 32 --length 128

Builds the graph of a step as a device would get it (pretraining with LAMB, or --classifier: fine-tuning with
AdamW), and counts for each op its operations and the bytes it reads and writes: two a value where the op
computes in float16, four in the optimizer, with labels, and where the list of ops keeps it in float32. Matrix
products are the cube unit's, all else is the vector unit's. The device's own gelu is one op, and one on the
way back; --own_gelu: composed of TensorFlow's, as with --npu_kernels false. --fused_normalization: a layer
normalization is one op, and one on the way back, as the compiler's scope passes make it of ops composed and
named as ours are (`normalizations` says what they look for). An op takes at least the larger of its
operations at its unit's rate and its bytes at the memory's; the sum over all ops is what a device needs that
does them in turn, the cube's share alone what one needs that hides all else. What both give is printed in
sequences a second, for one device and for several, whose gradients go round HCCL's ring afterwards.
"""
import argparse
import collections
import dataclasses
import os
import re
import sys
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.dirname(os.path.abspath(__file__))]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow.compat.v1 as tf

import albert_config
from albert_config import AlbertConfig
from ascend_on_paper import sum_seconds
from estimator.npu import devices, options, step_graph
from estimator.npu.options import NpuOptions
from estimator.training import model_fn
from estimator.training.npu_report import GIGA, TERA, TFLOPS
from etl.records.examples import pretraining_features

VECTOR_TFLOPS = 8.2                            # 32 cores, 128 lanes of float16, multiply and add, 1 GHz
MEMORY_GB_A_SECOND = 1200.0
MASKED_SHARE = 0.15
CUBE, VECTOR = "cube", "vector"
FREE = ("Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient", "Const", "NoOp",
        "Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "Placeholder", "BroadcastGradientArgs",
        "Switch", "RefSwitch", "Merge", "Shape", "Range", "InvertPermutation")
ROWS_ALONE = ("GatherV2", "StridedSlice", "Slice")     # read of their first input what they give


class Cost(NamedTuple):
    """Of an op, or of many."""
    unit: str
    operations: float
    bytes: float

    def seconds(self) -> float:
        rate = (TFLOPS if self.unit == CUBE else VECTOR_TFLOPS) * TERA
        return max(self.operations / rate, self.bytes / (MEMORY_GB_A_SECOND * GIGA))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["base", "xlarge"])
    parser.add_argument("--batch", type=int, default=32, help="sequences of a device")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--classifier", action="store_true", help="fine-tune on two classes")
    parser.add_argument("--own_gelu", action="store_true", help="not the device's gelu")
    parser.add_argument("--fused_normalization", action="store_true", help="a layer normalization is one op")
    parser.add_argument("--operators", type=int, default=12, help="types of op that get a row")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--link_gb", type=float, default=30)
    parser.add_argument("--between_gb", type=float, default=32)
    arguments = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    for name in arguments.configs:
        tell(name, arguments)
    return 0


def tell(name: str, arguments: argparse.Namespace) -> None:
    """Prints the tables of one config."""
    with tf.Graph().as_default():
        ops = build(albert_config.load(name), arguments)
        gradients = 4 * sum(variable.shape.num_elements() for variable in tf.trainable_variables())
        found = costs(ops, arguments.fused_normalization)
    whole = sum(cost.seconds() for costs_of_type in found.values() for cost in costs_of_type)
    print("\n%s, %d x %d, %s" % (name, arguments.batch, arguments.length,
                                 "fine-tuning" if arguments.classifier else "pretraining"))
    print("| op | unit | how many | GFLOP | MB | ms | share |\n|---|---|---|---|---|---|---|")
    rows = sorted(found.items(), key=lambda item: -sum(cost.seconds() for cost in item[1]))
    for (kind, part), parts in rows[:arguments.operators]:
        row("%s, %s" % (kind, part), parts, whole)
    row("the %d other types" % max(0, len(rows) - arguments.operators),
        [cost for _, parts in rows[arguments.operators:] for cost in parts], whole)
    every = [cost for parts in found.values() for cost in parts]
    for unit in (CUBE, VECTOR):
        row("all on the %s unit" % unit, [cost for cost in every if cost.unit == unit], whole)
    cube = sum(cost.seconds() for cost in every if cost.unit == CUBE)
    ring = sum_seconds(arguments, gradients)["ring"]
    print("| devices | ms, all in turn | sequences/s | ms, products alone | sequences/s |\n"
          "|---|---|---|---|---|")
    for count, more in ((1, 0.0), (arguments.devices, ring)):
        print("| %d | %.2f | %.0f | %.2f | %.0f |" % (
            count, 1000 * (whole + more), count * arguments.batch / (whole + more), 1000 * (cube + more),
            count * arguments.batch / (cube + more)))


def row(name: str, parts: Sequence[Cost], whole: float) -> None:
    seconds = sum(cost.seconds() for cost in parts)
    print("| %s | %s | %d | %.1f | %.0f | %.2f | %.0f %% |" % (
        name, "/".join(sorted({cost.unit for cost in parts})), len(parts),
        sum(cost.operations for cost in parts) / GIGA, sum(cost.bytes for cost in parts) / 1e6,
        1000 * seconds, 100 * seconds / whole))


def build(config: AlbertConfig, arguments: argparse.Namespace) -> List[tf.Operation]:
    """The ops of a step on a device, in a new graph."""
    if not arguments.own_gelu:                 # as many ops, operands and results as the device's gelu
        config = dataclasses.replace(config, hidden_act="relu")
    device = devices.plan_device(NpuOptions(), None, {})
    training = model_fn.TrainingConfig("adamw" if arguments.classifier else "lamb", 1e-3, 10000, 100, 1,
                                       device=device)
    predictions = round(MASKED_SHARE * arguments.length)
    shapes: Dict[str, Any] = {feature.name: ([arguments.batch, feature.length], feature.dtype)
                              for feature in pretraining_features(arguments.length, predictions)}
    shapes.update(is_real_example=([arguments.batch], "int32"), label_ids=([arguments.batch], "int32"))
    features = {name: tf.placeholder("float32" if dtype == "float32" else "int32", shape)
                for name, (shape, dtype) in shapes.items()}
    make = (model_fn.classifier_model_fn(config, training, 2) if arguments.classifier
            else model_fn.pretraining_model_fn(config, training))
    spec = make(features, tf.estimator.ModeKeys.TRAIN)
    return step_graph.step_ops([spec.train_op, spec.loss])


def costs(ops: Sequence[tf.Operation], fused_normalization: bool = False) -> Dict[Any, List[Cost]]:
    """Costs by type and part of the step: forward, backward, update."""
    kept = step_graph.kept_ops(ops, options.kept_in_float32(options.OWN_MIXLIST))
    found: Dict[Any, List[Cost]] = collections.defaultdict(list)
    fused: Set[str] = set()
    if fused_normalization:
        for there, back in normalizations(ops):
            found["LayerNorm", "forward"].append(cost_of_fused(there, there + back))
            found["LayerNormGrad", "backward"].append(cost_of_fused(back, there + back))
            fused |= {op.name for op in there + back}
    for op in ops:
        if op.type in FREE or not op.outputs or op.name in fused:
            continue
        part = part_of(op)
        wide = op.name in kept or part == "update"
        outputs = sum(size(tensor, wide) for tensor in op.outputs)
        inputs = list(op.inputs)
        if op.type in ROWS_ALONE:
            read = outputs + sum(size(tensor, wide) for tensor in inputs[1:])
        elif op.type == "Assign":
            read = outputs
        else:
            read = sum(size(tensor, wide) for tensor in set(inputs))
        if op.type in step_graph.PRODUCTS:
            unit, operations = CUBE, float(step_graph.operations_of(op))
        else:
            unit, operations = VECTOR, float(max(elements(tensor) for tensor in list(op.outputs) + inputs))
        found[op.type, part].append(Cost(unit, operations, outputs + read))
    return found


def normalizations(ops: Sequence[tf.Operation]) -> List[Tuple[List[tf.Operation], List[tf.Operation]]]:
    """The ops of each layer normalization, and of its gradient, that the compiler makes one op each of.

    As CANN's ScopeLayerNormPass and ScopeLayerNormGradPass look for them, by their public source, which
    docs/growth.md names; both are on by default. Below one scope a `moments` of two means and a squared
    difference and a `batchnorm` of a Sub, an Rsqrt and three Muls; on the way back below `LayerNorm` both
    once more, with six Muls in `batchnorm`, and the sums (AddN) of what comes from there alone.
    """
    parts: Dict[str, Dict[str, List[tf.Operation]]] = collections.defaultdict(
        lambda: {"there": [], "back": []})
    places: Dict[str, Tuple[str, str]] = {}
    for op in ops:
        match = _NORMALIZATION.match(op.name)
        if match:
            places[op.name] = match.group("scope"), "back" if match.group("back") else "there"
        elif op.type == "AddN":
            sources = {places.get(tensor.op.name) for tensor in op.inputs}
            source = sources.pop()
            if not sources and source and source[1] == "back":
                places[op.name] = source
        if op.name in places:
            scope, way = places[op.name]
            parts[scope][way].append(op)
    return [(found["there"], found["back"]) for found in parts.values()
            if all(_count(found["there"], part, kind) == wanted for part, kind, wanted in _THERE)
            and _count(found["back"], "batchnorm", "Mul") == 6]


_NORMALIZATION = re.compile(r"(?P<back>gradients\w*/)?(?P<scope>.*LayerNorm(_\d+)?)/(moments|batchnorm)/")
_THERE = (("moments", "Mean", 2), ("moments", "SquaredDifference", 1), ("moments", "Squeeze", 0),
          ("batchnorm", "Sub", 1), ("batchnorm", "Rsqrt", 1), ("batchnorm", "Mul", 3),
          ("batchnorm", "Identity", 0))


def _count(ops: Sequence[tf.Operation], part: str, kind: str) -> int:
    return sum(op.type == kind and "/%s/" % part in op.name for op in ops)


def cost_of_fused(ops: Sequence[tf.Operation], inside: Sequence[tf.Operation]) -> Cost:
    """Of ops that are one: it reads and writes what goes in and out; what the ops `inside` pass to each other
    is computed again, but for a few values a row. Two bytes a value: the list of ops does not name it."""
    names = {op.name for op in inside}
    read = {tensor.name: tensor for op in ops for tensor in op.inputs if tensor.op.name not in names}
    written = [tensor for op in ops for tensor in op.outputs
               if any(reader.name not in names for reader in tensor.consumers())]
    operations = sum(max(map(elements, list(op.outputs) + list(op.inputs)), default=0)
                     for op in ops if op.type not in FREE)
    return Cost(VECTOR, float(operations),
                sum(size(tensor, False) for tensor in list(read.values()) + written))


def part_of(op: tf.Operation) -> str:
    scope = op.name.split("/")[0]
    if scope.startswith("gradients"):
        return "backward"
    return "forward" if scope in ("bert", "cls", "loss") else "update"


def elements(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements() or 0


def size(tensor: tf.Tensor, wide: bool) -> float:
    """Bytes of a tensor where an op computes in float32, or not."""
    width = tensor.dtype.base_dtype.size
    return elements(tensor) * (2 if width == 4 and tensor.dtype.is_floating and not wide else width)


if __name__ == "__main__":
    sys.exit(main())
