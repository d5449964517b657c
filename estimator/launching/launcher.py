"""A launch, from its flags to its end: writes the table, starts the processes, says how they ended."""
import os
import re
import signal
import sys
from typing import List, Sequence

from estimator.launching import plan as plans
from estimator.launching import processes, rank_table
from estimator.launching.flags import LaunchConfig
from estimator.launching.plan import Plan
from estimator.launching.processes import End
from estimator.npu import devices
from etl.common import files
from etl.common.command_line import UserError

LINES = 20                                     # of the log of a process that failed


def launch(config: LaunchConfig, command: Sequence[str]) -> int:
    """Launches a command, or writes the table alone where there is none. Returns the exit status."""
    if not command and not config.save_rank_table:
        raise UserError("what to start must stand behind --, as in: --devices 0-7 -- estimator.pretrain …")
    plan = plans.make(config, os.environ)
    if not command:
        write_table(plan)
        return 0
    end = carry_out(plan, config, command)
    print(explanation("estimator.launch", end, plan, config), end="", file=sys.stderr)
    return end.status


def carry_out(plan: Plan, config: LaunchConfig, command: Sequence[str]) -> End:
    """Starts the processes of a plan and returns when all have ended. Raises UserError before anything is
    written or started."""
    if not re.fullmatch(r"\w+(\.\w+)+", command[0]):
        raise UserError("what stands behind -- must begin with a command of ours, such as "
                        "estimator.pretrain; got %r" % command[0])
    starts = plans.starts(plan, config, command, os.environ)
    if plan.size > 1 and not devices.is_installed():
        raise UserError("no Ascend device can be used here (npu_bridge is not installed), and several "
                        "devices exchange gradients through HCCL, which the CPU has not: launch one")
    write_table(plan)
    for start in starts:
        bound = ", cores %s" % ranges(start.cores) if start.cores else ""
        print("%s%s: %s" % (start.name, bound, start.log), flush=True)
    return processes.Launch(starts, config.stop_seconds).run()


def write_table(plan: Plan) -> None:
    """Writes the table of a plan, if it has made one."""
    if plan.is_new and plan.table:
        files.write_json(plan.table, rank_table.to_json(plan.servers))
        print("Wrote %s: devices %d, servers %d" % (plan.table, plan.size, len(plan.servers)), flush=True)


def explanation(prog: str, end: End, plan: Plan, config: LaunchConfig) -> str:
    """What is said of a launch that came to no good end: which process, how, and the last lines of its log.

    Lines, each with its line break; "" after a good end.
    """
    if not end.status:
        return ""
    first = plan.places[0]
    log = end.failed.log if end.failed else plans.log_of(config.log_dir, first.log_number)
    last = processes.last_lines(log, LINES)
    if end.failed is None:
        return "%s: error: stopped by a signal; the last line of %s: %s\n" % (prog, log, "".join(last[-1:]))
    how = _how(end)
    if plan.size == 1:
        return "%s: error: the trainer %s; the last line of %s: %s\n" % (prog, how, log, "".join(last[-1:]))
    return "".join(line + "\n" for line in [
        "%s: the end of %s:" % (prog, log), *last,
        "%s: error: %s %s, and the others were stopped" % (prog, end.failed.name, how)])


def ranges(numbers: Sequence[int]) -> str:
    """`[0, 1, 2, 8]` → `0-2,8`."""
    parts: List[List[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _how(end: End) -> str:
    """`ended with status 7`, or what killed it: a lack of memory shows itself so."""
    if end.status <= 128:
        return "ended with status %d" % end.status
    why = ", as the system kills for want of memory" if end.status == 128 + signal.SIGKILL else ""
    return "ended with status %d (signal %d%s)" % (end.status, end.status - 128, why)
