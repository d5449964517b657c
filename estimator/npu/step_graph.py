"""Static analysis of the part of a training graph that one call of the session runs.

Faults that would break or leave a device's loop, memory by purpose, floating-point operations of the matrix
products. All are derived from the ops and their static shapes.
"""
import re
from typing import Any, Collection, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Set, Tuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import op_def_registry

from estimator.npu import devices


class Fault(NamedTuple):
    """Something that would fail on a device."""
    what: str
    places: Tuple[str, ...]                    # names of ops, or nothing
    change: str                                # what to do about it


# Kinds of op that cannot run in a loop on the device: what they are, the types, what to do instead.
_OFF_THE_DEVICE = (
    ("calls back into Python", r"(Eager)?PyFunc(Stateless)?",
     "compute it in input_fn, or with TensorFlow's own ops"),
    ("one-shot iterator, which crashes the process in a loop", r"OneShotIterator",
     "let input_fn return a Dataset: the Estimator makes an initializable iterator of it"),
    ("hash table in the step", r".*HashTable.*|Lookup.*|InitializeTable.*",
     "look up in input_fn, which runs on the host"),
    ("reads from or writes to the host inside the loop",
     r"ReadFile|WriteFile|MatchingFiles|.*Reader.*|.*Summary.*|Print(V2)?|Assert|Timestamp|Placeholder.*|.*Queue.*|"
     r"Save(V2|Slices)?|Restore(V2|Slice)?",
     "do it between the loops, in a hook, or in input_fn"),
)
# Types that the device's compiler takes nowhere, or only on its slow processors.
_NO_TYPES = (tf.float64, tf.complex64, tf.complex128, tf.variant)
# Ops whose results leave float16's range for ordinary inputs: 65504, and 6e-8 towards 0.
_LEAVE_FLOAT16 = ("Exp", "Expm1", "L2Loss", "Pow", "Reciprocal", "Square", "SquaredDifference")
_STRINGS = "works on strings in the step", "turn text into ids in input_fn, which runs on the host"
_DYNAMIC = ("has a dynamic shape",
            "give input_fn's batches static shapes (drop_remainder) and the op sizes from the config")
_VIEWS = ("Identity", "Reshape", "Squeeze", "ExpandDims",
          "StopGradient")       # of a tensor that is stored anyway
_STORED = ("Const", "Variable", "VariableV2", "VarHandleOp", "ReadVariableOp")  # also stored anyway
# Handled by the adapter itself, or gone before anything is compiled.
_FOLDED = ("Const", "Placeholder", "PlaceholderWithDefault", "NoOp", "Identity", "BroadcastGradientArgs",
           "IteratorV2", "IteratorGetNext")
PRODUCTS = {"MatMul": "transpose_a", "BatchMatMul": "adj_x", "BatchMatMulV2": "adj_x"}


def step_ops(fetches: Sequence[Any]) -> List[tf.Operation]:
    """All ops that run when `fetches`, tensors or ops of one graph, are evaluated; in the graph's order."""
    todo = [fetch if isinstance(fetch, tf.Operation) else fetch.op for fetch in fetches]
    graph, found = todo[0].graph, set()
    while todo:
        op = todo.pop()
        if op.name not in found:  # names, since some of TensorFlow's functions return an op in a wrapper
            found.add(op.name)
            todo.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
    return [op for op in graph.get_operations() if op.name in found]


def faults_of(ops: Sequence[tf.Operation]) -> List[Fault]:
    """The faults in these ops, or in functions they call, that break or leave a loop on the device."""
    nodes = list(_nodes(ops))
    found = [(what, [name for name, node in nodes if re.fullmatch(types, node.op)], change)
             for what, types, change in _OFF_THE_DEVICE]
    off = {name for _, names, _ in found for name in names}
    strings = [name for name, node in nodes if name not in off and _has_type(node, tf.string)]
    dynamic = [op.name for op in ops if op.name not in off and not _is_folded(op)
               and not all(tensor.shape.is_fully_defined() for tensor in op.outputs)]
    found += [(_STRINGS[0], strings, _STRINGS[1]), (_DYNAMIC[0], dynamic, _DYNAMIC[1])]
    return [Fault(what, tuple(names), change) for what, names, change in found if names]


