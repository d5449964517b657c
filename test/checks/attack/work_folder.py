"""Attacks builds through their files: copies of interrupted ones, forged markers, links, texts that change or
take long, lengths that lie.

  python test/checks/attack/work_folder.py
"""
import contextlib
import glob
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import google_crc32c
from target import ROOT, Outcome

sys.path.insert(0, ROOT)
PATIENCE = 90                                  # seconds for what takes a few
OUTCOME = Outcome()


def command(module, *flags, limit_memory=0):
    """Status and standard error's lines of a command; a status of None when it does not end."""
    def limit():
        if limit_memory:
            resource.setrlimit(resource.RLIMIT_AS, (limit_memory, limit_memory))

    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", module, *flags], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limit)
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, []
    lines = errors.decode("utf-8", "replace").splitlines()
    return process.returncode, [line for line in lines if not line.startswith(("samples: ", "shards: "))]


def flags_for(text, out):
    return ["--input_file", text, "--output_dir", out, "--max_seq_length", "64", "--range_bytes", "20000",
            "--num_shards", "2", "--dupe_factor", "2", "--direct_num_workers", "1"]


def build(text, out):
    return command("etl.build_pretrain", *flags_for(text, out))


def interrupted(text, out):
    """A build that is killed as soon as its chunks are done."""
    stop = ("import os, sys\nfrom etl import build_pretrain\nbuild_pretrain._merge = lambda *_: os._exit(9)\n"
            "build_pretrain.main(sys.argv[1:])")
    subprocess.run([sys.executable, "-W", "ignore", "-c", stop, *flags_for(text, out)], cwd=ROOT,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)
    if not glob.glob(os.path.join(out, ".work", "*", "chunks", "*.json")):
        raise SystemExit("the build to be attacked left no work")


def shards(out):
    return {os.path.relpath(path, out): hashlib.sha256(open(path, "rb").read()).hexdigest()
            for path in glob.glob(os.path.join(out, "**", "*.tfrecord"), recursive=True)}


def state(folder):
    """Bytes and disk blocks of all files below a folder."""
    return {path: (hashlib.sha256(open(path, "rb").read()).hexdigest(), os.stat(path).st_blocks)
            for path in glob.glob(os.path.join(folder, "**", "*"), recursive=True) + glob.glob(
                os.path.join(folder, ".work", "**", "*"), recursive=True) if os.path.isfile(path)}


def copies(folder, text, good):
    """An interrupted build in a copy, a copy of hard links, and moved."""
    for name, copy in (("a copy", shutil.copy2), ("a copy of hard links", os.link), ("a moved folder", None)):
        original, other = os.path.join(folder, "original"), os.path.join(folder, "other")
        interrupted(text, original)
        if copy:
            shutil.copytree(original, other, copy_function=copy)
        else:
            os.rename(original, other)
        before = state(original)
        began = {path: os.stat(path).st_mtime_ns
                 for path in glob.glob(os.path.join(other, ".work", "*", "chunks", "*"))}
        status, errors = build(text, other)
        changed = [path for path, value in state(original).items() if before[path] != value] + [
            path for path in before if not os.path.exists(path)]
        OUTCOME.tell("a build resumed in " + name, status == 0 and shards(other) == good and not changed
                     and bool(began), "status %s, %d of the original's %d files changed, shards %s %s" % (
                         status, len(changed), len(before), "as ever" if shards(other) == good else "other",
                         errors[-1:] or ""))
        shutil.rmtree(original, ignore_errors=True)
        shutil.rmtree(other, ignore_errors=True)


def forgeries(victim):
    """(name, what it does to the extents of a marker)."""
    def every(place, value):
        def forge(extents):
            for extent in extents:
                extent[place % len(extent)] = value
        return forge

    def name_victim(extents):                  # wherever a path, or what one follows from, may stand
        for extent in extents:
            for place, value in enumerate(extent):
                if isinstance(value,
                              str) and value not in ("train", "eval") or place == 3 and len(extent) > 6:
                    extent[place] = victim
            if len(extent) == 6:               # with no record, nothing is read before 64 KiB are given back
                extent[3:] = [0, 65536, 0]
    return [("the victim's path", name_victim), ("an offset of -65536", every(4, -65536)),
            ("2^62 bytes", every(5, 1 << 62)), ("records as text", every(-1, "x")),
            ("a shard of 2^40", every(1, 1 << 40)), ("nothing", lambda extents: extents.clear()),
            ("lists in lists", every(0, [[[]]]))]


