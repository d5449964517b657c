import grpc
import pytest
import tensorflow.compat.v1 as tf

from serving.service import errors
from serving.service.errors import RequestError


@pytest.mark.parametrize("code, status", [
    ("INVALID_ARGUMENT", 400), ("NOT_FOUND", 404), ("UNAVAILABLE", 503), ("DEADLINE_EXCEEDED", 504),
    ("UNIMPLEMENTED", 501),
    ("RESOURCE_EXHAUSTED", 413), ("CANCELLED", 499), ("INTERNAL", 500), ("UNKNOWN", 500)])
def test_http_status(code, status):
    assert RequestError(grpc.StatusCode[code], "x").http_status == status


def test_the_graphs_words_without_its_operations():
    found = errors.from_tensorflow(
        tf.errors.InvalidArgumentError(None, None, "indices[0] = 99\n\t [[node x]]"))
    assert (found.code, str(found)) == (grpc.StatusCode.INVALID_ARGUMENT, "indices[0] = 99")


def test_a_message_repeats_little_of_what_was_sent():
    assert str(errors.invalid("北" * 400)) == "北" * 400
    assert str(errors.invalid("no signature " + "x" * 2 ** 22 + " here")) == (
        "no signature " + "x" * 187 + " … " + "x" * 195 + " here")


def test_a_message_can_be_sent():
    assert str(errors.invalid("\ud800")) == "?"