def type_faults(ops: Sequence[tf.Operation]) -> List[Fault]:
    """Ops, also in functions these call, with tensors of types that a device does not compute in."""
    nodes = list(_nodes(ops))
    found = [(dtype, [name for name, node in nodes if _has_type(node, dtype)]) for dtype in _NO_TYPES]
    return [Fault("has the type %s" % dtype.name, tuple(names), "compute it in float32, or in input_fn")
            for dtype, names in found if names]


def unsupported_faults(ops: Sequence[tf.Operation], supported: Collection[str]) -> List[Fault]:
    """Ops that are not among the types that the adapter takes; those of its own and what it folds are left
    out."""
    names: Dict[str, List[str]] = {}
    for op in ops:
        if op.type not in supported and op.type not in _FOLDED and hasattr(tf.raw_ops, op.type):
            names.setdefault(op.type, []).append(op.name)
    return [Fault("%s is not in the adapter's list of supported ops" % kind, tuple(found),
                  "write it with ops that are") for kind, found in sorted(names.items())]


def kept_ops(ops: Sequence[tf.Operation], in_float32: Collection[str]) -> Set[str]:
    """Names of the ops that compute in float32 where those of the types `in_float32` do: they pass that on to
    the ops that read them, as the adapter's gray list has it, up to the next matrix product."""
    kept: Set[str] = set()
    for op in ops:
        if op.type in in_float32 or op.type not in PRODUCTS and any(
                tensor.op.name in kept for tensor in op.inputs if tensor.dtype.base_dtype == tf.float32):
            kept.add(op.name)
    return kept


def float16_faults(ops: Sequence[tf.Operation], in_float32: Collection[str]) -> List[Fault]:
    """What would leave float16's range where ops compute in float16 unless `kept_ops` has them."""
    kept, constants, results = kept_ops(ops, in_float32), [], []
    for op in ops:
        inputs = [tensor for tensor in op.inputs if tensor.dtype.base_dtype == tf.float32]
        if op.name in kept:
            continue
        if op.type in _LEAVE_FLOAT16 and inputs:
            results.append(op.name)
        constants += [op.name for tensor in inputs if op.type not in _VIEWS and _leaves_float16(tensor)]
    change = "put the op, or the one whose result it takes, into the black-list of --modify_mixlist"
    found = (("takes a constant that float16 does not hold", constants),
             ("leaves float16's range", results))
    return [Fault(what, tuple(dict.fromkeys(names)), change) for what, names in found if names]


def _leaves_float16(tensor: tf.Tensor) -> bool:
    """Whether it is a constant of which float16 makes 0 or infinity."""
    source = _source(tensor)
    if source.op.type != "Const":
        return False
    values = tf.make_ndarray(source.op.get_attr("value"))
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    return bool(np.any(np.isfinite(values) & (np.isinf(half) | ((half == 0) & (values != 0)))))


def kernels_of(ops: Sequence[tf.Operation]) -> Dict[str, List[str]]:
    """Names of the device's own gelu and dropout ops, without gradients, by devices.GELU_OP and
    devices.DROPOUT_OP."""
    return {kernel: [op.name for op in ops if re.fullmatch(kernel + r"(_\d+)?", op.name.split("/")[-1])]
            for kernel in (devices.GELU_OP, devices.DROPOUT_OP)}


def kernel_faults(ops: Sequence[tf.Operation], wanted: Mapping[str, int]) -> List[Fault]:
    """The device's kernels that a training graph lacks; `wanted` says how many there must be at least."""
    return [Fault("%s: %d in the training graph, wanted %d" % (kernel, len(names), wanted[kernel]),
                  tuple(names), "use gelu and dropout from Device.training_kernels everywhere")
            for kernel, names in kernels_of(ops).items() if len(names) < wanted[kernel]]


