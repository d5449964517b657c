"""The sample builder on a real Flink cluster: the bytes of the DirectRunner, whatever the environment and the
parallelism.

  python test/checks/flink.py --flink .venv-flink --data 'corpus/*.txt'

Starts one job manager and two task managers of Flink 1.16.3, in a network of its own that is nothing but
loopback and among processes of its own (Linux's unshare), so that the usual ports are free, nobody else
reaches them, and all ends with this command. Builds with the DirectRunner, then on the cluster: workers
started by task managers, by a pool and by the command; two at work and four; one task manager killed in the
middle, and the same command again; Ctrl-C, and another runner goes on; a user's mistake. Prints a row for
each and ends with status 1 where a byte differs or a process is left.
"""
import argparse
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT]

from etl.common.files import expand

JOB_SERVER = "org.apache.beam:beam-runners-flink-1.16-job-server:2.48.0"
DRIVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
CORPUS_BYTES = 20 * 10 ** 6
BUILD_FLAGS = ["--num_shards", "3", "--dupe_factor", "7"]  # enough for merging to be done on the cluster, too
BAD_DOCUMENT = b"ab\xff\n\n"
SLOTS = 2                                      # of each task manager
PATIENCE_SECONDS = 900                         # for task managers to come or go, on a busy machine
WORKER = os.path.join(os.path.dirname(sys.executable), "etl-worker")
# Java 17 hides from both, Flink and Beam, what they look into.
OPENED = ("lang", "lang.invoke", "lang.reflect", "util", "util.concurrent", "util.concurrent.atomic",
          "util.concurrent.locks", "net", "io", "nio", "text", "time")
JAVA_FLAGS = (["--add-exports=java.base/sun.net.util=ALL-UNNAMED",
               "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED"]
              + ["--add-opens=java.base/java.%s=ALL-UNNAMED" % package for package in OPENED])
# Flink's scripts, which the package lacks, would work out the sizes.
SETTINGS = {
    "jobmanager.rpc.address": "127.0.0.1", "jobmanager.bind-host": "127.0.0.1", "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1", "taskmanager.bind-host": "127.0.0.1", "taskmanager.host": "127.0.0.1",
    "jobmanager.memory.process.size": "1g", "taskmanager.numberOfTaskSlots": SLOTS,
    "taskmanager.cpu.cores": SLOTS, "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "0", "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.network.min": "64m", "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.framework.heap.size": "128m", "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m", "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "cluster.evenly-spread-out-slots": "true",
    # For machines so busy that all three stand still for a minute; one that is dead shows at once, since its
    # ports are closed.
    "heartbeat.timeout": 600000, "akka.ask.timeout": "600 s", "slot.request.timeout": 600000,
    "web.timeout": 600000}
