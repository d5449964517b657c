"""An exported model's `predict_ids` as ONNX: tf2onnx converts it, and onnxruntime must give the same answers.

  python test/checks/onnx.py

tf2onnx, onnxruntime and another copy of TensorFlow are in a separate environment (`make check-onnx` creates
it). Models have random weights, one of each family; batches are of mixed lengths. A difference of
probabilities above 1e-6, or another label, ends with status 1.
"""
import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

TOLERANCE = 1e-6
MAX_SEQ_LENGTH = 64
CONFIGS = ("tiny", "tiny_google", "tiny_google_fast")
BATCHES = ((1, 3), (8, 40), (3, 64))           # rows, tokens of the longest
INPUTS = ("input_ids", "input_mask", "segment_ids")

# Their half, for the environment that has onnxruntime: answers of a model to the batches of a file.
ANSWER = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given, found = numpy.load(sys.argv[2]), {}
for number in sorted({name.split("/")[0] for name in given}):
    names = [put.name for put in session.get_inputs()]
    inputs = {name: given[number + "/" + name.split(":")[0]] for name in names}
    probabilities, label = session.run(["probabilities", "label"], inputs)
    found.update({number + "/probabilities": probabilities, number + "/label": label.astype("U")})
numpy.savez(sys.argv[3], **found)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=os.path.join(ROOT, ".venv-tf2onnx", "bin", "python"),
                        help="where tf2onnx and onnxruntime are")
    python = parser.parse_args().python
    worst = max(compare(python, name) for name in CONFIGS)
    return int(not worst <= TOLERANCE)


def compare(python, config_name):
    """The largest difference of probabilities; inf for another label."""
    import numpy as np
    import exported
    from serving import export
    from serving.saved_model import SavedModel
    with tempfile.TemporaryDirectory() as folder:
        trained, version, converted, given, found = (os.path.join(folder, name) for name in (
            "model", "export/1", "model.onnx", "given.npz", "found.npz"))
        exported.make_shipped_classifier(trained, config_name, MAX_SEQ_LENGTH)
        if export.main(["--checkpoint_dir", trained, "--output_dir", os.path.dirname(version),
                        "--version", "1"]):
            sys.exit(1)
        batches = [make_batch(*sizes) for sizes in BATCHES]
        np.savez(given, **{"%d/%s" % (number, name): value for number, batch in enumerate(batches)
                           for name, value in batch.items()})
        # the ids' default is the tokenizer, which has ops of strings
        run(python, "-m", "tf2onnx.convert", "--saved-model", version, "--tag", "serve", "--signature_def",
            "predict_ids", "--ignore_default", ",".join(INPUTS), "--opset", "13", "--output", converted)
        run(python, "-c", ANSWER, converted, given, found)
        theirs, worst = np.load(found), 0.0
        model = SavedModel(version)
        for number, batch in enumerate(batches):
            ours = model.run(batch, "predict_ids")
            label = [text.decode("utf-8") for text in ours["label"]]
            same = label == theirs["%d/label" % number].tolist()
            difference = np.abs(ours["probabilities"] - theirs["%d/probabilities" % number]).max()
            worst = max(worst, difference if same else np.inf)
        print("%-18s %d batches: largest difference of a probability %.1e, labels %s"
              % (config_name, len(batches), worst, "the same" if worst < np.inf else "differ"), flush=True)
    return worst


def make_batch(rows, length):
    import numpy as np
    rng = np.random.RandomState(length)
    lengths = np.linspace(length, max(2, length // 3), rows).astype(int)[:, np.newaxis]
    mask = (np.arange(length) < lengths).astype(np.int32)
    ids = rng.randint(670, 7992, mask.shape).astype(np.int32)
    ids[:, 0] = 101
    return {"input_ids": ids * mask, "input_mask": mask,
            "segment_ids": (np.arange(length) >= lengths // 2).astype(np.int32) * mask}


def run(*command):
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit("%s\n%s" % (" ".join(command[:3]), ended.stdout.decode("utf-8", "replace")[-3000:]))


if __name__ == "__main__":
    sys.exit(main())
