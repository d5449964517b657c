import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import function

from estimator.npu import step_graph


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def faults(*fetches):
    """What is found, by its first words, and where."""
    return {fault.what: fault.places for fault in step_graph.faults_of(step_graph.step_ops(fetches))}


def batch(shape=(2, 3)):
    """A batch as input_fn gives it: float32 of an initializable iterator."""
    values = tf.data.Dataset.from_tensors(np.zeros(shape, np.float32)).repeat()
    return tf.data.make_initializable_iterator(values).get_next()


def test_a_step_is_what_its_fetches_need_in_the_graphs_order():
    a, b = tf.constant(1.0, name="a"), tf.constant(2.0, name="b")
    with tf.control_dependencies([b]):
        c = tf.negative(a, name="c")
    tf.negative(c, name="other")
    assert [op.name for op in step_graph.step_ops([c])] == ["a", "b", "c"]


def test_a_plain_step_has_no_fault():
    weights = tf.get_variable("weights", [3, 4])
    loss = tf.reduce_sum(tf.matmul(batch(), weights))
    assert faults(tf.train.GradientDescentOptimizer(0.1).minimize(loss), loss) == {}


def test_what_the_step_does_not_need_does_not_count():
    tf.py_func(lambda: np.float32(0), [], tf.float32)
    tf.train.Saver([tf.get_variable("weights", [3])])
    assert faults(tf.reduce_sum(batch())) == {}


def plant_python():
    return tf.py_func(lambda x: x, [tf.zeros([2])], tf.float32, name="planted")


def plant_one_shot_iterator():
    return tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensors(np.zeros(2, np.float32))).get_next()


def plant_table():
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(
        tf.constant([1, 2], tf.int64), tf.constant([3, 4], tf.int64)), 0)
    return table.lookup(tf.constant([1], tf.int64))


def plant_dynamic_shape():
    return tf.boolean_mask(batch(), [True, False])


@pytest.mark.parametrize("plant, what, place", [
    (plant_python, "calls back into Python", "planted"),
    (plant_one_shot_iterator, "one-shot iterator, which crashes the process in a loop", "OneShotIterator"),
    (plant_table, "hash table in the step", "hash_table"),
    (lambda: tf.string_to_number(tf.strings.join(["1", "2"], name="planted")), "works on strings in the step",
     "planted"), (lambda: tf.identity(batch()[tf.argmax(batch()[0]):], name="planted"),
                  "has a dynamic shape", "planted"),
    (plant_dynamic_shape, "has a dynamic shape", "boolean_mask/GatherV2"),
    (lambda: tf.placeholder(tf.float32, [2], name="planted"),
     "reads from or writes to the host inside the loop", "planted"),
    (lambda: tf.timestamp(name="planted"), "reads from or writes to the host inside the loop", "planted"),
    (lambda: tf.summary.scalar("planted", 1.0), "reads from or writes to the host inside the loop",
     "planted"), (lambda: tf.debugging.Assert(tf.reduce_all(batch() > 0), ["no"], name="planted"),
                  "reads from or writes to the host inside the loop", "planted/Assert"),
])
def test_a_planted_fault_is_found(plant, what, place):
    found = faults(plant())
    assert place in found[what]


def test_a_fault_in_a_function_that_the_step_calls_is_found():
    @function.Defun(tf.float32)
    def call_python(x):
        return tf.py_func(lambda value: value, [x], tf.float32, name="planted")
    assert "planted" in faults(call_python(tf.zeros([2])))["calls back into Python"][0]


@pytest.mark.parametrize("plant, kind", [
    (lambda: tf.identity(tf.constant(1.0, tf.float64), name="planted"), "float64"),
    (lambda: tf.complex(1.0, 2.0, name="planted"), "complex64"),
    (lambda: tf.raw_ops.TensorListReserve(element_shape=[2], num_elements=3, element_dtype=tf.float32,
                                          name="planted"), "variant")])
def test_types_that_a_device_does_not_compute_in(plant, kind):
    fault, = step_graph.type_faults(step_graph.step_ops([plant()]))
    assert fault.what == "has the type " + kind and "planted" in fault.places


def test_such_a_type_is_found_in_a_function():
    @function.Defun(tf.float32)
    def in_double(x):
        return tf.cast(tf.cast(x, tf.float64, name="planted"), tf.float32)
    fault, = step_graph.type_faults(step_graph.step_ops([in_double(tf.zeros([2]))]))
    assert "planted" in fault.places[0]