def markers(folder, text, good):
    out, victim, kept = (os.path.join(folder, name) for name in ("out", "victim", "kept"))
    interrupted(text, kept)
    for name, forge in forgeries(victim):
        with open(victim, "wb") as stream:
            stream.write(b"precious" * 16384)
        before = state(folder)[victim]
        shutil.copytree(kept, out)
        for path in glob.glob(os.path.join(out, ".work", "*", "chunks", "*.json")):
            with open(path) as stream:
                fields = json.load(stream)
            forge(fields["extents"])
            with open(path, "w") as stream:
                json.dump(fields, stream)
        status, errors = build(text, out)
        told = status == 1 and len(errors) == 1 and ".json: " in errors[0]
        intact = state(folder)[victim] == before
        OUTCOME.tell("a marker with " + name, intact and (told),
                     "victim %s, status %s: %s" % ("intact" if intact else "ZEROED", status,
                                                   "; ".join(errors)[-160:]))
        shutil.rmtree(out)
    links(folder, text, kept, victim)
    shutil.rmtree(kept)


def links(folder, text, kept, victim):
    """What leads out of the work folder, or never ends."""
    out, elsewhere = os.path.join(folder, "out"), os.path.join(folder, "elsewhere")
    for name in ("runs", "chunks", "shards", "", ".work"):
        shutil.copytree(kept, out)
        work, = glob.glob(os.path.join(out, ".work", "[0-9a-f]*[0-9a-f]"))
        path = os.path.join(out, ".work") if name == ".work" else os.path.join(work, name).rstrip("/")
        if os.path.isdir(path):
            os.rename(path, elsewhere)
        else:
            os.makedirs(elsewhere)
        os.symlink(elsewhere, path)
        with open(os.path.join(elsewhere, "mine"), "w") as stream:
            stream.write("mine")
        before = state(elsewhere)
        status, errors = build(text, out)
        held = status == 1 and len(errors) == 1 and "link" in errors[0] and state(elsewhere) == before
        OUTCOME.tell("a link in place of %s" % (name or "the work folder"), held,
                     "status %s: %s" % (status, "; ".join(errors)[-160:]))
        shutil.rmtree(elsewhere)
        shutil.rmtree(out)
    for name, make in (("a FIFO", os.mkfifo),
                       ("a link to /dev/zero", lambda path: os.symlink("/dev/zero", path))):
        shutil.copytree(kept, out)
        path = glob.glob(os.path.join(out, ".work", "*", "chunks", "*.json"))[0]
        os.remove(path)
        make(path)
        status, errors = command("etl.build_pretrain", *flags_for(text, out), limit_memory=8 << 30)
        OUTCOME.tell("%s in place of a marker" % name, status == 1 and len(errors) == 1,
                     "status %s: %s" % (status, "; ".join(errors)[-160:]))
        shutil.rmtree(out)


def strays(folder, text, good):
    """What others put into the folders neither fails a build nor goes with it."""
    out = os.path.join(folder, "out")
    interrupted(text, out)
    work, = glob.glob(os.path.join(out, ".work", "[0-9a-f]*[0-9a-f]"))
    paths = [os.path.join(out, ".work", name)
             for name in ("notes", ".DS_Store", "lost+found/x", "0123456789abcdef/x")]
    paths += [os.path.join(work, name) for name in ("notes", "runs/x", "chunks/x.tmp", "shards/x")] + [
        os.path.join(out, "tf_examples-mine.tfrecord"), os.path.join(out, "x.tmp-1")]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as stream:
            stream.write("mine")
    status, errors = build(text, out)
    gone = [path for path in paths if not os.path.exists(path)]
    OUTCOME.tell("strangers' files in the work folder", status == 0 and not gone and not errors,
                 "status %s, gone: %s %s" % (status, [os.path.relpath(path, out) for path in gone],
                                             errors[-1:] or ""))
    shutil.rmtree(out)


