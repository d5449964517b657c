"""Where a build runs: on this machine or on an engine, with how many workers, and how these are started.

Only names and numbers, without Beam. Errors in the flags are reported before a job is submitted.
"""
import json
import os
import re
import shutil
import socket
import stat
import urllib.request
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from etl.common import json_text
from etl.common.command_line import UserError, flag, one_line

RUNNERS = ("DirectRunner", "FlinkRunner", "PortableRunner")
ENVIRONMENTS = ("LOOPBACK", "EXTERNAL", "PROCESS")  # not Beam's DOCKER: its containers see no shared folder
FLINK_VERSIONS = ("1.12", "1.13", "1.14", "1.15", "1.16")     # that Beam 2.48 has a job server for
PATIENCE_SECONDS = 10.0
MAX_ANSWER_BYTES = 1 << 20
JOB_SERVER_SECONDS = 86400  # a busy one may respond slowly; with Beam's own, it is the limit of a whole job
NO_EXPANSION = -1  # a job server's third port, which is not used here; it would listen on all addresses
TOKEN_PARAM = "etl_token"  # among the params of EXTERNAL, which engines hand to the pool as they are
TOKEN = re.compile(r"[!-~]{16,1000}")
ADDRESS = re.compile(r"([^/:\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}")

_CONFIGS = {"EXTERNAL": "HOST:PORT of the worker pools, as each host sees its own",
            "PROCESS": "path of etl-worker on each host"}


