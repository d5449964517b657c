"""Lists of checkpoints that name what lies elsewhere, other people's temporary files, and half a best/: does
anything go that should stay?

Trainings go on in folders whose `checkpoint` file was forged in many ways, by pretraining, by fine-tuning and
on the stand-in for an NPU; everything beside the folder must be as it was, and a command that refuses must do
so in one line.

  python test/checks/attack/checkpoints.py
"""
import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile

from target import ROOT, Outcome

HELPERS, STAND_IN = os.path.join(ROOT, "test", "helpers"), os.path.join(ROOT, "test", "npu_stand_in")
WAYS = ("pretrain", "finetune", "npu")
OTHERS_FILES = ("notes.tmp", "thesis.tmp.docx", "run_config.json.tmp-1", "model.ckpt-5.tar.gz", "notes.meta")

# What the list says beside the newest, model.ckpt-5; {} is the folder that holds `run` and `victim`.
OLDER = ["{}/victim/model.ckpt-3", "../victim/model.ckpt-3", "../run/../victim/model.ckpt-3",
         "{}/victim/model.ckpt-5", "{}/victim/notes", "{}/link/model.ckpt-3", "../victim/model.ckpt-*",
         "{}/victim/*", "{}/victim/model.ckpt-[0-9]", "{}/victim/model.ckpt-?", "{}/victim", "../victim/",
         "D:\\\\victim\\\\model.ckpt-3", "..\\\\victim\\\\model.ckpt-3", "{}/victim\\\\model.ckpt-3", "",
         "..", "link.ckpt-4", "{}/victim/model.ckpt-3\\nx", "\\303\\050", "model.ckpt-1"]
NEWEST = ["{}/victim/model.ckpt-5", "../victim/model.ckpt-5", "{}/victim/model.ckpt-3",
          "D:\\\\bert\\\\out\\\\model.ckpt-5", "/moved/model.ckpt-5", "{}/victim/model.ckpt-*"]
FOR_EVERY_WAY = ("older {}/victim/model.ckpt-3", "older {}/victim/model.ckpt-5",
                 "older ../victim/model.ckpt-*",
                 "newest {}/victim/model.ckpt-5", "newest D:\\\\bert\\\\out\\\\model.ckpt-5")
# What these mean lies beside the list.
MUST_GO_ON = ("older {}/victim/model.ckpt-5", "older model.ckpt-1", "older link.ckpt-4",
              "newest {}/victim/model.ckpt-5", "newest ../victim/model.ckpt-5",
              "newest D:\\\\bert\\\\out\\\\model.ckpt-5", "newest /moved/model.ckpt-5")


def forged(way):
    """Lists by name; all of them for one way, since the others meet them in the same functions."""
    lists = {"older %s" % path: ["model.ckpt-5", path, "model.ckpt-5"] for path in OLDER}
    lists.update({"newest %s" % path: [path, path] for path in NEWEST})
    lists["2,000 entries elsewhere"] = ["model.ckpt-5"] + ["{}/victim/model.ckpt-%d" % step
                                                           for step in range(2000)]
    return lists if way == "pretrain" else {name: paths for name, paths in lists.items()
                                            if name in FOR_EVERY_WAY}


def write_list(folder, paths):
    root = os.path.dirname(folder)
    with open(os.path.join(folder, "checkpoint"), "w", encoding="utf-8") as stream:
        stream.write('model_checkpoint_path: "%s"\n' % paths[0].replace("{}", root))
        stream.writelines('all_model_checkpoint_paths: "%s"\n' % path.replace("{}", root)
                          for path in paths[1:])


def snapshot(folder):
    """All that lies in `folder`: by path a file's hash, a link's target."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(place, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as stream:
                    found[path] = hashlib.sha256(stream.read()).hexdigest()
            else:
                found[path] = "folder"
    return found


def commands(way, root):
    """Flags of a training into root/run for so many steps, as a function; writes what it reads."""
    import pretrained
    import tiny_training
    common = ["--train_batch_size", "8", "--eval_batch_size", "4", "--save_checkpoints_steps", "1",
              "--keep_checkpoint_max", "1", "--log_steps", "100", "--output_dir", os.path.join(root, "run"),
              "--allow_changes", "--backend", "npu" if way == "npu" else "cpu"]
    if way == "npu":
        common += ["--iterations_per_loop", "1"]
    if way == "finetune":
        from estimator import finetune
        os.makedirs(os.path.join(root, "task"))
        for part in ("train", "dev"):
            with open(os.path.join(root, "task", part + ".tsv"), "w", encoding="utf-8") as stream:
                stream.writelines("%s\t%s\t%d\n" % (tiny_training.WORDS[i % 15],
                                                    tiny_training.WORDS[(i + i % 2) % 15], 1 - i % 2)
                                  for i in range(40))
        os.makedirs(os.path.join(root, "pretrained"))
        import pathlib
        pretrained.write_pretrained(pathlib.Path(root) / "pretrained")
        return lambda epochs: finetune.main(common + [
            "--data_dir", os.path.join(root, "task"), "--init_checkpoint", os.path.join(root, "pretrained"),
            "--max_seq_length", "8",
            "--num_train_epochs", str(epochs), "--do_train", "true", "--do_eval", "true"])
    from estimator import pretrain
    tiny_training.write_build(os.path.join(root, "data"), num_train=80, num_eval=5)
    tiny_training.write_config(os.path.join(root, "config.json"))
    return lambda epochs: pretrain.main(common + [
        "--input_file", os.path.join(root, "data"), "--albert_config_file", os.path.join(root, "config.json"),
        "--num_train_steps",
        str(5 * epochs), "--num_warmup_steps", "0", "--do_train", "true", "--do_eval", "true"])


def quietly(command, *arguments):
    """Exit status, standard output and standard error of a command's main."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = command(*arguments)
        except BaseException as error:         # a traceback, to a user
            return -1, out.getvalue(), repr(error)
    return status, out.getvalue(), errors.getvalue()