def changing_texts(folder, text):
    """A text that is cut, grows or is replaced while a build reads it."""
    big, out = os.path.join(folder, "big.txt"), os.path.join(folder, "out")
    content = open(text, "rb").read()
    for name in ("cut", "grown", "replaced"):
        with open(big, "wb") as stream:
            stream.write(content * 60)
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "etl.build_pretrain",
                                    *flags_for(big, out)],
                                   cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.time() + PATIENCE
        while not glob.glob(os.path.join(out, ".work", "*", "chunks", "*.json")) and time.time() < deadline:
            time.sleep(0.02)
        if name == "cut":
            os.truncate(big, len(content) * 50)
        elif name == "grown":
            with open(big, "ab") as stream:
                stream.write(content)
        else:
            with open(big + ".new", "wb") as stream:
                stream.write(content * 60)
            os.replace(big + ".new", big)
        try:
            _, errors = process.communicate(timeout=2 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        lines = [line for line in errors.decode().splitlines()
                 if not line.startswith(("samples: ", "shards: "))]
        OUTCOME.tell("a text that is %s while it is read" % name,
                     process.returncode == 1 and len(lines) == 1 and "big.txt" in lines[0],
                     "status %s: %s" % (process.returncode, "; ".join(lines)[-160:] or "nothing said"))
        shutil.rmtree(out, ignore_errors=True)
        os.remove(big)


SLOW = {"blanks": " \ufeff", "zero-width blanks": "\u200b\u3000", "letters": "a", "Han": "好",
        "combining marks": "a\u0301", "##": "##", "full stops": "。", "quotes": "”", "Han and Latin": "好a1."}


def slow_texts():
    """One line of 4 MB of the same: seconds of a quarter and of the whole, on the way to tokens; quadratic
    would be 16 to 1."""
    from etl.building.plan import BuildConfig
    from etl.samples.instances import tokenize_document
    from etl.text.documents import document_from_lines, split_sentences
    from etl.text.tokenization import load_tokenizer
    from etl.text.words import load_segmenter
    tokenizer, segmenter = load_tokenizer(BuildConfig().tokenizer_config), load_segmenter()

    def read(text):
        split_sentences(text)
        document = document_from_lines([text], 0, 0)
        if document:
            tokenize_document(document, tokenizer, segmenter)

    for name, piece in SLOW.items():
        seconds = [timed(read, piece * (size // len(piece.encode("utf-8")))) for size in (1 << 20, 4 << 20)]
        held = seconds[1] is not None and (seconds[1] < 1 or seconds[1] < 10 * max(seconds[0], 0.1))
        OUTCOME.tell("4 MB of " + name, held, "%s s for 1 MB, %s s for 4 MB" % tuple(
            "over %d" % PATIENCE if spent is None else "%.2f" % spent for spent in seconds))


def timed(function, *arguments):
    """CPU seconds of a call; None when it takes too long."""
    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    begin = time.process_time()
    try:
        function(*arguments)
        return time.process_time() - begin
    except TimeoutError:
        return None
    finally:
        signal.alarm(0)


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def lying_lengths(folder):
    path = os.path.join(folder, "x.tfrecord")
    for name, length, size in (("2^40 bytes", 1 << 40, 0), ("2^64 - 1 bytes", (1 << 64) - 1, 0),
                               ("2^40 bytes that are there, all zeros", 1 << 40, 1 << 41)):
        with open(path, "wb") as stream:
            stream.write(struct.pack("<Q", length) + masked_crc(struct.pack("<Q", length)) + b"abc")
            with contextlib.suppress(OSError):
                stream.truncate(size or stream.tell())
        status, errors = command("etl.show", path, "--vocab_file",
                                 os.path.join(ROOT, "albert_config", "vocab.txt"), limit_memory=6 << 30)
        OUTCOME.tell("a record of " + name, status == 1 and len(errors) == 1,
                     "status %s: %s" % (status, "; ".join(errors)[-160:]))


def names_that_are_none():
    """NUL and half surrogates as the value of every text flag of every command."""
    import argparse
    from etl.common import command_line
    fallen, tried = [], 0
    parse, configs = command_line.parse, {}
    for path in sorted(glob.glob(os.path.join(ROOT, "e*", "*.py"))
                       + glob.glob(os.path.join(ROOT, "serving", "*.py"))):
        if "\ndef main(" in open(path, encoding="utf-8").read():
            module = importlib.import_module(os.path.relpath(path, ROOT)[:-3].replace(os.sep, "."))
            command_line.parse = lambda *rest: configs.setdefault(
                module, rest[2]) and argparse.ArgumentParser().error("x")
            with contextlib.suppress(SystemExit), open(os.devnull,
                                                       "w") as null, contextlib.redirect_stderr(null):
                module.main([])
    command_line.parse = parse
    for module, config in configs.items():
        for field in config.__dataclass_fields__.values():
            if "str" in str(field.type) and not field.metadata["choices"]:
                for value in ("a\0b", "a\ud800"):
                    tried += 1
                    argv = [value] if field.metadata["positional"] else ["--" + field.name, value]
                    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
                        try:
                            status = module.main(argv)
                        except SystemExit as end:
                            status = end.code
                        except Exception as error:
                            status = repr(error)
                    if status not in (1, 2):
                        fallen.append("%s %r: %s" % (module.__name__, argv, status))
    OUTCOME.tell("NUL and half surrogates as flags", tried > 20 and not fallen,
                 "%d tried, %d fell %s" % (tried, len(fallen), fallen[:2]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        text, good = os.path.join(folder, "text.txt"), os.path.join(folder, "good")
        with open(text, "wb") as stream:
            for path in sorted(glob.glob(os.path.join(ROOT, "etl", "sample", "*.txt"))):
                stream.write(open(path, "rb").read() + b"\n\n")
        build(text, good)
        copies(folder, text, shards(good))
        markers(folder, text, shards(good))
        strays(folder, text, shards(good))
        changing_texts(folder, text)
        lying_lengths(folder)
    slow_texts()
    names_that_are_none()
    raise SystemExit(OUTCOME.status())


if __name__ == "__main__":
    main()
