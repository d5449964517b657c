"""Records and rows → batches, of static shape except for rows that are padded to the longest of their batch.

A batch is a dict of features, all int32 except masked_lm_weights and a regression's labels, which are
float32. Batches for evaluation or prediction also have is_real_example: the last one is filled with zero
rows, marked with 0.

The order of training is a function of only the seed and the batch's number: an interrupted run resumes with
exactly the batch that would have been next.
"""
import os
from typing import Callable, Dict, Iterator, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.rows import Batch, Rows
from estimator.data.records import NEVER_ALL_ZERO, PretrainingData, limits_of
from estimator.npu.ranks import ALONE, World
from etl.common.command_line import UserError
from etl.records.examples import FLOAT, Feature, require_true_lengths, rewritten

Features = Dict[str, tf.Tensor]
InputFn = Callable[[], tf.data.Dataset]

FILES_READ_AT_ONCE = 16                        # a group: its files are read in turn, its records shuffled
SHUFFLE_BUFFER = 8192                          # records; the builder's shards are in random order already
PARSERS = 2                                    # batches that are parsed in parallel
BATCHES_AHEAD = 2

# AutoGraph reads a function's source file when the graph is built: a file edited during a long training would
# break the evaluation after it. Ours are plain graph code and need no conversion.
_graph_code = tf.autograph.experimental.do_not_convert


def train_on_records(data: PretrainingData, batch_size: int, seed: int, batches_done: int = 0,
                     world: World = ALONE) -> InputFn:
    """Endless batches of `data` after the first `batches_done`; a batch may span the end of one epoch and the
    beginning of the next.

    Records are dealt out to the ranks in turn: n ranks with batch b see, step by step, what one sees with
    batch n · b.

    Raises UserError when the data does not fill one batch.
    """
    if data.num_train_records < batch_size * world.size:
        raise UserError("--train_batch_size is %d%s, but %s holds only %d training records"
                        % (batch_size, _on_devices(world), data.source, data.num_train_records))
    first_epoch, to_skip = divmod(batches_done * batch_size * world.size, data.num_train_records)

    @_graph_code
    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        skip = tf.where(tf.equal(epoch, first_epoch), np.int64(to_skip), np.int64(0))
        return _shuffled_records(data.train_files, data.train_counts, seed, epoch, skip)

    def input_fn() -> tf.data.Dataset:
        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        records = epochs.flat_map(epoch_records)
        if world.size > 1:
            records = records.shard(world.size, world.rank)
        batches = records.batch(batch_size, drop_remainder=True)
        return batches.map(_parser(data, data.features), num_parallel_calls=PARSERS).prefetch(BATCHES_AHEAD)
    return input_fn


def evaluate_on_records(data: PretrainingData, batch_size: int) -> InputFn:
    """Every held-out record of `data` once, in the files' order."""
    def input_fn() -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(list(data.eval_files)).map(_readable)
        batches = tf.data.TFRecordDataset(files).batch(batch_size)
        return batches.map(_parser(data, data.eval_features)).map(_filler(batch_size)).prefetch(BATCHES_AHEAD)
    return input_fn


def train_on_rows(rows: Rows, batch_size: int, seed: int, batches_done: int = 0,
                  seq_length: Optional[int] = None, world: World = ALONE) -> InputFn:
    """Endless batches after the first `batches_done`; each epoch in its own order. Dealt out like records.

    Rows of a batch are chosen regardless of length: batches of similar length would often be of one class.

    Args:
      rows: of labelled examples.
      batch_size: units of a batch, on each device.
      seed: of the order.
      batches_done: where to resume.
      seq_length: the length to which all rows are padded. None: the longest of their batch.
      world: the devices.

    Raises UserError if the rows do not fill one batch.
    """
    num_units = len(rows.unit_lengths)
    if num_units < batch_size * world.size:
        raise UserError("--train_batch_size is %d%s, but there are only %d training examples"
                        % (batch_size, _on_devices(world), num_units))

    def batches() -> Iterator[Batch]:
        for numbers in _training_rows(num_units, batch_size * world.size, seed, batches_done):
            yield rows.batch(numbers[world.rank::world.size], seq_length)
    return lambda: _from_batches(batches, rows, batch_size, seq_length)


def evaluation_order(rows: Rows, seq_length: Optional[int]) -> np.ndarray:
    """The order in which `evaluate_on_rows` takes units: as they are when all are padded to one length, else
    by length."""
    lengths = rows.unit_lengths
    return np.arange(len(lengths)) if seq_length else np.argsort(lengths, kind="stable")


def evaluate_on_rows(rows: Rows, batch_size: int, seq_length: Optional[int] = None) -> InputFn:
    """Every unit once, by `evaluation_order`; `seq_length` as in `train_on_rows`."""
    order = evaluation_order(rows, seq_length)

    def batches() -> Iterator[Batch]:
        for begin in range(0, len(order), batch_size):
            batch = rows.batch(order[begin:begin + batch_size], seq_length)
            batch["is_real_example"] = np.ones(len(batch["label_ids"]), np.int32)
            missing = batch_size - len(batch["label_ids"])
            yield {name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), mode="constant")
                   for name, array in batch.items()}
    return lambda: _from_batches(batches, rows, batch_size, seq_length, is_real_example=np.int32)


