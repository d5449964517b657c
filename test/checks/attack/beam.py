"""A stranger at a build's and a pool's ports: from a second address (a network namespace), and as another
user of this host.

Run as root. The strangers pose as a worker of the build, ask each of its ports for what Beam's services give,
and ask pools for workers. Each build must end well, with the bytes of an undisturbed one.
"""
import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time

from target import FOLDER, ROOT, Outcome

sys.path.insert(0, os.path.join(ROOT, "test", "helpers"))

import listening
from job_service import job_service

WORK = os.path.join(FOLDER, "beam")
BUILD_FLAGS = ["--max_seq_length", "64", "--dupe_factor", "60", "--range_bytes", "3000", "--num_shards", "2"]
NOBODY = 65534
HERE, THERE, HERE_V6, THERE_V6 = "198.18.201.1", "198.18.201.2", "fd77:7::1", "fd77:7::2"
PATIENCE_SECONDS = 60
BUILD_SECONDS = 120
SHUT = {"UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED"}


def main() -> int:
    if os.getuid():
        raise SystemExit("beam.py makes a network namespace and asks as the user nobody: run it as root")
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    outcome = Outcome()
    try:
        with second_address() as namespace, Stranger(
                ["ip", "netns", "exec", namespace]) as outsider, Stranger([], NOBODY) as neighbour:
            strangers = (("outsider", [HERE, "[%s]" % HERE_V6], outsider),
                         ("another user", ["127.0.0.1", "[::1]"], neighbour))
            ports, wanted = undisturbed()
            outcome.tell("a build of one process listens nowhere", not ports, told(ports))
            processes(outcome, strangers, wanted)
            engine(outcome, strangers, wanted)
            pools(outcome, strangers)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return outcome.status()


@contextlib.contextmanager
def second_address():
    """A network namespace on the other end of a cable: from there, this host is HERE."""
    name, cable = "etl-attack-%d" % os.getpid(), "etla%d" % os.getpid()
    inside = ["ip", "netns", "exec", name, "ip"]
    try:
        for command in (
                ["ip", "netns", "add", name],
                ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name],
                ["ip", "addr", "add", HERE + "/30", "dev", cable],
                ["ip", "addr", "add", HERE_V6 + "/64", "dev", cable, "nodad"],
                ["ip", "link", "set", cable, "up"], inside + ["addr", "add", THERE + "/30", "dev", "eth0"],
                inside + ["addr", "add", THERE_V6 + "/64", "dev", "eth0", "nodad"],
                inside + ["link", "set", "eth0", "up"],
                inside + ["link", "set", "lo", "up"]):     # else gRPC believes that there is no IPv6
            subprocess.run(command, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", cable],
                       stderr=subprocess.DEVNULL)    # the kernel may take a while by itself


class Stranger:
    """A process somewhere else that does what it is asked to: `ask` gives it targets and returns what
    each answered."""

    def __init__(self, prefix, user=0):
        self._command = [*prefix, sys.executable, os.path.abspath(__file__), "stranger", str(user)]

    def __enter__(self):
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_proxy")}
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, env=environment)
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def ask(self, call, targets, **details):
        """{target: what it answered}: a status of gRPC's, or `answered`, or `waits` for a call that was
        taken on."""
        self._process.stdin.write((json.dumps([call, targets, details]) + "\n").encode())
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline().decode())


