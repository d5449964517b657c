from estimator.data.tasks import TASKS
from estimator.finetuning.presets import PRESETS


def test_settings_are_those_that_were_published():
    assert {
        name: preset[1:5]
        for name, preset in PRESETS.items()
    } == {
        "afqmc": (128, 16, 2e-5, 3),
        "c3": (512, 16, 2e-5, 8),
        "chid": (64, 24, 2e-5, 3),
        "cluener": (128, 24, 3e-5, 4),
        "cmnli": (128, 64, 3e-5, 2),
        "cmrc2018": (512, 32, 3e-5, 2),
        "csl": (128, 16, 1e-5, 5),
        "drcd": (512, 32, 3e-5, 2),
        "iflytek": (128, 32, 2e-5, 3),
        "lcqmc": (128, 64, 1e-4, 5),
        "msra": (128, 32, 5e-5, 3),
        "tnews": (128, 16, 2e-5, 3),
        "wsc": (128, 16, 1e-5, 10)
    }
    assert all(name == preset.task_name and name in TASKS for name, preset in PRESETS.items())
    assert (PRESETS["afqmc"].published
            == "CLUE's test set, accuracy in %: tiny 69.92, base 72.55, large 74, xlarge 69.96")