CONSTANT, RESULT = "takes a constant that float16 does not hold", "leaves float16's range"


@pytest.mark.parametrize("plant, found", [
    (lambda x: tf.add(x, 1e-12, name="planted"), {CONSTANT: ("planted",)}),
    (lambda x: tf.multiply(tf.reshape(x, [6]), tf.reshape(tf.constant([[1e5] * 6]), [6]), name="planted"),
     {CONSTANT: ("planted",)}),
    (lambda x: tf.exp(x, name="planted"), {RESULT: ("planted",)}),
    (lambda x: x + 1e-6, {}), (lambda x: x - 10000.0, {}), (lambda x: x + np.inf, {}),
    (lambda x: tf.cast(x, tf.int32) + 100000, {}),
    # the list keeps what the square root reads and gives, up to the next product
    (lambda x: tf.exp(1e-12 + tf.sqrt(x)), {}),
    (lambda x: tf.add(tf.matmul(tf.sqrt(x), tf.zeros([3, 2])), 1e-12, name="planted"),
     {CONSTANT: ("planted",)})])
def test_what_float16_does_not_hold(plant, found):
    ops = step_graph.step_ops([plant(batch())])
    assert {fault.what: fault.places for fault in step_graph.float16_faults(ops, ("Sqrt",))} == found


def test_ops_that_the_adapter_does_not_take():
    ops = step_graph.step_ops([tf.sin(tf.sqrt(batch()), name="planted")])
    fault, = step_graph.unsupported_faults(ops, ("Sqrt",))
    assert (fault.what, fault.places) == ("Sin is not in the adapter's list of supported ops", ("planted",))


def test_every_fault_says_what_to_change():
    fault, = step_graph.faults_of(step_graph.step_ops([plant_python()]))
    assert fault.change == "compute it in input_fn, or with TensorFlow's own ops"


def test_the_devices_kernels_are_counted_by_their_names_without_their_gradients():
    x = tf.get_variable("x", [2])
    y = tf.sin(tf.sin(x, name="layer/npu_gelu"), name="layer/npu_gelu")
    ops = step_graph.step_ops(tf.gradients(y, x) + [y])
    assert step_graph.kernels_of(ops) == {"npu_gelu": ["layer/npu_gelu", "layer/npu_gelu_1"],
                                          "npu_dropout": []}
    assert step_graph.kernel_faults(ops, {"npu_gelu": 2, "npu_dropout": 0}) == []
    found, = step_graph.kernel_faults(ops, {"npu_gelu": 3, "npu_dropout": 0})
    assert found.what == "npu_gelu: 2 in the training graph, wanted 3"


def test_a_graph_with_the_devices_kernels_cannot_be_exported():
    tf.sin(1.0)
    assert step_graph.export_faults(tf.get_default_graph()) == []
    tf.sin(1.0, name="layer/npu_dropout")
    found, = step_graph.export_faults(tf.get_default_graph())
    assert found.places == ("layer/npu_dropout",)


def test_memory_by_purpose():
    weights = tf.get_variable("weights", [3, 4])                       # 48 bytes
    tf.get_variable("weights/adam_m", [3, 4], trainable=False)
    tf.get_variable("weights/adam_v", [3, 4], trainable=False)
    tf.get_variable("sum", [3, 4], trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])
    # tanh: 32 bytes, which its view adds nothing to
    hidden = tf.reshape(tf.tanh(tf.matmul(batch(), weights)), [8])
    gradient, = tf.gradients(tf.reduce_sum(hidden * hidden), weights)
    found = step_graph.memory_of(tf.get_default_graph(), step_graph.step_ops([gradient]))
    assert found == {"parameters": 48, "gradients": 48, "optimizer": 96, "accumulation": 48,
                     "activations": 32 + 24}                           # and the batch


def test_operations_of_the_products():
    a, b = tf.get_variable("a", [5, 3]), tf.get_variable("b", [3, 4])
    batched = tf.matmul(tf.zeros([2, 6, 7]), tf.zeros([2, 8, 7]), transpose_b=True)
    product = tf.matmul(a, b)
    gradients = tf.gradients(product, [a, b])
    others = [batched, tf.matmul(a, tf.zeros([5, 9]), transpose_a=True)]
    found = step_graph.flops_of(step_graph.step_ops(gradients + others + [product]))
    assert found == {"forward": 2 * 5 * 3 * 4 + 2 * 2 * 6 * 7 * 8 + 2 * 3 * 5 * 9,
                     "backward": 2 * (2 * 5 * 3 * 4)}