def be_a_stranger(user):
    """Asks what each line of stdin says. What root alone can read is imported before the user changes."""
    import grpc
    from apache_beam.portability.api import (beam_artifact_api_pb2, beam_artifact_api_pb2_grpc,
                                             beam_fn_api_pb2, beam_fn_api_pb2_grpc,
                                             beam_provision_api_pb2, beam_provision_api_pb2_grpc)
    grpc.insecure_channel("127.0.0.1:1").close()
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    me = [("worker_id", "worker_1")]

    def pose(channel, _):
        """The calls of a worker; the first that is let in counts."""
        def stream(call, *requests):
            return lambda: next(iter(call(iter(requests), metadata=me, timeout=2)), None)
        fn, wait = beam_fn_api_pb2_grpc, beam_fn_api_pb2.Elements()
        yield lambda: beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=me, timeout=2)
        yield lambda: beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel).ResolveArtifacts(
            beam_artifact_api_pb2.ResolveArtifactsRequest(), metadata=me, timeout=2)
        yield stream(fn.BeamFnStateStub(channel).State,
                     beam_fn_api_pb2.StateRequest(id="1", get=beam_fn_api_pb2.StateGetRequest()))
        yield stream(fn.BeamFnLoggingStub(channel).Logging, beam_fn_api_pb2.LogEntry.List())
        yield stream(fn.BeamFnDataStub(channel).Data, wait)
        yield stream(fn.BeamFnControlStub(channel).Control,
                     beam_fn_api_pb2.InstructionResponse(instruction_id="1"))

    def start_worker(channel, params):
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="worker_1", params=params)
        request.provision_endpoint.url = "127.0.0.1:1"
        yield lambda: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel).StartWorker(request,
                                                                                             timeout=10)

    def outcome_of(call):
        try:
            call()
            return "answered"
        except grpc.RpcError as error:
            return {"DEADLINE_EXCEEDED": "waits"}.get(error.code().name, error.code().name)

    print("ready", flush=True)
    for line in sys.stdin:
        call, targets, details = json.loads(line)
        answers = {}
        for target in targets:
            with grpc.insecure_channel(target) as channel:
                for attempt in {"pose": pose, "start_worker": start_worker}[call](channel, details):
                    answers[target] = outcome_of(attempt)
                    if answers[target] in ("answered", "waits", *SHUT):
                        break
        print(json.dumps(answers), flush=True)