def export_faults(graph: tf.Graph) -> List[Fault]:
    """Ops of an export graph that stock TensorFlow cannot load."""
    ops = graph.get_operations()
    names = [name for names in kernels_of(ops).values() for name in names]
    names += [op.name for op in ops if not hasattr(tf.raw_ops, op.type)]
    return [Fault("only a device can load it, but it is in the export graph", tuple(names),
                  "take the device's kernels for training graphs alone")] if names else []


def memory_of(graph: tf.Graph, ops: Sequence[tf.Operation]) -> Dict[str, int]:
    """Bytes by purpose, as the graph's types have them: a device that computes in float16 keeps half of the
    activations.

    Returns:
      parameters: trainable variables. gradients: one for each of them. optimizer: the other variables that
        checkpoints hold.
      accumulation: sums of gradients. activations: what the forward pass leaves for the backward pass, views
        counted once;
      a compiler that fuses ops keeps less.
    """
    trainable, saved, local = (sum(map(_bytes, graph.get_collection(key))) for key in (
        tf.GraphKeys.TRAINABLE_VARIABLES, tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.LOCAL_VARIABLES))
    kept = {_source(tensor) for op in ops if _is_backward(op)
            for tensor in op.inputs if not _is_backward(_source(tensor).op)}
    return {"parameters": trainable, "gradients": trainable, "optimizer": saved - trainable,
            "accumulation": local,
            "activations": sum(_bytes(tensor) for tensor in kept if tensor.op.type not in _STORED)}


def flops_of(ops: Sequence[tf.Operation]) -> Dict[str, int]:
    """Floating-point operations of the matrix products, forward and backward: 2 m k n for [m, k] · [k, n], by
    the static shapes. The rest of a transformer is small beside them (arXiv 2001.08361, section 2.1)."""
    flops = {"forward": 0, "backward": 0}
    for op in ops:
        if op.type in PRODUCTS and op.outputs[0].shape.is_fully_defined():
            flops["backward" if _is_backward(op) else "forward"] += operations_of(op)
    return flops


def operations_of(product: tf.Operation) -> int:
    """Floating-point operations of a matrix product of static shapes."""
    inner = product.inputs[0].shape.as_list()[-2 if product.get_attr(PRODUCTS[product.type]) else -1]
    return 2 * inner * product.outputs[0].shape.num_elements()


def _nodes(ops: Sequence[tf.Operation]) -> Iterator[Tuple[str, Any]]:
    """(name, NodeDef) of the ops and of what is in the functions they call; functions of datasets run on
    the host."""
    functions = {function.signature.name: function
                 for function in ops[0].graph.as_graph_def().library.function}
    nodes = [(op.name, op.node_def) for op in ops]
    for name, node in nodes:                   # which grows meanwhile
        yield name, node
        called = [node.op] + [function.name for attr in node.attr.values()
                              for function in [attr.func] + list(attr.list.func)]
        for function in (functions.pop(function, None)
                         for function in called if node.op != "OneShotIterator"):
            nodes.extend(("%s/%s" % (name, inner.name), inner)
                         for inner in (function.node_def if function else ()))


def _has_type(node: Any, dtype: tf.DType) -> bool:
    wanted, definition = dtype.as_datatype_enum, op_def_registry.get_registered_ops().get(node.op)
    arguments = list(definition.input_arg) + list(definition.output_arg) if definition else []
    return any(attr.type == wanted or wanted in attr.list.type for attr in node.attr.values()) or any(
        argument.type == wanted for argument in arguments)


def _is_folded(op: tf.Operation) -> bool:
    """Whether the host computes it once, before anything runs: axes of a gradient's sums, from shapes that
    are constants."""
    return op.type == "BroadcastGradientArgs" and all(_is_constant(tensor.op) for tensor in op.inputs)


def _is_constant(op: tf.Operation) -> bool:
    return op.type == "Const" or bool(op.inputs) and all(_is_constant(tensor.op) for tensor in op.inputs)


def _is_backward(op: tf.Operation) -> bool:
    return op.name.split("/")[0].startswith("gradients")


def _source(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[0]
    return tensor


def _bytes(value: Any) -> int:
    return (value.shape.num_elements() or 0) * value.dtype.base_dtype.size
