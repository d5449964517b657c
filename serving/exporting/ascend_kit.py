"""The input of Ascend's compiler, atc, for offline models (.om) of a classifier, with test data to check
them.

  convert.sh                 the atc command of each shape
  b1_l128/model.pb           frozen graph: input_ids, input_mask, segment_ids int32 [1, 128] →
                             probabilities, logits
  b1_l128/input_ids.bin …    sample inputs, raw little-endian values in the order of the graph's inputs
  b1_l128/probabilities.bin  plain TensorFlow's outputs for them, float32; logits.bin likewise

Graphs have only static shapes and operations of plain TensorFlow.
"""
import itertools
import os
from typing import Any, Dict, Iterator, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.tasks import Example
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from serving.exporting import reference, signatures
from serving.exporting.signatures import IDS

GRAPH_FILE, SCRIPT_FILE = "model.pb", "convert.sh"
OUTPUTS = ("probabilities", "logits")


def write(folder: str, model: ModelFolder, tokenizer: Any, checkpoint: str, shapes: Sequence[Tuple[int, int]],
          soc_version: str, samples: Sequence[Example]) -> None:
    """Writes a folder for each (batch size, length) of `shapes`, with `samples` in turn as inputs.

    Raises UserError when a frozen graph's outputs differ from the checkpoint's; `folder` is then
    incomplete.
    """
    for batch_size, length in shapes:
        shape_folder = os.path.join(folder, shape_name(batch_size, length))
        os.makedirs(shape_folder)
        graph = freeze(model, checkpoint, batch_size, length)
        with open(os.path.join(shape_folder, GRAPH_FILE), "wb") as stream:
            stream.write(graph.SerializeToString(deterministic=True))
        batch = list(itertools.islice(itertools.cycle(samples), batch_size))
        inputs = reference.inputs(batch, tokenizer, length)
        outputs = run_frozen(graph, inputs)
        reference.require_same(outputs["probabilities"], reference.probabilities(model, checkpoint, inputs),
                               batch)
        for name, array in [*inputs.items(), *outputs.items()]:
            with open(os.path.join(shape_folder, name + ".bin"), "wb") as stream:
                # ndarray.tofile does not notice when the last few kB fill the disk
                stream.write(array.tobytes())
    lines = ["# Needs CANN's environment (source set_env.sh). Then, for a model on a device: msame or pyACL; "
             "outputs may",
             "# differ from the .bin files beside each model by float16's rounding.",
             "set -e", 'cd "$(dirname "$0")"', *atc_commands(shapes, soc_version)]
    files.write_text(os.path.join(folder, SCRIPT_FILE), "\n".join(lines) + "\n")


def atc_commands(shapes: Sequence[Tuple[int, int]], soc_version: str) -> Iterator[str]:
    """The command of each shape, run from the kit's folder."""
    for batch_size, length in shapes:
        here = shape_name(batch_size, length)
        yield ('atc --framework=3 --model=%s/%s --output=%s/model --input_format=ND --input_shape="%s" '
               '--out_nodes="%s" --soc_version=%s'
               % (here, GRAPH_FILE, here, ";".join("%s:%d,%d" % (name, batch_size, length) for name in IDS),
                  ";".join(name + ":0" for name in OUTPUTS), soc_version))


def shape_name(batch_size: int, length: int) -> str:
    """`(1, 128)` → `b1_l128`."""
    return "b%d_l%d" % (batch_size, length)


def freeze(model: ModelFolder, checkpoint: str, batch_size: int, length: int) -> tf.GraphDef:
    """The classifier with its weights as constants and only static shapes."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        ids = {name: tf.placeholder(tf.int32, [batch_size, length], name) for name in IDS}
        answer = signatures.answer(model, skip_padding=False, **ids)
        for name in OUTPUTS:
            tf.identity(getattr(answer, name), name)
        checkpoint_files.restore(session, checkpoint, model.config)
        return tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(OUTPUTS))


def run_frozen(graph: tf.GraphDef, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """A frozen graph's outputs for some inputs, by name."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph, name="")
        return session.run({name: name + ":0" for name in OUTPUTS},
                           {name + ":0": value for name, value in inputs.items()})
