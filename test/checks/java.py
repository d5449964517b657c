"""An exported model asked from Java, without Python: TensorFlow's own Java library must give the answers that
Python gets.

  python test/checks/java.py --data questions.tsv

Needs Java 11 or newer and Maven, which fetches org.tensorflow:tensorflow:1.15.0 and its native library.
The questions are the first two columns of a tab-separated file. The model is one of random weights,
freshly exported.
"""
import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JAVA = os.path.join(ROOT, "test", "checks", "java")
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from exported import make_shipped_classifier
from serving import export
from serving.saved_model import SavedModel

TOLERANCE = 1e-5
ODD = [("", ""), ("普通话。ＡＢＣ Café", ""), ("ΟΔΥΣΣΕΥΣ İ", "👍🏽"), ("字" * 600, "句" * 600),
       ("x" * 201, "\u0001\u2028")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample", "dev.tsv"),
                        help="questions in pairs")
    parser.add_argument("--limit", type=int, default=200, help="questions taken from it")
    arguments = parser.parse_args()
    with open(arguments.data, encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t")[:2] for line in stream][:arguments.limit]
    texts_a, texts_b = zip(*ODD, *rows)
    with tempfile.TemporaryDirectory() as folder:
        finetuned, version = os.path.join(folder, "finetune"), os.path.join(folder, "1")
        make_shipped_classifier(finetuned, "mini")
        if export.main(["--checkpoint_dir", finetuned, "--output_dir", folder, "--version", "1"]):
            return 1
        wanted = SavedModel(version).run({"text_a": texts_a, "text_b": texts_b})
        answers = [line.split("\t") for line in ask_java(version, texts_a, texts_b, folder)]
    assert len(answers) == len(texts_a)
    labels = sum(row[0] != label.decode("utf-8") for row, label in zip(answers, wanted["label"]))
    difference = np.abs(np.array([row[1:] for row in answers], np.float32) - wanted["probabilities"]).max()
    print("%d texts: %d labels differ, probabilities by at most %.1e" % (len(answers), labels, difference))
    return int(labels > 0 or difference > TOLERANCE)


def ask_java(version, texts_a, texts_b, folder):
    """Lines of label and probabilities."""
    questions, class_path = os.path.join(folder, "questions.tsv"), os.path.join(folder, "class_path")
    with open(questions, "w", encoding="utf-8", newline="") as stream:
        stream.writelines("%s\t%s\n" % pair for pair in zip(texts_a, texts_b))
    subprocess.run(["mvn", "-q", "-B", "-f", os.path.join(JAVA, "pom.xml"), "dependency:build-classpath",
                    "-Dmdep.outputFile=" + class_path], check=True)
    with open(class_path) as stream:
        command = ["java", "-cp", stream.read().strip(), os.path.join(JAVA, "Ask.java"), version, questions]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8").splitlines()


if __name__ == "__main__":
    sys.exit(main())