OVERVIEW = "http://127.0.0.1:8081/overview"
ALONE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "etl", "sample", "*.txt"),
                        help="text; repeated where it is under 20 MB")
    parser.add_argument("--flink", required=True,
                        help="environment with apache-flink-libraries; job servers are put there, too")
    parser.add_argument("--folder", default=os.path.join(ROOT, "output", "check_flink"),
                        help="for corpus, builds and logs")
    parser.add_argument("--job_server_jar", help="for inside the network of its own")
    arguments = parser.parse_args()
    if not arguments.job_server_jar:
        jar = job_server_jar(os.path.abspath(arguments.flink))
        return subprocess.call(ALONE + [sys.executable] + sys.argv + ["--job_server_jar", jar])
    subprocess.check_call(["ip", "link", "set", "lo", "up"])
    folder = os.path.abspath(arguments.folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    make_corpus(arguments.data, os.path.join(folder, "corpus.txt"))
    cluster = Cluster(glob.glob(os.path.join(os.path.abspath(arguments.flink), "lib", "python3*",
                                             "site-packages", "pyflink"))[0], folder)
    try:
        return check(Builder(folder), cluster, arguments.job_server_jar)
    finally:
        cluster.stop()
        left = others()
        print("processes left: %d %s" % (len(left), "; ".join(left)))
        if left:
            raise SystemExit(1)


def job_server_jar(folder):
    """The job server, by Maven: as published, or where the registry lacks that, a jar that names its
    published parts."""
    jar = os.path.join(folder, "job_server", "%s-%s.jar" % tuple(JOB_SERVER.split(":")[1:]))
    if not os.path.exists(jar):
        run = subprocess.run(["mvn", "-q", "-B",
                              "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                              "-Dartifact=" + JOB_SERVER, "-DoutputDirectory=" + os.path.dirname(jar)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode:
            lines = [line for line in run.stdout.decode("utf-8", "replace").splitlines() if "ERROR" in line]
            print("Maven, asked for %s: %s"
                  % (JOB_SERVER, re.sub(r"\x1b\[\d*m", "", lines[0] if lines else "failed")))
            jar = os.path.join(folder, "job_server", "parts.jar")
    if not os.path.exists(jar):
        parts = os.path.join(os.path.dirname(jar), "parts")
        subprocess.run(["mvn", "-q", "-B", "-f", os.path.join(ROOT, "test", "checks", "flink_job_server.xml"),
                        "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
                        "-DincludeScope=runtime", "-DoutputDirectory=" + parts], check=True)
        with zipfile.ZipFile(jar + ".tmp", "w") as archive:
            archive.writestr("META-INF/MANIFEST.MF", manifest_of(sorted(os.listdir(parts))))
        os.rename(jar + ".tmp", jar)
    print("Job server: %s" % os.path.basename(jar), flush=True)
    return jar


def manifest_of(names):
    """A jar's manifest; its lines end after 72 bytes and go on behind a blank."""
    path = "Class-Path: " + " ".join("parts/" + name for name in names)
    folded = [path[:70]] + [" " + path[at:at + 69] for at in range(70, len(path), 69)]
    return "\r\n".join(["Manifest-Version: 1.0", "Main-Class: " + DRIVER] + folded) + "\r\n"


def make_corpus(pattern, path):
    """The text, as often as it takes, and one document that nobody can read."""
    text = b"\n\n".join(open(name, "rb").read().strip(b"\n") for name in expand([pattern], "data"))
    with open(path, "wb") as stream:
        while stream.tell() < CORPUS_BYTES:
            stream.write(text + b"\n\n")
        stream.write(BAD_DOCUMENT)
        stream.write(text[:text.index(b"\n\n")])


class Cluster:
    """A standalone Flink cluster on loopback, and what else is started beside it."""

    def __init__(self, home, folder):
        self._home, self._folder = home, folder
        self._processes = {}
        conf = os.path.join(folder, "conf")
        os.makedirs(conf)
        with open(os.path.join(conf, "flink-conf.yaml"), "w") as stream:
            stream.writelines("%s: %s\n" % setting for setting in SETTINGS.items())
        with open(os.path.join(conf, "log4j.properties"), "w") as stream:
            stream.write(
                "rootLogger.level = INFO\nrootLogger.appenderRef.out.ref = Out\nappender.out.name = Out\n"
                "appender.out.type = CONSOLE\nappender.out.layout.type = PatternLayout\n"
                "appender.out.layout.pattern = %d{HH:mm:ss} %-5p %c{1} %m%n\n")

    def start(self):
        self._start_java("job_manager",
                         "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint")
        for name in ("task_manager_1", "task_manager_2"):
            self.start_task_manager(name)
        self.await_task_managers(2)

    def start_task_manager(self, name):
        self._start_java(name, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner")

    def _start_java(self, name, main_class):
        conf = os.path.join(self._folder, "conf")
        command = ["java"] + JAVA_FLAGS + [
            "-Xmx512m", "-Dlog4j.configurationFile=" + os.path.join(conf, "log4j.properties"),
            "-cp", os.path.join(self._home, "lib", "*"), main_class, "--configDir", conf]
        self.start_process(name, command)

    def start_process(self, name, command):
        log = open(os.path.join(self._folder, name + ".log"), "ab")
        self._processes[name] = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                                                 stderr=log)

    def kill(self, name):
        self._processes[name].kill()
        self._processes.pop(name).wait()

    def await_task_managers(self, count):
        deadline = time.time() + PATIENCE_SECONDS
        while overview().get("taskmanagers") != count:
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            assert not dead and time.time() < deadline, "%s, not %d task managers; ended: %s" % (overview(),
                                                                                                 count, dead)
            time.sleep(0.5)

    def log(self, name):
        with open(os.path.join(self._folder, name + ".log"), errors="replace") as stream:
            return stream.read()

    def stop(self):
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()


def overview():
    try:
        with urllib.request.urlopen(OVERVIEW, timeout=5) as answer:
            return json.loads(answer.read().decode())
    except OSError:
        return {}


class Builder:
    """Builds of one corpus, and what they made."""

    def __init__(self, folder):
        self._folder = folder
        self.corpus = os.path.join(folder, "corpus.txt")

    def make_token(self):
        """A file with a secret for the pool."""
        path = os.path.join(self._folder, "token")
        with open(path, "w", opener=lambda name, mode: os.open(name, mode, 0o600)) as stream:
            stream.write(secrets.token_hex(32))
        return path

    def start(self, name, *flags):
        environment = dict(os.environ,
                           JDK_JAVA_OPTIONS=" ".join(JAVA_FLAGS))      # for the job server that Beam starts
        with open(os.path.join(self._folder, name + ".out"),
                  "wb") as out, open(os.path.join(self._folder, name + ".err"), "wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "etl.build_pretrain", "--input_file", self.corpus, "--output_dir",
                 os.path.join(self._folder, name), *BUILD_FLAGS, *flags], cwd=ROOT,
                env=environment, stdout=out, stderr=err,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

    def build(self, name, *flags):
        """Seconds that it took; what went wrong ends the check."""
        begin = time.time()
        status = self.start(name, "--max_bad_fraction", "0.01", *flags).wait()
        assert status == 0, "%s: status %d: %s" % (name, status, self.said(name))
        return time.time() - begin

    def said(self, name):
        """Lines on standard error."""
        with open(os.path.join(self._folder, name + ".err"), errors="replace") as stream:
            return stream.read().splitlines()

    def progress(self, name):
        """How many lines of progress it printed."""
        return sum(line.startswith("samples: ") for line in self.said(name))

    def finished(self, name):
        """Ranges that are done, of a build at work."""
        return len(glob.glob(os.path.join(self._folder, name, ".work", "*", "chunks", "*.json")))

    def made(self, name):
        """sha256 of shards and dead letters, and the counters."""
        out = os.path.join(self._folder, name)
        paths = glob.glob(os.path.join(out, "**", "*.tfrecord"),
                          recursive=True) + [os.path.join(out, "dead_letters", "bad_records.jsonl")]
        found = {os.path.relpath(path, out): hashlib.sha256(open(path, "rb").read()).hexdigest()
                 for path in paths}
        with open(os.path.join(out, "manifest.json")) as stream:
            found["counters"] = json.load(stream)["counters"]
        assert not os.path.exists(os.path.join(out, ".work")), "%s: .work is left" % out
        return found

    def left(self, name):
        return os.path.exists(os.path.join(self._folder, name))


def others():
    """Commands of all processes here but this one."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            command = open(path).read().replace("\0", " ").strip()
        except OSError:
            continue
        if command and int(path.split("/")[2]) != os.getpid():
            found.append(command[:80])
    return found


def check(builder, cluster, jar):
    """Prints what was seen; returns the exit status."""
    print("corpus: %.1f MB" % (os.path.getsize(builder.corpus) / 1e6))
    seconds = builder.build("direct", "--runner", "DirectRunner")
    wanted = builder.made("direct")
    print("%-58s %4.0f s: %d shards, %s samples" % ("DirectRunner", seconds,
                                                    sum(name.endswith("tfrecord") for name in wanted),
                                                   wanted["counters"]["train_samples"]), flush=True)
    cluster.start()
    print("cluster: %s" % overview(), flush=True)
    cluster.start_process("job_server", ["java"] + JAVA_FLAGS + ["-jar", jar, "--flink-master=127.0.0.1:8081",
                                                                 "--job-port=8099",
                                                                 "--artifact-port=0", "--expansion-port=-1"])
    token_file = builder.make_token()
    cluster.start_process("pool", [WORKER, "--listen", "127.0.0.1:50000", "--token_file", token_file])
    flink = ["--runner", "FlinkRunner", "--flink_master", "127.0.0.1:8081", "--flink_job_server_jar", jar]
    server = ["--runner", "PortableRunner", "--job_endpoint", "127.0.0.1:8099"]
    process = ["--environment_type", "PROCESS", "--environment_config", WORKER]
    pool = ["--environment_type", "EXTERNAL", "--environment_config", "127.0.0.1:50000",
            "--worker_token_file", token_file]
    failed = 0
    failed += on_the_cluster("process_2", flink + process + ["--parallelism", "2"], builder, wanted)
    failed += kill_a_task_manager(builder, cluster, wanted, flink + process + ["--parallelism", "2"])
    failed += mistake(builder, server + pool + ["--parallelism", "2"])
    failed += interrupt(builder, wanted, flink + process + ["--parallelism", "2"])
    failed += on_the_cluster("pool_4", server + pool + ["--parallelism", "4"], builder, wanted)
    failed += on_the_cluster("loopback_2", server + ["--parallelism", "2"], builder, wanted)
    return int(failed > 0)


def on_the_cluster(name, flags, builder, wanted):
    seconds = builder.build(name, *flags)
    return report(name, " ".join(flags).replace(ROOT + os.sep, ""), seconds, builder,
                  wanted) + (builder.progress(name) == 0)


def report(name, what, seconds, builder, wanted):
    found = builder.made(name)
    differing = sorted(key for key in set(found) | set(wanted) if found.get(key) != wanted.get(key))
    print("%s: %.0f s, %d lines of progress, %d of %d differ %s\n    %s"
          % (name, seconds, builder.progress(name), len(differing), len(wanted), " ".join(differing), what),
          flush=True)
    return len(differing)


def kill_a_task_manager(builder, cluster, wanted, flags):
    flags = ["--max_bad_fraction", "0.01"] + flags
    build = builder.start("killed", *flags)
    while builder.finished("killed") < 4:
        assert build.poll() is None, builder.said("killed")
        time.sleep(0.1)
    cluster.kill("task_manager_2")
    begin = time.time()
    status = build.wait()
    print("a task manager killed after %d of the ranges: %.0f s later the command ends with status %d: %s"
          % (builder.finished("killed"), time.time() - begin, status, builder.said("killed")[-1]), flush=True)
    cluster.await_task_managers(1)
    left = [command for command in others() if "--provision_endpoint" in command]
    print("workers that outlive it: %d" % len(left))
    done, begin = builder.finished("killed"), time.time()
    if status:
        status = builder.start("killed", *flags).wait()
        print("the same command again, on the other one: status %d, goes on behind %d ranges"
              % (status, done))
    cluster.start_task_manager("task_manager_2")
    cluster.await_task_managers(2)
    return len(left) + (report("killed", "the same command again", time.time() - begin, builder, wanted)
                        if status == 0 else 1)


def interrupt(builder, wanted, flags):
    """Ctrl-C takes the job back from the cluster; another runner goes on with what is done."""
    build = builder.start("interrupted", "--max_bad_fraction", "0.01", *flags)
    while builder.finished("interrupted") < 3:
        assert build.poll() is None, builder.said("interrupted")
        time.sleep(0.1)
    build.send_signal(signal.SIGINT)
    status, last, begin = build.wait(), builder.said("interrupted")[-1], time.time()
    while overview().get("jobs-running") and time.time() - begin < 60:
        time.sleep(0.2)
    running = overview().get("jobs-running")
    print("Ctrl-C: status %d: %s; jobs that run %.0f s later: %s"
          % (status, last, time.time() - begin, running), flush=True)
    seconds = builder.build("interrupted", "--runner", "DirectRunner")
    return int(status != 130 or running != 0) + report("interrupted", "then the DirectRunner", seconds,
                                                       builder, wanted)


def mistake(builder, flags):
    status = builder.start("mistake", *flags).wait()
    last = builder.said("mistake")[-1]
    print("without --max_bad_fraction: status %d: %s; output folder left: %s"
          % (status, last, builder.left("mistake")))
    return int(status != 1 or "corpus.txt: line " not in last or builder.left("mistake"))


if __name__ == "__main__":
    sys.exit(main())