class Build:
    """A build of the shipped text, at work until the block ends."""

    def __init__(self, name, *flags):
        self.folder = os.path.join(WORK, name)
        command = [sys.executable, "-m", "etl.build_pretrain", "--output_dir", self.folder, *BUILD_FLAGS,
                   *flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()           # what it started ends with it
        self.process.communicate()

    def await_chunk(self):
        """Returns when workers are at work: the first range is done. Gives their processes."""
        deadline = time.time() + PATIENCE_SECONDS
        while not glob.glob(os.path.join(self.folder, ".work", "*", "chunks", "*.json")):
            assert (self.process.poll() is None
                    and time.time() < deadline), "%s: no range was built" % self.folder
            time.sleep(0.05)
        return listening.below(self.process.pid)

    def shards(self):
        """sha256 of each shard, at the end; what went wrong instead, if anything did."""
        try:
            errors = self.process.communicate(timeout=BUILD_SECONDS)[1]
        except subprocess.TimeoutExpired:
            return "still at work after %d s" % BUILD_SECONDS
        if self.process.returncode:
            return "status %d: %s" % (self.process.returncode, errors.decode()[-300:])
        return {os.path.relpath(path, self.folder): hashlib.sha256(open(path, "rb").read()).hexdigest()
                for path in glob.glob(os.path.join(self.folder, "**", "*.tfrecord"), recursive=True)}


def undisturbed():
    with Build("undisturbed", "--direct_num_workers", "1") as build:
        ports = listening.listening(build.await_chunk())
        return ports, build.shards()


def processes(outcome, strangers, wanted):
    """The DirectRunner with two worker processes."""
    with Build("two_processes", "--direct_num_workers", "2") as build:
        workers = build.await_chunk()
        ports, sockets = listening.listening(workers), listening.unix_sockets(workers)
        outcome.tell("a build of two processes listens at no TCP port", not ports, told(ports))
        for who, hosts, stranger in strangers:
            pose(outcome, "a build of two processes", who, hosts, ports, stranger)
        answers = strangers[1][2].ask("pose", ["unix:" + path for path in sockets])
        let_in = let_in_by(answers)
        outcome.tell("another user poses as worker_1 at its Unix sockets", not let_in,
                     "%d sockets, let in by %d" % (len(sockets), len(let_in)))
        found = build.shards()
        outcome.tell("the build ends with the bytes of an undisturbed one", found == wanted, told_of(found))


def engine(outcome, strangers, wanted):
    """An engine on this host, whose workers the command starts."""
    with job_service(WORK) as address, Build("engine", "--runner", "PortableRunner", "--job_endpoint",
                                             address, "--parallelism", "1") as build:
        ports = listening.listening(build.await_chunk())
        local = all(port.startswith(("127.", "[::1]")) for port in ports)
        outcome.tell("LOOPBACK: the command listens at loopback alone", local, told(ports))
        for who, hosts, stranger in strangers:
            ask_for_worker(outcome, "LOOPBACK", who, hosts, ports, stranger)
        found = build.shards()
        outcome.tell("LOOPBACK: the build ends with the bytes of an undisturbed one", found == wanted,
                     told_of(found))


def pools(outcome, strangers):
    token = secrets.token_hex(16)
    token_file = os.path.join(WORK, "token")
    with open(token_file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(token)
    with pool("0.0.0.0:0") as (process, ports):
        outcome.tell("a pool on all addresses without a token does not start",
                     process.returncode not in (0, None), told(ports))
        if ports:
            ask_for_worker(outcome, "that pool", *strangers[0][:2], ports, strangers[0][2])
    with pool("127.0.0.1:0") as (process, ports):
        ask_for_worker(outcome, "a pool on loopback", *strangers[0][:2], ports, strangers[0][2])
    with pool("0.0.0.0:0", "--token_file", token_file) as (process, ports):
        for who, hosts, stranger in strangers:
            ask_for_worker(outcome, "a pool with a token, asked without", who, hosts, ports, stranger)
            ask_for_worker(outcome, "a pool with a token, asked with another", who, hosts, ports, stranger,
                           etl_token="0" * len(token))
        started = len(listening.below(process.pid)) - 1
        outcome.tell("no worker has been started for them", bool(ports) and not started, "%d" % started)
        answers = strangers[0][2].ask("start_worker", targets_of(strangers[0][1], ports), etl_token=token)
        outcome.tell("who has the token gets workers", set(answers.values()) == {"answered"}, str(answers))


@contextlib.contextmanager
def pool(address, *flags):
    """A pool at work, and its ports; or one that has ended, and none."""
    process = subprocess.Popen([sys.executable, "-m", "etl.beam.worker", "--listen", address, *flags],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdout.readline()              # nothing, when it ends
        ports = listening.listening([process.pid])
        if not ports:
            process.wait(PATIENCE_SECONDS)
        yield process, ports
    finally:
        process.terminate()
        process.communicate()


def pose(outcome, what, who, hosts, ports, stranger):
    let_in = let_in_by(stranger.ask("pose", targets_of(hosts, ports)))
    outcome.tell("%s: %s poses as worker_1" % (what, who), not let_in,
                 "%d ports, let in by %d" % (len(ports), len(let_in)))


def ask_for_worker(outcome, what, who, hosts, ports, stranger, **params):
    answers = stranger.ask("start_worker", targets_of(hosts, ports), **params)
    outcome.tell("%s: %s asks for a worker" % (what, who), bool(ports) and set(answers.values()) <= SHUT,
                 ", ".join("%s %s" % item for item in sorted(answers.items())))


def targets_of(hosts, ports):
    return ["%s:%s" % (host, port.rsplit(":", 1)[1]) for host in hosts for port in ports]


def let_in_by(answers):
    return sorted(target for target, answer in answers.items() if answer not in SHUT)


def told(ports):
    return " ".join(ports) or "none"


def told_of(found):
    return "%d shards" % len(found) if isinstance(found, dict) else found


if __name__ == "__main__":
    if sys.argv[1:2] == ["stranger"]:
        be_a_stranger(int(sys.argv[2]))
    else:
        raise SystemExit(main())
