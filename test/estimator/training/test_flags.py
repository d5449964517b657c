
import pytest

from estimator.npu.devices import Device
from estimator.training.flags import TrainingFlags


@pytest.mark.parametrize("field, value, message", [
    ("learning_rate", 0, "learning_rate must be above 0, got 0"),
    ("layer_decay", 1.5, r"layer_decay must be in \(0, 1\], got 1.5"),
    ("gradient_accumulation_steps", 0, "gradient_accumulation_steps must be at least 1, got 0"),
    ("scale_lr_by_batch", 0, "scale_lr_by_batch must be at least 1, got 0"),
])
def test_bad_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainingFlags(**{field: value})


@pytest.mark.parametrize("given, wanted", [
    ({}, (True, True)), ({"do_train": True}, (True, False)), ({"do_eval": True}, (False, True)),
    ({"do_train": False}, (False, True)), ({"do_train": False, "do_eval": False}, (False, False)),
])
def test_who_asks_for_one_thing_gets_nothing_else(given, wanted):
    flags = TrainingFlags(**given)
    assert (flags.do_train, flags.do_eval) == wanted


@pytest.mark.parametrize("given, loop", [
    (dict(do_train=True), 100), (dict(do_train=True, gradient_accumulation_steps=3), 99),
    (dict(do_train=True, iterations_per_loop=7), 7),
    (dict(do_train=False), 1), (dict(do_eval=True, iterations_per_loop=7), 1)])
def test_an_npu_has_loops_where_something_trains(monkeypatch, given, loop):
    monkeypatch.setattr(TrainingFlags, "choose_device", lambda self: Device("npu"))
    assert TrainingFlags(**given).on_device()[1].iterations_per_loop == loop
