"""The input of Ascend's compiler, atc, for offline models (.om) of a classifier, with test data to check
them.

  convert.sh                 the atc command of each model
  compare_om.py              runs the models on a device, and compares
  b1_l128/model.pb           frozen graph: input_ids, input_mask, segment_ids int32 [1, 128] →
                             probabilities, logits
  b1_l128/input_ids.bin …    sample inputs, raw little-endian values in the order of the graph's inputs
  b1_l128/probabilities.bin  plain TensorFlow's outputs for them, float32; logits.bin likewise
  open/model.pb              frozen graph for any batch size and length, which atc compiles for several
  open/b8_l64/…              inputs and outputs of one of these, as above

Graphs have only operations of plain TensorFlow, and all but the open one only static shapes.
"""
import itertools
import os
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.tasks import Example
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from serving.exporting import compare_om, reference, signatures
from serving.exporting.compare_om import OPEN
from serving.exporting.signatures import IDS

GRAPH_FILE, SCRIPT_FILE, COMPARISON_FILE = "model.pb", "convert.sh", "compare_om.py"
OUTPUTS = ("probabilities", "logits")

Shapes = Sequence[Tuple[int, int]]             # (batch size, length)


def write(folder: str, model: ModelFolder, tokenizer: Any, checkpoint: str, shapes: Shapes, profiles: Shapes,
          soc_version: str, samples: Sequence[Example]) -> None:
    """Writes a folder for each (batch size, length) of `shapes`, and one graph for all of `profiles`, with
    `samples` in turn as inputs.

    Raises UserError when a frozen graph's outputs differ from the checkpoint's; `folder` is then
    incomplete.
    """
    def write_case(graph: tf.GraphDef, case_folder: str, batch_size: int, length: int) -> None:
        batch = list(itertools.islice(itertools.cycle(samples), batch_size))
        inputs = reference.inputs(batch, tokenizer, length)
        outputs = run_frozen(graph, inputs)
        reference.require_same(outputs["probabilities"], reference.outputs(model, checkpoint, inputs), batch)
        for name, array in [*inputs.items(), *outputs.items()]:
            _write_bytes(os.path.join(case_folder, name + ".bin"), array.tobytes())
    for batch_size, length in shapes:
        shape_folder = os.path.join(folder, shape_name(batch_size, length))
        graph = freeze(model, checkpoint, batch_size, length)
        _write_bytes(os.path.join(shape_folder, GRAPH_FILE), graph.SerializeToString(deterministic=True))
        write_case(graph, shape_folder, batch_size, length)
    graph = freeze(model, checkpoint, None, None)
    _write_bytes(os.path.join(folder, OPEN, GRAPH_FILE), graph.SerializeToString(deterministic=True))
    for batch_size, length in profiles:
        write_case(graph, os.path.join(folder, OPEN, shape_name(batch_size, length)), batch_size, length)
    lines = ["# Needs CANN's environment (source set_env.sh). Then python3 %s, on a host with a device, "
             "says how" % COMPARISON_FILE,
             "# far the models are from plain TensorFlow.",
             "set -e", 'cd "$(dirname "$0")"', *atc_commands(shapes, profiles, soc_version)]
    files.write_text(os.path.join(folder, SCRIPT_FILE), "\n".join(lines) + "\n")
    files.copy(compare_om.__file__, os.path.join(folder, COMPARISON_FILE))


def atc_commands(shapes: Shapes, profiles: Shapes, soc_version: str) -> Iterator[str]:
    """The command of each model, run from the kit's folder."""
    for batch_size, length in shapes:
        yield _atc_command(shape_name(batch_size, length), "%d,%d" % (batch_size, length), soc_version)
    # a profile has a number for each -1 of the inputs, in their order
    dims = ";".join(",".join(["%d,%d" % profile] * len(IDS)) for profile in profiles)
    yield _atc_command(OPEN, "-1,-1", soc_version) + ' --dynamic_dims="%s"' % dims


def _atc_command(folder: str, dimensions: str, soc_version: str) -> str:
    return ('atc --framework=3 --model=%s/%s --output=%s/model --input_format=ND --input_shape="%s" '
            '--out_nodes="%s" --soc_version=%s'
            % (folder, GRAPH_FILE, folder, ";".join("%s:%s" % (name, dimensions) for name in IDS),
               ";".join(name + ":0" for name in OUTPUTS), soc_version))


def _write_bytes(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:           # ndarray.tofile does not notice a disk that the last kB fill
        stream.write(content)


def shape_name(batch_size: int, length: int) -> str:
    """`(1, 128)` → `b1_l128`."""
    return "b%d_l%d" % (batch_size, length)


def freeze(model: ModelFolder, checkpoint: str, batch_size: Optional[int],
           length: Optional[int]) -> tf.GraphDef:
    """The classifier with its weights as constants, and static shapes except for dimensions that are
    None."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        ids = {name: tf.placeholder(tf.int32, [batch_size, length], name) for name in IDS}
        answer = signatures.answer(model, skip_padding=False, **ids)
        for name in OUTPUTS:
            tf.identity(getattr(answer, name), name)
        checkpoint_files.restore(session, checkpoint, model.config)
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(OUTPUTS))
    # Nothing in it has a side effect: what must come before something else is there to refuse a length
    # that the model has not, which no profile is, and atc knows no Assert.
    for node in frozen.node:
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    return tf.graph_util.extract_sub_graph(frozen, list(OUTPUTS))


def run_frozen(graph: tf.GraphDef, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """A frozen graph's outputs for some inputs, by name."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph, name="")
        return session.run({name: name + ":0" for name in OUTPUTS},
                           {name + ":0": value for name, value in inputs.items()})
