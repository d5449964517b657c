import os

import examples_model
import pytest
from exported import make_classifier

from serving import export
from serving.saved_model import SavedModel


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory):
    """A fine-tuned model's folder. Copy it before you spoil it."""
    folder = str(tmp_path_factory.mktemp("serving") / "finetune")
    make_classifier(folder)
    return folder


@pytest.fixture(scope="session")
def version(finetuned):
    """The folder of version 7 exported from `finetuned`. Copy it before you spoil it."""
    output_dir = os.path.join(os.path.dirname(finetuned), "export")
    assert export.main(["--checkpoint_dir", finetuned, "--output_dir", output_dir, "--version", "7"]) == 0
    return os.path.join(output_dir, "7")


@pytest.fixture(scope="session")
def regression_version(tmp_path_factory):
    """The folder of version 3, exported from a regression."""
    folder = str(tmp_path_factory.mktemp("regression"))
    make_classifier(os.path.join(folder, "finetune"), labels=())
    assert export.main(["--checkpoint_dir", os.path.join(folder, "finetune"), "--output_dir",
                        os.path.join(folder, "export"), "--version", "3"]) == 0
    return os.path.join(folder, "export", "3")


@pytest.fixture(scope="session")
def examples_version(tmp_path_factory):
    """The folder of version 5, see examples_model."""
    folder = str(tmp_path_factory.mktemp("examples") / "5")
    examples_model.write(folder)
    return folder


@pytest.fixture(scope="session")
def saved_model(version):
    """Version 7, loaded. Do not close it."""
    return SavedModel(version)