@dataclass(frozen=True)
class ClusterConfig:
    """Which runner, and its workers: `direct_…` is only for the DirectRunner, the rest for all others."""
    runner: str = flag("DirectRunner", "DirectRunner: this machine; FlinkRunner: a Flink cluster; "
                       "PortableRunner: any engine with a Beam job server", RUNNERS)
    direct_num_workers: int = flag(
        0, "processes of the DirectRunner; 0: one per core, if the input is large enough")
    direct_running_mode: Optional[str] = flag(
        None, "in_memory or multi_processing; default: by the number of workers")
    parallelism: Optional[int] = flag(None, "ranges processed at once on a cluster, each in its own process")
    flink_master: Optional[str] = flag(
        None, "HOST:PORT of a Flink cluster's web page; Beam's job server is started here, with java")
    flink_job_server_jar: Optional[str] = flag(
        None, "the jar of that job server; by default Beam downloads the one for the cluster's version")
    job_endpoint: Optional[str] = flag(None, "HOST:PORT of a running job server, instead of flink_master")
    environment_type: Optional[str] = flag(None, "what starts workers on a cluster. LOOPBACK (the default): "
                                           "this command, when all runs on one host; EXTERNAL: a pool on "
                                           "each host; PROCESS: the engine", ENVIRONMENTS)
    environment_config: Optional[str] = flag(None,
                                             "EXTERNAL: HOST:PORT of the pools; PROCESS: path of etl-worker")
    worker_token_file: Optional[str] = flag(None, "EXTERNAL: file with the secret of the pools, the one "
                                            "in their token_file; anyone who sees the job's options sees "
                                            "the secret")

    def __post_init__(self) -> None:
        self._check_direct()
        if self.runner == "DirectRunner":
            for name, value in vars(self).items():
                if name != "runner" and not name.startswith("direct_") and value is not None:
                    raise ValueError("%s is for FlinkRunner and PortableRunner, got runner DirectRunner"
                                     % name)
        else:
            self._check_engine()
            self._check_environment()

    def _check_direct(self) -> None:
        if self.direct_num_workers < 0:
            raise ValueError("direct_num_workers must be at least 0, got %d" % self.direct_num_workers)
        if self.direct_running_mode == "multi_threading":
            raise ValueError("direct_running_mode multi_threading silently loses elements in Beam 2.48: use "
                             "multi_processing or in_memory")
        if self.direct_running_mode not in (None, "in_memory", "multi_processing"):
            raise ValueError("direct_running_mode must be in_memory or multi_processing, got %s"
                             % self.direct_running_mode)
        if self.direct_running_mode == "in_memory" and self.direct_num_workers > 1:
            raise ValueError("direct_running_mode in_memory has one worker, got direct_num_workers %d"
                             % self.direct_num_workers)
        if self.runner != "DirectRunner" and (self.direct_num_workers or self.direct_running_mode):
            raise ValueError("direct_num_workers and direct_running_mode are for DirectRunner, got runner "
                             "%s; use parallelism" % self.runner)

    def _check_engine(self) -> None:
        if self.runner == "PortableRunner" and not self.job_endpoint:
            raise ValueError("runner PortableRunner needs job_endpoint, HOST:PORT of the engine's job server")
        if self.runner == "PortableRunner" and (self.flink_master or self.flink_job_server_jar):
            raise ValueError("flink_master and flink_job_server_jar are for FlinkRunner, got runner "
                             "PortableRunner")
        if not self.job_endpoint and not self.flink_master:
            raise ValueError("runner FlinkRunner needs flink_master, HOST:PORT of the cluster's web page, or "
                             "job_endpoint, HOST:PORT of a running job server")
        if self.job_endpoint and (self.flink_master or self.flink_job_server_jar):
            raise ValueError("the job server at job_endpoint has its own cluster: omit flink_master and "
                             "flink_job_server_jar")
        for name in ("job_endpoint", "flink_master"):
            value = getattr(self, name)
            if value and not ADDRESS.fullmatch(value):
                raise ValueError("%s must be HOST:PORT, got %s" % (name, value))
        if not self.parallelism or self.parallelism < 1:
            raise ValueError("runner %s needs parallelism of at least 1, the number of ranges processed at "
                             "once, got %s" % (self.runner, self.parallelism))

    def _check_environment(self) -> None:
        wanted = _CONFIGS.get(self.environment)
        if bool(wanted) != bool(self.environment_config):
            raise ValueError(
                "environment_type %s needs environment_config: %s" % (self.environment, wanted) if wanted else
                "environment_type LOOPBACK takes no environment_config, got %s" % self.environment_config)
        if self.environment == "EXTERNAL" and not ADDRESS.fullmatch(str(self.environment_config)):
            raise ValueError("environment_config must be HOST:PORT for environment_type EXTERNAL, got %s"
                             % self.environment_config)
        if self.worker_token_file and self.environment != "EXTERNAL":
            raise ValueError("worker_token_file is for environment_type EXTERNAL, got environment_type %s"
                             % self.environment)

    @property
    def environment(self) -> str:
        """How workers are started; by default by the command itself."""
        return self.environment_type or "LOOPBACK"

    @property
    def place(self) -> str:
        """`FlinkRunner at 10.0.0.1:8081, parallelism 16`, for messages."""
        return "%s at %s, parallelism %s" % (self.runner, self.job_endpoint or self.flink_master,
                                             self.parallelism)

    def beam_options(self, flink_version: Optional[str]) -> Tuple[str, ...]:
        """Beam's own flags. Each slot gets its own worker process, since Python's threads share one core.

        Raises UserError if there is no token in its file.
        """
        if self.runner == "DirectRunner":
            return ()
        environment_config = self.environment_config
        if self.environment == "PROCESS":
            environment_config = json.dumps({"command": environment_config})
        if self.worker_token_file:
            environment_config = external_environment(str(environment_config),
                                                      read_token(self.worker_token_file, "worker_token_file"))
        given = {"job_endpoint": self.job_endpoint, "flink_master": self.flink_master,
                 "flink_version": flink_version,
                 "flink_job_server_jar": self.flink_job_server_jar, "parallelism": self.parallelism,
                 "sdk_worker_parallelism": self.parallelism, "environment_type": self.environment,
                 "environment_config": environment_config, "job_server_timeout": JOB_SERVER_SECONDS,
                 "expansion_port": NO_EXPANSION if self.flink_master else None}
        return tuple("--%s=%s" % (name, value) for name, value in given.items() if value is not None)


