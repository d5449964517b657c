import os
import pickle

import pytest

from etl.beam.worker_call import call, element_as_json, error_of_worker
from etl.common.command_line import UserError


def refuse(element):
    raise UserError("x.txt: line %d" % element)


def test_what_would_run_when_it_is_unpickled_is_not_run():
    with pytest.raises(ValueError):
        call(print, None, pickle.dumps("element"))


@pytest.mark.parametrize("function, element, kind, message", [
    (refuse, 3, UserError, "x.txt: line 3"), (os.rmdir, "gone", OSError, "No such file or directory: gone")])
def test_an_error_is_found_in_what_a_runner_makes_of_it(function, element, kind, message):
    with pytest.raises(RuntimeError) as raised:
        call(function, None, element_as_json(element))
    found = error_of_worker(KeyError("Traceback: %s [while running 'BuildChunks']" % raised.value))
    assert type(found) is kind and str(found) == message


def test_an_error_without_a_mark_is_nobodys_mistake():
    assert error_of_worker(ValueError("UserError: x")) is None
