import pytest

from estimator.launching.flags import LaunchConfig


@pytest.mark.parametrize("flags, message", [
    (dict(devices="0-"), "devices: wanted numbers and ranges such as 0-3,8, got '0-'"),
    (dict(server_index=-1), "server_index must be at least 0, got -1"),
    (dict(servers=("a", "b"), server_index=2),
     r"server_index must be in \[0, 2\), the number of --servers; got 2"),
    (dict(servers=("a", "a")), "servers: an address stands twice: a a"),
    (dict(servers=("a,b",)), "servers: wanted addresses, got 'a,b'"),
    (dict(servers=("a", "b"), hccn_conf=("c",)), "hccn_conf: wanted one file for each of the 2 --servers"),
    (dict(hccn_conf=("c", "d")), "hccn_conf: 2 files, but 0 --servers"),
    (dict(rank_table="t", servers=("a",)), "rank_table is a table that is there: leave servers out"),
    (dict(chief_port=70000), r"chief_port must be in \[0, 65520\], got 70000"),
    (dict(chief_port=60000, servers=("a",)), "chief_port wants devices"),
    (dict(chief_port=60000, rank_table="t"),
     "chief_port makes do without a rank table: leave rank_table out"),
    (dict(stop_seconds=-1.0), "stop_seconds must be at least 0, got -1"),
])
def test_flags_that_contradict_one_another(flags, message):
    with pytest.raises(ValueError, match=message):
        LaunchConfig(**flags)