@dataclass(frozen=True)
class RunnerConfig:
    """Which Beam runner, and where it writes its output.

    Attributes:
      num_workers: processes, of the DirectRunner.
      options: Beam's flags for the engine; there are none for the DirectRunner, and always some for others.
      shared_folder: a folder, created by this command, that every worker must see.
      socket_folder: folder of the sockets of the DirectRunner's workers; `run_map` creates it.
    """
    runner: str
    num_workers: int
    log_path: str = os.devnull
    options: Tuple[str, ...] = ()
    shared_folder: Optional[str] = None
    socket_folder: Optional[str] = None


def external_environment(address: str, token: str) -> str:
    """Beam's configuration of EXTERNAL for a pool that requires a token, which shows in the job's options."""
    return json.dumps({"url": address, "params": {TOKEN_PARAM: token}})


def read_token(path: str, flag_name: str) -> str:
    """The secret shared by a pool and the commands that use it. Raises UserError, without the secret, for an
    invalid one."""
    if not os.path.isfile(path):
        raise UserError("--%s: no such file: %s" % (flag_name, path))
    if os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UserError("--%s: %s: every user of this host can read or write it: chmod 600"
                        % (flag_name, path))
    with open(path, "rb") as stream:
        token = stream.read(1 << 20).decode("latin-1").strip()
    if not TOKEN.fullmatch(token):
        raise UserError("--%s: %s must hold one word of 16 to 1000 printable ASCII characters, got %d "
                        "characters; openssl rand -hex 32 makes one" % (flag_name, path, len(token)))
    return token


def reach(config: ClusterConfig) -> Optional[str]:
    """Makes sure that the engine answers. Returns the version of Flink, if known.

    Raises UserError if nothing answers, if Beam has no job server for that Flink, or if there is no Java to
    run that server.
    """
    if config.job_endpoint:
        _connect(config.job_endpoint)
    if not config.flink_master:
        return None
    if not shutil.which("java"):
        raise UserError("--flink_master: java is not on PATH, and Beam's job server for Flink needs it; or "
                        "name one that runs elsewhere with --job_endpoint")
    if config.flink_job_server_jar and not os.path.isfile(config.flink_job_server_jar):
        raise UserError("--flink_job_server_jar: no such file: %s" % config.flink_job_server_jar)
    found = str(_overview(config.flink_master).get("flink-version"))
    version = ".".join(found.split(".")[:2])
    if version not in FLINK_VERSIONS:
        raise UserError("--flink_master: %s runs Flink %s, Beam 2.48 works with %s to %s"
                        % (config.flink_master, found, FLINK_VERSIONS[0], FLINK_VERSIONS[-1]))
    return version


def prepare_grpc() -> None:
    """Prepares a process in which Beam uses gRPC, and its children; must be called before gRPC is imported.

    gRPC's fork handler occasionally waits for ever in the child (seen with 1.62.3: once in 5,000 forks under
    load), which then never runs its program; its parent waits, too.

    And gRPC uses `http_proxy` for everything not in `no_proxy`, including 127.0.0.1. A build connects to this
    host or a cluster, which an outward proxy does not know. Empty means none.
    """
    os.environ.update(GRPC_ENABLE_FORK_SUPPORT="0", grpc_proxy="")


def _connect(address: str) -> None:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError("--job_endpoint: no job server answers at %s: %s" % (address, one_line(error)))


def _overview(address: str) -> Dict[str, Any]:
    # an outward proxy does not know it
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open("http://%s/overview" % address, timeout=PATIENCE_SECONDS) as answer:
            overview = json_text.loads(answer.read(MAX_ANSWER_BYTES))
            return overview if isinstance(overview, dict) else {}
    except (OSError, ValueError) as error:
        reason = one_line(getattr(error, "reason", error)
                          if isinstance(getattr(error, "reason", None), Exception) else error)
        raise UserError("--flink_master: no Flink answers at %s: %s" % (address, reason))
