"""A SavedModel, as others make them, whose signatures take tf.Examples with the number x."""
import json
import os

import tensorflow.compat.v1 as tf

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def write(folder):
    """Writes a version's folder.

    classify    x and 2x as scores of the classes less and more
    scores      the same without classes; classes: without scores
    regress     x / 2; column: the same as [batch, 1]; of_other: the same, from examples of its own
    wide        two numbers for each example; unnamed: its output has another name
    """
    with tf.Graph().as_default(), tf.Session() as session:
        serialized, other = (tf.placeholder(tf.string, [None], name) for name in ("examples", "other"))
        x, of_other = (tf.io.parse_example(given, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
                       for given in (serialized, other))
        both = tf.stack([x, 2 * x], axis=1)
        labels = tf.tile([[b"less", b"more"]], [tf.size(x), 1])

        def signature(method, given=serialized, **outputs):
            info = tf.saved_model.build_tensor_info
            return tf.saved_model.build_signature_def(
                {"inputs": info(given)}, {name: info(tensor) for name, tensor in outputs.items()}, method)
        tf.get_variable("unused", [1])
        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(session, ["serve"], {
            "classify": signature(CLASSIFY, classes=labels, scores=both),
            "scores": signature(CLASSIFY, scores=both), "classes": signature(CLASSIFY, classes=labels),
            "regress": signature(REGRESS, outputs=x / 2),
            "column": signature(REGRESS, outputs=x[:, tf.newaxis] / 2),
            "of_other": signature(REGRESS, other, outputs=of_other / 2),
            "wide": signature(REGRESS, outputs=both), "unnamed": signature(REGRESS, found=x)})
        builder.save()
    os.mkdir(os.path.join(folder, "assets.extra"))
    with open(os.path.join(folder, "assets.extra", "model_card.json"), "w") as stream:
        json.dump({"labels": []}, stream)


def example(x):
    """A serialized tf.Example."""
    made = tf.train.Example()
    made.features.feature["x"].float_list.value.append(x)
    return made.SerializeToString()
