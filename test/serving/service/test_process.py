import gc
import logging
import os
import socket

import pytest

from etl.common.command_line import UserError
from serving.service.process import bind, look_for_less_garbage, outputs_apart


def test_what_libraries_write_goes_to_standard_error(capfd, monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "")   # so that it is as before in the end
    monkeypatch.delenv("GRPC_VERBOSITY")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with outputs_apart() as output:
        os.write(1, b"of a library\n")
        logging.getLogger("serving").error("logged")
        os.write(output, b"ours\n")
        assert os.environ["GRPC_VERBOSITY"] == "NONE"
    assert capfd.readouterr() == ("ours\n", "of a library\nlogged\n")


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_port_that_is_taken(flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="--%s: 127.0.0.1:%d: Address already in use" % (flag, port)):
            bind("127.0.0.1", port, flag)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_one(host):
    with pytest.raises(UserError, match="^--host: %s: .*: not an address of this machine$" % host):
        bind(host, 0, "rest_api_port")


def test_a_full_collection_passes_over_the_libraries():
    threshold, before = gc.get_threshold(), len(gc.get_objects())
    try:
        look_for_less_garbage()
        assert gc.get_freeze_count() > 100000 and len(gc.get_objects()) < before / 10
        assert gc.get_threshold()[0] == 20000
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
