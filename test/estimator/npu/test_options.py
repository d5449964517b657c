import json

import pytest

from estimator.npu import options as npu_options
from estimator.npu.options import NpuOptions, check_options
from etl.common.command_line import UserError

OLD = ("op_select_implmode", "graph_run_mode", "local_rank_id", "mix_compile_mode", "profiling_config",
       "dump_config", "precision_mode", "graph_memory_max_size")
NEW = OLD + ("modify_mixlist", "precision_mode_v2", "jit_compile", "deterministic", "enable_data_pre_proc")
NESTED = {"profiling_config": ("enable_profiling", "profiling_options"),
          "dump_config": ("enable_dump", "dump_path", "dump_step", "dump_mode", "enable_dump_debug",
                          "dump_debug_mode")}


def check(options, known=NEW, loop=1):
    check_options(options, lambda name: name in known, NESTED, loop)


def test_what_is_good_passes_on_both_generations(tmp_path):
    (tmp_path / "mix.json").write_text('{"black-list": {"to-add": ["Softmax"]}}')
    for mode in npu_options.OLD_PRECISION_MODES:
        check(NpuOptions(precision_mode=mode), OLD)
    check(NpuOptions(precision_mode="allow_mix_precision_bf16", modify_mixlist=str(tmp_path / "mix.json")))
    check(NpuOptions(
        platform={"op_select_implmode": "high_precision", "graph_memory_max_size": "9", "dump_config": {
            "enable_dump": True, "dump_path": str(tmp_path), "dump_step": "0|5|10-20"}}), OLD)
    assert NpuOptions().run_arguments() == {"precision_mode": "allow_mix_precision"}
    assert NpuOptions(platform={"precision_mode_v2": "fp16"}).run_arguments() == {"precision_mode_v2": "fp16"}


@pytest.mark.parametrize("options, known, message", [
    (dict(precision_mode="fp8"), NEW, "--precision_mode must be one of force_fp32, .*, got fp8"),
    (dict(precision_mode="allow_fp32_to_bf16"), OLD,
     "--precision_mode allow_fp32_to_bf16: the installed .* r1.13.0 has it"),
    (dict(precision_mode="force_fp16", platform={"precision_mode_v2": "fp16"}), NEW, "give one of them"),
    (dict(platform={"precision_mode_v2": "fp8"}), NEW,
     "precision_mode_v2 must be one of fp16, origin, .*, got \"fp8\""),
    (dict(platform={"precision_mode_v2": "fp16"}), OLD,
     "no such option; the first release that has it is r1.13.0"),
    (dict(platform={"no_such_thing": 1}), NEW,
     "--npu_options: no_such_thing: the installed npu_bridge has no such option$"),
    (dict(platform={"model_dir": "out"}), NEW, "model_dir: give the flag --output_dir instead"),
    (dict(platform={"dynamic_input": True}), NEW, "dynamic_input cannot be set: all shapes are static"),
    (dict(platform={"op_select_implmode": "high_precision_for_all"}), OLD,
     "must be one of high_precision, high_performance, got"),
    (dict(platform={"graph_run_mode": 2}), NEW, "graph_run_mode must be one of 1, got 2"),
    (dict(platform={"jit_compile": True}), NEW, "jit_compile must be a string, got true"),
    (dict(platform={"deterministic": True}), NEW, "deterministic must be an integer, got true"),
    (dict(platform={"enable_data_pre_proc": "false"}), NEW,
     'enable_data_pre_proc must be true or false, got "false"'),
    (dict(platform={"local_rank_id": 8}), NEW, "local_rank_id must be one of"),
    (dict(platform={"mix_compile_mode": True}), NEW,
     "mix_compile_mode needs --iterations_per_loop 1, got 100"),
    (dict(platform={"graph_memory_max_size": {}}), NEW, "graph_memory_max_size must be a string, a number"),
    (dict(platform={"profiling_config": {"enable_profiling": True, "profiling_options": []}}), NEW,
     "must be a string, got"), (dict(platform={"profiling_config": {"level": 1}}), NEW,
                                "profiling_config: unknown level; it has enable_profiling"),
    (dict(platform={"dump_config": {"enable_dump": True, "dump_path": "gone"}}), NEW,
     "dump_path must be an existing directory"),
    (dict(platform={"dump_config": {"dump_step": "1,2"}}), NEW, "dump_step must be like"),
    (dict(platform={"dump_config": {"dump_mode": "some"}}), NEW,
     "dump_mode must be one of input, output, all"),
])
def test_what_the_device_would_not_take_is_named(options, known, message):
    with pytest.raises(UserError, match=message):
        check(NpuOptions(**options), known, loop=100)


@pytest.mark.parametrize("content", ["[]", "{}", '{"black-list": ["Softmax"]}',
                                     '{"black-list": {"add": ["Softmax"]}}',
                                     '{"black-list": {"to-add": [1]}}', '{"black": {}}'])
def test_a_list_of_ops_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "mix.json").write_text(content)
    with pytest.raises(UserError, match="--modify_mixlist: .*mix.json: wanted"):
        npu_options.check_mixlist(str(tmp_path / "mix.json"))


def test_a_list_of_ops_needs_mixed_precision(tmp_path):
    (tmp_path / "mix.json").write_text('{"black-list": {"to-add": ["Softmax"]}}')
    with pytest.raises(UserError,
                       match="--modify_mixlist needs a mixed precision mode, one of .*; got force_fp32"):
        check(NpuOptions(precision_mode="force_fp32", modify_mixlist=str(tmp_path / "mix.json")))


def test_an_options_file(tmp_path):
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"op_debug_level": 1}))
    assert npu_options.read_platform_options(str(path)) == {"op_debug_level": 1}
    assert npu_options.read_platform_options(None) == {}
    path.write_text("[]")
    with pytest.raises(UserError, match="--npu_options: .*options.json: wanted a JSON object, got list"):
        npu_options.read_platform_options(str(path))
    with pytest.raises(UserError, match="--npu_options: gone.json: no such file"):
        npu_options.read_platform_options("gone.json")


@pytest.mark.parametrize("options, is_half", [
    (NpuOptions(), True), (NpuOptions(precision_mode="force_fp32"), False),
    (NpuOptions(precision_mode="force_fp16"), True),
    (NpuOptions(platform={"precision_mode_v2": "origin"}), False),
    (NpuOptions(platform={"precision_mode_v2": "fp16"}), True),
    (NpuOptions(platform={"precision_mode_v2": None}), False)])
def test_whether_values_take_two_bytes(options, is_half):
    assert options.is_half_precision == is_half
