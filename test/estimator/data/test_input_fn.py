import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.data import input_fn, records
from estimator.data.rows import Rows
from estimator.npu.ranks import World
from etl.common.command_line import UserError


@pytest.fixture
def data(tmp_path):
    return records.from_build(tiny_training.write_build(tmp_path / "data", num_train=20, num_eval=5,
                                                        num_shards=3))


def batches(make_dataset, count=None, graph_seed=None, fixed=True):
    """The first `count` batches (None: all) as dicts of arrays; checks that static shapes are true, and full
    where `fixed`."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(graph_seed)
        iterator = tf.data.make_initializable_iterator(make_dataset())
        batch = iterator.get_next()
        session.run(iterator.initializer)
        found = []
        while count is None or len(found) < count:
            try:
                found.append(session.run(batch))
            except tf.errors.OutOfRangeError:
                break
        for name, tensor in batch.items():
            assert not fixed or tensor.shape.as_list() == list(found[0][name].shape)
            assert tensor.shape.is_compatible_with(found[0][name].shape)
        return found


def words(found):
    """What tells one record from another: its word and its label."""
    return [list(zip(batch["input_ids"][:, 1].tolist(), batch["next_sentence_labels"][:, 0].tolist()))
            for batch in found]


def test_a_record_comes_as_it_was_written(data):
    batch, = batches(input_fn.train_on_records(data, batch_size=20, seed=1), 1)
    row = batch["input_ids"][:, 1].tolist().index(7)
    assert batch["input_ids"][row].tolist() == [2, 7, 7, 3, 4, 7, 3, 0]
    assert batch["input_mask"][row].tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    assert batch["segment_ids"][row].tolist() == [0, 0, 0, 0, 1, 1, 1, 0]
    assert batch["masked_lm_positions"][row].tolist() == [4, 0]
    assert batch["masked_lm_ids"][row].tolist() == [7, 0]
    assert batch["masked_lm_weights"][row].tolist() == [1.0, 0.0]
    assert {name: values.dtype for name, values in batch.items() if values.dtype != np.int32} == {
        "masked_lm_weights": np.float32}


def test_each_epoch_holds_every_record_once_in_an_order_of_its_own(data):
    found = sum(words(batches(input_fn.train_on_records(data, batch_size=4, seed=1), 10)), [])
    first, second = found[:20], found[20:]
    wanted = sorted((5 + number % 15, number % 2) for number in range(20))
    assert sorted(first) == sorted(second) == wanted
    assert first != second


def test_a_batch_may_span_two_epochs_and_no_record_is_lost(data):
    found = sum(words(batches(input_fn.train_on_records(data, batch_size=8, seed=1), 5)), [])
    assert sorted(found[:20]) == sorted(found[20:])


@pytest.mark.parametrize("batches_done", [1, 3, 5, 6, 12])
def test_a_resumed_run_sees_what_would_have_come_next(data, batches_done):
    whole = words(batches(input_fn.train_on_records(data, batch_size=8, seed=3), 15))
    resumed = words(batches(input_fn.train_on_records(data, batch_size=8, seed=3, batches_done=batches_done),
                            3))
    assert resumed == whole[batches_done:batches_done + 3]


def test_the_seed_decides_the_order_and_the_graph_around_has_no_say(data):
    def order(seed, graph_seed=None):
        return words(batches(input_fn.train_on_records(data, batch_size=5, seed=seed), 4, graph_seed))
    assert order(1) == order(1, graph_seed=77)
    assert order(1) != order(2)
    assert order(-1) != order(1)


def test_less_data_than_a_batch_names_both_numbers(data):
    with pytest.raises(UserError,
                       match="--train_batch_size is 21, but .*data holds only 20 training records"):
        input_fn.train_on_records(data, batch_size=21, seed=1)


def test_every_held_out_record_counts_and_the_tail_is_marked(data):
    found = batches(input_fn.evaluate_on_records(data, batch_size=3))
    assert [batch["is_real_example"].tolist() for batch in found] == [[1, 1, 1], [1, 1, 0]]
    assert [batch["input_ids"][:, 1].tolist() for batch in found] == [[10, 11, 12], [13, 14, 0]]
    assert [batch["masked_lm_weights"].sum() for batch in found] == [3, 2]


def test_held_out_records_say_whether_a_sentence_is_cut(data):
    found = batches(input_fn.evaluate_on_records(dataclasses.replace(data, tells_cuts=True), batch_size=3))
    assert [batch["cut_inside_sentence"].tolist() for batch in found] == [[[0], [1], [0]], [[1], [0], [0]]]
    found = batches(input_fn.evaluate_on_records(data, batch_size=3))
    assert not any("cut_inside_sentence" in batch for batch in found)


def rows_of(lengths):
    """Rows that can be told by their label, which is their number; each repeats its number + 5."""
    count = len(lengths)
    return Rows(np.repeat(np.arange(count) + 5, lengths).astype(np.int32), np.zeros(sum(lengths), np.int32),
                np.cumsum([0] + list(lengths)), np.arange(count, dtype=np.int32),
                np.arange(count, dtype=np.int32))


def labels(found):
    return np.concatenate([batch["label_ids"] for batch in found]).tolist()


@pytest.mark.parametrize("seq_length", [4, None])
def test_rows_are_shuffled_by_epoch_and_resume(seq_length):
    rows = rows_of([2, 3, 4, 2, 3, 4, 2, 3, 4, 1])
    whole = batches(input_fn.train_on_rows(rows, 4, seed=5, seq_length=seq_length), 10,
                    fixed=bool(seq_length))
    assert sorted(labels(whole)) == sorted(list(range(10)) * 4)
    assert all((batch["input_ids"].max(axis=1) == batch["label_ids"] + 5).all() for batch in whole)
    for batches_done in (1, 4, 9):
        resumed, = batches(input_fn.train_on_rows(rows, 4, 5, batches_done, seq_length), 1,
                           fixed=bool(seq_length))
        assert resumed["label_ids"].tolist() == whole[batches_done]["label_ids"].tolist()


def test_rows_padded_to_one_length_come_epoch_by_epoch():
    found = labels(batches(input_fn.train_on_rows(rows_of([2] * 10), 4, seed=5, seq_length=4), 10))
    assert sorted(found[:10]) == sorted(found[10:20]) == list(range(10)) and found[:10] != found[10:20]


def test_both_ways_of_padding_train_on_the_same_batches():
    rows = rows_of(np.random.RandomState(0).randint(1, 30, 40).tolist())
    padded, short = (batches(input_fn.train_on_rows(rows, 8, seed=1, seq_length=length), 12,
                             fixed=bool(length)) for length in (30, None))
    assert labels(padded) == labels(short)
    for one, other in zip(padded, short):
        width = other["input_ids"].shape[1]
        assert other["input_mask"][:, -1].any() and one["input_mask"][:, width:].sum() == 0
        assert one["input_ids"][:, :width].tolist() == other["input_ids"].tolist()


@pytest.mark.parametrize("seq_length, wanted",
                         [(3, [[5, 0, 0], [6, 6, 6], [7, 7, 0]]), (None, [[5, 0], [7, 7], [8, 8]])])
def test_every_row_is_evaluated_and_the_tail_is_marked(seq_length, wanted):
    rows = rows_of([1, 3, 2, 2, 3])
    found = batches(input_fn.evaluate_on_rows(rows, 3, seq_length), fixed=bool(seq_length))
    assert found[0]["input_ids"].tolist() == wanted
    assert [batch["is_real_example"].tolist() for batch in found] == [[1, 1, 1], [1, 1, 0]]
    assert found[1]["input_ids"][2].tolist() == [0] * 3
    assert labels(found)[:5] == input_fn.evaluation_order(rows, seq_length).tolist()


def test_fewer_rows_than_a_batch_names_both_numbers():
    with pytest.raises(UserError, match="--train_batch_size is 4, but there are only 3 training examples"):
        input_fn.train_on_rows(rows_of([1] * 3), batch_size=4, seed=1)


@pytest.mark.parametrize("batches_done", [0, 3])
def test_two_ranks_share_every_batch_of_the_double_size(data, batches_done):
    """Three epochs: every record goes to one rank per epoch, and a run that goes on deals them out alike."""
    whole = words(batches(input_fn.train_on_records(data, 4, 1, batches_done), 12))
    ranks = [words(batches(input_fn.train_on_records(data, 2, 1, batches_done, World(rank, 2)), 12))
             for rank in (0, 1)]
    assert [sorted(first + second) for first, second in zip(*ranks)] == [sorted(batch) for batch in whole]
    rows = rows_of([2] * 20)
    whole = batches(input_fn.train_on_rows(rows, 4, 1, batches_done, 2), 9)
    ranks = [batches(input_fn.train_on_rows(rows, 2, 1, batches_done, 2, World(rank, 2)), 9)
             for rank in (0, 1)]
    for both, first, second in zip(whole, *ranks):
        assert sorted(labels([both])) == sorted(labels([first, second]))


def test_every_rank_needs_a_batch(data):
    with pytest.raises(UserError, match="--train_batch_size is 11 on each of 2 devices, but .* only 20 "
                       "training records"):
        input_fn.train_on_records(data, 11, seed=1, world=World(0, 2))