def attack(way):
    """All forged lists against one way of training."""
    outcome, root = Outcome(), tempfile.mkdtemp(prefix="check-attack-")
    try:
        run, kept = os.path.join(root, "run"), os.path.join(root, "kept")
        train = commands(way, root)
        status, _, errors = quietly(train, 1)
        if status:
            raise SystemExit("the first training failed: " + errors)
        shutil.copytree(run, kept)
        made_victim(root, run)
        for name, paths in forged(way).items():
            shutil.rmtree(run)
            shutil.copytree(kept, run)
            prepare(run)
            write_list(run, paths)
            before = {path: value for path, value in snapshot(root).items()
                      if not path.startswith(run + os.sep)}
            status, _, errors = quietly(train, 2)
            after = {path: value for path, value in snapshot(root).items()
                     if not path.startswith(run + os.sep)}
            gone = [os.path.relpath(path, root) for path in before if after.get(path) != before[path]]
            lost = [file for file in OTHERS_FILES if not os.path.exists(os.path.join(run, file))]
            clean = status == 0 or (status == 1 and errors.count("\n") == 1 and name not in MUST_GO_ON)
            too_many = status == 0 and len([file for file in os.listdir(run) if file.startswith("model.ckpt-")
                                            and file.endswith(".index")]) > 1
            outcome.tell("%s, %s" % (way, name), not gone and not lost and clean and not too_many,
                         "status %s%s%s%s%s" % (
                             status, "; gone elsewhere: %s" % ", ".join(gone[:4]) if gone else "",
                             "; others' files gone: %s" % ", ".join(lost) if lost else "",
                             "" if clean else "; said: " + errors[-150:].replace("\n", " "),
                             "; more than --keep_checkpoint_max 1" if too_many else ""))
        if way == "finetune":
            half_a_best(outcome, run, kept)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return outcome.status()


def made_victim(root, run):
    """Another training's checkpoints, and what else TensorFlow might remove, beside the folder that is
    trained in."""
    victim = os.path.join(root, "victim")
    os.makedirs(victim)
    for step in (3, 5):
        for file in os.listdir(run):
            if file.startswith("model.ckpt-5."):
                shutil.copy(os.path.join(run, file), os.path.join(victim, file.replace("-5.", "-%d." % step)))
    for file in ("notes", "notes.index", "notes.meta", "notes.data-00000-of-00001"):
        with open(os.path.join(victim, file), "w") as stream:
            stream.write("mine")
    os.symlink(victim, os.path.join(root, "link"))


def prepare(run):
    """Others' files with names like ours, a folder of such a name, a checkpoint that is a link."""
    for file in OTHERS_FILES:
        with open(os.path.join(run, file), "w") as stream:
            stream.write("mine")
    os.makedirs(os.path.join(run, "folder.tmp"))
    for ending in (".index", ".data-00000-of-00001"):
        os.symlink(os.path.join("..", "victim", "model.ckpt-3" + ending),
                   os.path.join(run, "link.ckpt-4" + ending))


def half_a_best(outcome, run, kept):
    """An export of a folder whose best/ was half copied takes the newest and says so, or refuses in
    one line."""
    from serving import export
    output = os.path.join(os.path.dirname(run), "export")
    cut = {"no list": ["checkpoint"], "no list, and half of the values": ["checkpoint", "half"],
           "half of the values": ["half"], "no index": ["index"], "another vocabulary": ["vocab.txt"]}
    for version, (name, changes) in enumerate(cut.items(), 1):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        best = os.path.join(run, "best")
        for file in sorted(os.listdir(best)):
            path = os.path.join(best, file)
            if file in changes or ("index" in changes and file.endswith(".index")):
                os.remove(path)
            elif "half" in changes and ".data-" in file:
                os.truncate(path, os.path.getsize(path) // 2)
        status, out, errors = quietly(export.main, ["--checkpoint_dir", run, "--output_dir", output,
                                                    "--version", str(version)])
        newest = (status == 0 and "Exported %s" % os.path.join(run, "model.ckpt-") in out
                  and "best was not finished" in out)
        refused = status == 1 and errors.count("\n") == 1 and "cannot be read" not in errors
        outcome.tell("half a best/: " + name, newest or refused,
                     (out if newest else errors).split("\n")[0][:200])


def main():
    if sys.argv[1:]:
        import tensorflow.compat.v1 as tf
        tf.logging.set_verbosity(tf.logging.FATAL)
        return attack(sys.argv[1])
    statuses = []
    for way in WAYS:
        paths = [ROOT, HELPERS,
                 os.path.dirname(os.path.abspath(__file__))] + ([STAND_IN] if way == "npu" else [])
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), TF_CPP_MIN_LOG_LEVEL="3",
                           CUDA_VISIBLE_DEVICES="")
        if way == "npu":
            environment.update(NPU_STAND_IN_GENERATION="H", NPU_STAND_IN_RECORD=os.devnull, JOB_ID="1",
                               ASCEND_DEVICE_ID="0")
        statuses.append(subprocess.run([sys.executable, "-W", "ignore", os.path.abspath(__file__), way],
                                       env=environment, cwd=ROOT).returncode)
    return int(any(statuses))


if __name__ == "__main__":
    raise SystemExit(main())
