"""A training job of ModelArts: its environment and the paths that it gives as flags → a launch.

The platform starts a job's file once for each device, or, with an image of one's own, once for each
container. In the first case the environment tells each process its place; in the second it names the folder
of a table that the scheduler is still filling.
"""
import os
import sys
import time
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from estimator.launching import core_binding, launcher, rank_table
from estimator.launching import plan as plans
from estimator.launching.flags import LaunchConfig
from estimator.launching.rank_table import Server
from etl.common import files
from etl.common.command_line import UserError, flag, run

PROG = "modelarts_start"
TABLE_FOLDER, TABLE_FILE = "/user/config", "jobstart_hccl.json"
TABLE_SECONDS = 600.0                          # that the scheduler may take to fill the table

# The trainers' flags for the job's inputs and outputs.
_DATA = {"pretrain": "--input_file", "finetune": "--data_dir"}


@dataclass(frozen=True)
class JobConfig:
    """The flags of a job; all others are the trainer's."""
    stage: str = flag("pretrain", "what is trained", ("pretrain", "finetune"))
    data_url: Optional[str] = flag(None, "folder of the records or of the labelled files", required=True)
    train_url: Optional[str] = flag(
        None, "folder of checkpoints and results; of several hosts one that all of them mount", required=True)
    ckpt_url: Optional[str] = flag(None, "folder or checkpoint to start from")
    log_dir: Optional[str] = flag(None, "folder of the logs (default: MA_LOG_DIR, else log in train_url)")

    def __post_init__(self) -> None:
        for name in ("data_url", "train_url", "ckpt_url"):
            value = getattr(self, name)
            if value and "://" in value:
                raise ValueError("%s: wanted a folder that the job mounts, got %s: make it an input or an "
                                 "output of the job" % (name, value))


def main(argv: Optional[Sequence[str]] = None) -> int:
    own, others = split_flags(sys.argv[1:] if argv is None else argv)
    return run(PROG, __doc__, JobConfig, lambda config: start(config, others), own)


def split_flags(argv: Sequence[str]) -> Tuple[List[str], List[str]]:
    """The words that are a job's own flags and their values, and the others."""
    names = {"--" + name for name in JobConfig.__dataclass_fields__} | {"--help", "-h"}
    own: List[str] = []
    others: List[str] = []
    taking = others
    for word in argv:
        if word.startswith("-"):
            taking = own if word.partition("=")[0] in names else others
        taking.append(word)
    return own, others


def start(config: JobConfig, others: Sequence[str]) -> int:
    """Trains as the job says; returns the exit status. Where the platform has started each process, this one
    becomes the trainer and does not return."""
    command = command_of(config, others)
    if is_started_for_each_device(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-u", "-m"] + command, own_environment(os.environ))
    table_path, log_dir = path_of_table(os.environ), log_dir_of(config, os.environ)
    servers = await_table(table_path)
    index = index_of(servers, os.environ)
    launch = LaunchConfig(log_dir=log_dir)
    plan = plans.by_table(launch, servers, os.path.join(os.path.abspath(log_dir), "rank_table.json"), True,
                          [device.number for device in servers[index].devices], index)
    end = launcher.carry_out(plan, launch, command)
    print(launcher.explanation(PROG, end, plan, launch), end="", file=sys.stderr)
    return end.status


def command_of(config: JobConfig, others: Sequence[str]) -> List[str]:
    """The trainer and its flags; those that the job gives itself come last, and win."""
    paths = ["%s=%s" % (_DATA[config.stage], config.data_url), "--output_dir=%s" % config.train_url]
    if config.ckpt_url:
        paths.append("--init_checkpoint=" + config.ckpt_url)
    return ["estimator." + config.stage, *paths, *others]


def is_started_for_each_device(environment: Mapping[str, str]) -> bool:
    """Whether the platform has told this process its place among the devices."""
    return bool(environment.get("RANK_ID")) and not os.path.isdir(environment.get("RANK_TABLE_FILE", ""))


def own_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """What a process that the platform has placed gives to the trainer."""
    found = dict(environment)
    found.setdefault("JOB_ID", plans.DEFAULT_JOB_ID)
    if found.get("RANK_SIZE", "1") == "1":     # a table would have npu_bridge look for others
        for name in ("RANK_TABLE_FILE", "RANK_ID"):
            found.pop(name, None)
    return found


def path_of_table(environment: Mapping[str, str]) -> str:
    """Where the scheduler writes the table: RANK_TABLE_FILE is its folder, or the file itself."""
    path = environment.get("RANK_TABLE_FILE") or TABLE_FOLDER
    return os.path.join(path, TABLE_FILE) if os.path.isdir(path) or path == TABLE_FOLDER else path


def log_dir_of(config: JobConfig, environment: Mapping[str, str]) -> str:
    return (config.log_dir or environment.get("MA_LOG_DIR")
            or os.path.join(config.train_url or "", "log"))


def await_table(path: str, seconds: float = TABLE_SECONDS, turn: float = 1.0) -> List[Server]:
    """The servers of the table at `path`, once the scheduler has filled it, which takes more than one write.
    Raises UserError when it does not come in time, or when what comes is no table."""
    deadline, told = time.monotonic() + seconds, ""
    while True:
        try:
            table = files.read_json(path)
        except UserError as error:             # none yet, or only its beginning
            state = str(error)
        else:
            if rank_table.is_complete(table):
                return rank_table.from_json(path, table)
            state = "%s: status is %r" % (path, table.get("status") if isinstance(table, dict) else table)
        if time.monotonic() > deadline:
            raise UserError("no complete rank table in %g s: %s" % (seconds, state))
        if state != told:
            print("Waiting for the rank table: %s" % state, flush=True)
            told = state
        time.sleep(turn)


def index_of(servers: Sequence[Server], environment: Mapping[str, str]) -> int:
    """Which server this container is: by its address, else by its number in the job. Raises UserError where
    the environment contradicts the table."""
    hosts = environment.get("MA_NUM_HOSTS")
    if hosts and hosts != str(len(servers)):
        raise UserError("MA_NUM_HOSTS is %s, but the rank table has %d server(s)" % (hosts, len(servers)))
    addresses = [environment[name] for name in ("MA_CURRENT_HOST_IP", "MA_CURRENT_IP")
                 if environment.get(name)]
    index = rank_table.index_of(servers, addresses)
    if index is None:
        task = environment.get("VC_TASK_INDEX", "")
        if not (core_binding.is_number(task) and int(task) < len(servers)):
            raise UserError("VC_TASK_INDEX must be in [0, %d), the servers of the rank table, got %r; and "
                            "none of them has MA_CURRENT_HOST_IP's address" % (len(servers), task))
        index = int(task)
    devices = environment.get("MA_NUM_GPUS")
    if devices and devices not in ("0", str(len(servers[index].devices))):
        raise UserError("MA_NUM_GPUS is %s, but the rank table gives this server %d device(s)"
                        % (devices, len(servers[index].devices)))
    return index
