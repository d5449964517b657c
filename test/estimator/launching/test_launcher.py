import pytest

from estimator.launching import launcher
from estimator.launching import plan as plans
from estimator.launching.flags import LaunchConfig
from estimator.launching.plan import Place, Plan
from estimator.launching.processes import End, Start
from etl.common.command_line import UserError


@pytest.fixture
def plan(tmp_path):
    log = tmp_path / "1" / "train_1.log"
    log.parent.mkdir()
    log.write_text("begin\nHCCL gave up\n")
    return Plan([Place(0, 1, 1, {}), Place(1, 2, 2, {})], 2)


def test_the_one_that_failed_and_why(plan, tmp_path):
    config = LaunchConfig(log_dir=str(tmp_path))
    log = plans.log_of(str(tmp_path), 1)
    failed = Start("rank 0 on device 1", [], {}, log)
    assert launcher.explanation("prog", End(0), plan, config) == ""
    assert launcher.explanation("prog", End(7, failed), plan, config) == (
        "prog: the end of %s:\nbegin\nHCCL gave up\n"
        "prog: error: rank 0 on device 1 ended with status 7, and the others were stopped\n" % log)
    assert launcher.explanation("prog", End(137, failed), plan, config).endswith(
        "status 137 (signal 9, as the system kills for want of memory), and the others were stopped\n")
    assert launcher.explanation("prog", End(7, failed), plan._replace(size=1), config) == (
        "prog: error: the trainer ended with status 7; the last line of %s: HCCL gave up\n" % log)
    assert launcher.explanation("prog", End(143), plan, config) == (
        "prog: error: stopped by a signal; the last line of %s: HCCL gave up\n" % log)


def test_ranges():
    assert launcher.ranges([0, 1, 2, 8, 10, 11]) == "0-2,8,10-11" and launcher.ranges([]) == ""


@pytest.mark.parametrize("command, message", [
    (["rm"], "what stands behind -- must begin with a command of ours, such as estimator.pretrain; got 'rm'"),
    (["estimator.pretrain"], r"no Ascend device can be used here \(npu_bridge is not installed\)"),
])
def test_nothing_is_started_or_written_for_a_mistake(plan, tmp_path, command, message):
    with pytest.raises(UserError, match=message):
        launcher.carry_out(plan._replace(table=str(tmp_path / "table.json"), is_new=True),
                           LaunchConfig(log_dir=str(tmp_path / "logs")), command)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
