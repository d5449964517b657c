import json

from estimator import launch


def test_the_table_alone(tmp_path, capsys):
    (tmp_path / "hccn.conf").write_text("address_0=10.1.0.1\naddress_1=10.1.0.2\n")
    table = tmp_path / "table.json"
    assert launch.main(["--devices", "0-1", "--hccn_conf", str(tmp_path / "hccn.conf"), "--servers",
                        "10.0.0.1", "--server_index", "0", "--save_rank_table", str(table)]) == 0
    assert capsys.readouterr().out == "Wrote %s: devices 2, servers 1\n" % table
    assert json.loads(table.read_text())["server_list"][0]["server_id"] == "10.0.0.1"


def test_one_device_ends_as_its_command_does(tmp_path, capfd):
    flags = ["--devices", "0", "--log_dir", str(tmp_path), "--"]
    assert launch.main(flags + ["json.tool", "--help"]) == 0
    log = tmp_path / "0" / "train_0.log"
    assert log.read_text().startswith("usage: ")
    assert capfd.readouterr().out.endswith(": %s\n" % log)
    assert launch.main(flags + ["json.tool", "gone.json"]) == 2
    assert capfd.readouterr().err.startswith(
        "estimator.launch: error: the trainer ended with status 2; the last line of %s: " % log)


def test_what_to_start_must_be_said(capsys):
    assert launch.main(["--devices", "0-7"]) == 1
    assert capsys.readouterr().err == (
        "estimator.launch: error: what to start must stand behind --, as in: --devices 0-7 -- "
        "estimator.pretrain …\n")
