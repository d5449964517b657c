
import pytest

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