def _shuffled_records(paths: Sequence[str], counts: Sequence[int], seed: int, epoch: tf.Tensor,
                      skip: tf.Tensor) -> tf.data.Dataset:
    """One epoch of serialized records, without the first `skip`: files in a random order, in groups that are
    read at once and shuffled within a buffer. Groups before the resume point are not read at all.
    """
    seed = seed & 0x7FFFFFFF                   # seeds of TensorFlow are positive
    order = tf.argsort(tf.random.stateless_uniform([len(paths)], tf.stack([np.int64(seed), epoch])))
    ends = tf.cumsum(tf.gather(tf.constant(counts, tf.int64), order))  # records up to the end of each file
    groups_done = tf.reduce_sum(tf.cast(ends[FILES_READ_AT_ONCE - 1::FILES_READ_AT_ONCE] <= skip, tf.int64))
    files_done = groups_done * FILES_READ_AT_ONCE
    records_done = tf.concat([tf.zeros([1], tf.int64), ends], 0)[files_done]

    @_graph_code
    def group_records(group: tf.Tensor, files: tf.Tensor) -> tf.data.Dataset:
        tf.set_random_seed(seed)  # of this group's own function, independent of the surrounding graph
        # Not Dataset.interleave(num_parallel_calls=...): TensorFlow 1.15's crashes the process after a
        # damaged record.
        records = tf.data.Dataset.from_tensor_slices(files).map(_readable).apply(
            tf.data.experimental.parallel_interleave(
                tf.data.TFRecordDataset, cycle_length=FILES_READ_AT_ONCE, sloppy=False))
        return records.shuffle(SHUFFLE_BUFFER, seed=epoch * len(paths) + group,
                               reshuffle_each_iteration=False)

    files = tf.data.Dataset.from_tensor_slices(tf.gather(list(paths), order)[files_done:])
    groups = tf.data.Dataset.range(groups_done, len(paths) + 1)
    return tf.data.Dataset.zip(
        (groups, files.batch(FILES_READ_AT_ONCE))).flat_map(group_records).skip(skip - records_done)


@_graph_code
def _readable(path: tf.Tensor) -> tf.Tensor:
    """The same path, of a file that is safe for TensorFlow's reader."""
    def check(name: bytes) -> bytes:
        require_true_lengths(os.fsdecode(name))
        return name
    checked = tf.numpy_function(check, [path], tf.string)
    checked.set_shape([])
    return checked


def _parser(data: PretrainingData, wanted: Sequence[Feature]) -> Callable[[tf.Tensor], Features]:
    """Serialized records → their wanted features, checked: a value out of range is an InvalidArgumentError,
    since a gather beyond a row's end would silently read another row; so is an empty mask.
    """
    spec = {feature.name: tf.FixedLenFeature([feature.length],
                                             tf.float32 if feature.dtype == FLOAT else tf.int64)
            for feature in wanted}
    limits = limits_of(wanted, data.vocab_size)
    names = frozenset(spec)

    def rewrite(records: np.ndarray) -> np.ndarray:
        return np.array([rewritten(record, names) for record in records], dtype=object)

    @_graph_code
    def parse(records: tf.Tensor) -> Features:
        # TensorFlow puts the bytes that it cannot parse into its message, and making a Python error of bytes
        # that are no UTF-8 ends the process. So it gets those alone that it can.
        safe = tf.numpy_function(rewrite, [records], tf.string)
        safe.set_shape(records.shape)
        features = {}
        for name, values in tf.parse_example(safe, spec).items():
            is_good = tf.reduce_all((values >= 0) & (values < tf.cast(limits[name], values.dtype)))
            if name in NEVER_ALL_ZERO:
                is_good &= tf.reduce_all(tf.reduce_any(values > 0, axis=1))
            with tf.control_dependencies([tf.debugging.Assert(is_good, [name])]):
                features[name] = tf.cast(values,
                                         tf.int32) if values.dtype == tf.int64 else tf.identity(values)
        return features
    return parse


def _filler(batch_size: int) -> Callable[[Features], Features]:
    """Fills a short batch with zero rows and adds is_real_example, int32 [batch_size]; the shape becomes
    static."""
    @_graph_code
    def fill(features: Features) -> Features:
        num_real = tf.shape(features["input_ids"])[0]
        filled = {name: tf.pad(values, [[0, batch_size - num_real]] + [[0, 0]] * (values.shape.ndims - 1))
                  for name, values in features.items()}
        filled["is_real_example"] = tf.cast(tf.range(batch_size) < num_real, tf.int32)
        for values in filled.values():
            values.set_shape([batch_size] + values.shape.as_list()[1:])
        return filled
    return fill


def _from_batches(batches: Callable[[], Iterator[Batch]], rows: Rows, batch_size: int,
                  seq_length: Optional[int], **more: type) -> tf.data.Dataset:
    """A dataset of what `batches` yields; `more` are types of further features that are one number a unit."""
    found = {**rows.features(batch_size, seq_length), **{name: (dtype, [batch_size])
                                                         for name, dtype in more.items()}}
    return tf.data.Dataset.from_generator(
        batches, {name: tf.as_dtype(dtype) for name, (dtype, _) in found.items()},
        {name: tf.TensorShape(shape) for name, (_, shape) in found.items()}).prefetch(BATCHES_AHEAD)


def _training_rows(num_examples: int, batch_size: int, seed: int, batches_done: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch; they depend only on the seed and the batch's number."""
    epoch, begin = divmod(batches_done * batch_size, num_examples)
    rows = _epoch_order(num_examples, seed, epoch)[begin:]
    while True:
        while len(rows) < batch_size:
            epoch += 1
            rows = np.concatenate([rows, _epoch_order(num_examples, seed, epoch)])
        yield rows[:batch_size]
        rows = rows[batch_size:]


def _epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return _random(seed, epoch).permutation(num_examples)


def _random(seed: int, *numbers: int) -> np.random.RandomState:
    return np.random.RandomState([seed & 0xFFFFFFFF, *numbers])


def _on_devices(world: World) -> str:
    return "" if world.size == 1 else " on each of %d devices" % world.size
