import json

import pytest

from estimator.launching import modelarts, rank_table
from estimator.launching.modelarts import JobConfig
from etl.common import files
from etl.common.command_line import UserError

JOB = JobConfig(stage="finetune", data_url="/in", train_url="/out", ckpt_url="/model")


def groups(hosts, devices=2, status="completed"):
    return {"status": status, "group_count": "1", "group_list": [{"group_name": "job", "instance_list": [
        {"pod_name": "job-%d" % host, "server_id": "10.0.0.%d" % host, "devices": [
            {"device_id": str(4 + number), "device_ip": "192.1.%d.%d" % (host, number)}
            for number in range(devices)]} for host in range(hosts)]}]}


def test_a_jobs_paths_become_the_trainers_flags():
    assert modelarts.command_of(JOB, ["--task_name=lcqmc"]) == [
        "estimator.finetune", "--data_dir=/in", "--output_dir=/out", "--init_checkpoint=/model",
        "--task_name=lcqmc"]
    assert modelarts.command_of(JobConfig(data_url="/in", train_url="/out"), []) == [
        "estimator.pretrain", "--input_file=/in", "--output_dir=/out"]


def test_a_jobs_own_flags_are_told_from_the_trainers():
    words = ["--data_url=/in", "--labels", "a", "b", "--train_url", "/out", "--do_eval"]
    assert modelarts.split_flags(words) == (
        ["--data_url=/in", "--train_url", "/out"], ["--labels", "a", "b", "--do_eval"])


def test_a_bucket_is_no_folder(capsys):
    with pytest.raises(SystemExit):
        modelarts.main(["--data_url=obs://bucket/in", "--train_url=/out"])
    assert "data_url: wanted a folder that the job mounts, got obs://bucket/in" in capsys.readouterr().err


def test_where_the_table_lies(tmp_path):
    assert modelarts.path_of_table({}) == "/user/config/jobstart_hccl.json"
    assert modelarts.path_of_table({"RANK_TABLE_FILE": str(tmp_path)}) == str(tmp_path / "jobstart_hccl.json")
    assert modelarts.path_of_table({"RANK_TABLE_FILE": "/table.json"}) == "/table.json"


def test_the_scheduler_is_waited_for(tmp_path):
    path = tmp_path / "table.json"
    with pytest.raises(UserError, match="no complete rank table in 0 s: .*table.json: no such file"):
        modelarts.await_table(str(path), 0)
    path.write_text(json.dumps(groups(2))[:40])
    with pytest.raises(UserError, match="in 0 s: .*table.json: not JSON in UTF-8"):
        modelarts.await_table(str(path), 0)
    path.write_text(json.dumps(groups(1, status="initializing")))
    with pytest.raises(UserError, match="table.json: status is 'initializing'"):
        modelarts.await_table(str(path), 0)
    path.write_text(json.dumps(groups(2)))
    assert rank_table.size(modelarts.await_table(str(path), 0)) == 4


def test_what_is_waited_for_is_said_once(tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.json"
    turns = [json.dumps(groups(1, status=status)) for status in ("initializing", "initializing", "completed")]
    monkeypatch.setattr("time.sleep", lambda seconds: path.write_text(turns.pop(0)))
    assert rank_table.size(modelarts.await_table(str(path))) == 2
    assert capsys.readouterr().out == (
        "Waiting for the rank table: %s: no such file\n"
        "Waiting for the rank table: %s: status is 'initializing'\n" % (path, path))


def servers(hosts, devices=2):
    return rank_table.from_json("table", groups(hosts, devices))


def test_a_container_knows_its_server_by_its_address_else_by_its_number():
    assert modelarts.index_of(servers(2), {"MA_CURRENT_HOST_IP": "10.0.0.1", "VC_TASK_INDEX": "0"}) == 1
    assert modelarts.index_of(servers(2), {"MA_NUM_HOSTS": "2", "VC_TASK_INDEX": "1"}) == 1
    assert modelarts.index_of(servers(1), {"MA_NUM_GPUS": "2"}) == 0


@pytest.mark.parametrize("environment, message", [
    ({"MA_NUM_HOSTS": "3"}, r"MA_NUM_HOSTS is 3, but the rank table has 2 server\(s\)"),
    ({}, r"VC_TASK_INDEX must be in \[0, 2\), the servers of the rank table, got ''"),
    ({"VC_TASK_INDEX": "2"}, "got '2'; and none of them has MA_CURRENT_HOST_IP's address"),
    ({"VC_TASK_INDEX": "0", "MA_NUM_GPUS": "8"}, r"MA_NUM_GPUS is 8, but .* gives this server 2 device\(s\)"),
])
def test_an_environment_that_contradicts_the_table(environment, message):
    with pytest.raises(UserError, match=message):
        modelarts.index_of(servers(2), environment)


def test_each_devices_process_has_been_placed_by_the_platform(tmp_path, monkeypatch):
    became = []

    def execve(path, arguments, environment):
        became.append((arguments, environment))
        raise SystemExit(0)
    monkeypatch.setattr(modelarts.os, "execve", execve)
    monkeypatch.setattr(modelarts.os, "environ", {"RANK_ID": "3", "RANK_SIZE": "8", "RANK_TABLE_FILE": "/t"})
    with pytest.raises(SystemExit):
        modelarts.start(JOB, [])
    (arguments, environment), = became
    assert arguments[1:4] == ["-u", "-m", "estimator.finetune"]
    assert environment == {"RANK_ID": "3", "RANK_SIZE": "8", "RANK_TABLE_FILE": "/t", "JOB_ID": "10087"}
    assert modelarts.own_environment({"RANK_ID": "0", "RANK_SIZE": "1", "RANK_TABLE_FILE": "/t"}) == {
        "RANK_SIZE": "1", "JOB_ID": "10087"}
    assert not modelarts.is_started_for_each_device({"RANK_ID": "0", "RANK_TABLE_FILE": str(tmp_path)})


def test_one_process_of_a_container_starts_one_for_each_device(tmp_path, monkeypatch):
    """The container sees its devices from 0 on; the table keeps the host's numbers."""
    (tmp_path / "jobstart_hccl.json").write_text(json.dumps(groups(2)))
    launched = []

    def carry_out(plan, config, command):
        launched.append((plan, config, command))
        return modelarts.launcher.End(0)
    monkeypatch.setattr(modelarts.launcher, "carry_out", carry_out)
    monkeypatch.setattr(modelarts.os, "environ", {
        "RANK_TABLE_FILE": str(tmp_path), "VC_TASK_INDEX": "1", "MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "2",
        "MA_LOG_DIR": str(tmp_path / "log")})
    assert modelarts.start(JOB, []) == 0
    (plan, config, command), = launched
    assert [(place.rank, place.device, place.variables["RANK_ID"]) for place in plan.places] == [
        (2, 0, "2"), (3, 1, "3")]
    assert plan.table == str(tmp_path / "log" / "rank_table.json") and plan.is_new and plan.size == 4
    assert config.log_dir == str(tmp_path / "log") and command[0] == "estimator.finetune"
    files.write_json(plan.table, rank_table.to_json(plan.servers))
    assert rank_table.read(plan.table)[1].devices[0].number == 4
