import json

import pytest

from estimator.npu import option_table
from estimator.npu import options as npu_options
from estimator.npu.options import NpuOptions, check_options
from etl.common.command_line import UserError

OLD = ("op_select_implmode", "optypelist_for_implmode", "graph_run_mode", "local_rank_id", "mix_compile_mode",
       "profiling_config", "dump_config", "precision_mode", "graph_memory_max_size")
DUMP = ("enable_dump", "dump_path", "dump_step", "dump_mode", "enable_dump_debug", "dump_debug_mode")


def old(config):
    """What the oldest release takes, or a part of that."""
    return dict.fromkeys({"NPURunConfig": OLD, "DumpConfig": DUMP,
                          "ProfilingConfig": ("enable_profiling", "profiling_options")}[config])


def check(options, known=option_table.all_arguments, loop=1):
    check_options(options, known, loop)


def test_what_is_good_passes_on_both_generations(tmp_path):
    (tmp_path / "mix.json").write_text('{"black-list": {"to-add": ["Softmax"]}}')
    for mode in option_table.OLD_PRECISION_MODES:
        check(NpuOptions(precision_mode=mode), old)
    check(NpuOptions(precision_mode="allow_mix_precision_bf16", modify_mixlist=str(tmp_path / "mix.json")))
    check(NpuOptions(
        platform={"op_select_implmode": "high_precision", "graph_memory_max_size": "9", "dump_config": {
            "enable_dump": True, "dump_path": str(tmp_path), "dump_step": "0|5|10-20"}}), old)
    assert NpuOptions().run_arguments() == {"precision_mode": "allow_mix_precision"}
    assert NpuOptions(platform={"precision_mode_v2": "fp16"}).run_arguments() == {"precision_mode_v2": "fp16"}


def test_what_came_without_an_argument_of_its_own_is_left_to_releases_between():
    """precision_mode_v2 came later than these values."""
    def between(config):
        return dict.fromkeys(OLD + ("modify_mixlist",))
    check(NpuOptions("cube_fp16in_fp32out", platform={"op_select_implmode": "high_performance_for_all"}),
          between)
    check(NpuOptions("allow_mix_precision_fp16"), between)
    with pytest.raises(UserError, match="takes it with --precision_mode allow_mix_precision alone"):
        check(NpuOptions("allow_mix_precision_fp16", npu_options.OWN_MIXLIST), between)


@pytest.mark.parametrize("options, known, message", [
    (dict(precision_mode="fp8"), None, "--precision_mode must be one of force_fp32, .*, got fp8"),
    (dict(precision_mode="allow_fp32_to_bf16"), old,
     "--precision_mode allow_fp32_to_bf16: the installed .* r1.13.0 has it"),
    (dict(precision_mode="force_fp16", platform={"precision_mode_v2": "fp16"}), None, "give one of them"),
    (dict(platform={"precision_mode_v2": "fp8"}), None,
     "precision_mode_v2 must be one of fp16, origin, .*, got \"fp8\""),
    (dict(platform={"precision_mode_v2": "fp16"}), old,
     "no such option; the first release that has it is r1.13.0"),
    (dict(platform={"deterministic": 1}), old, "no such option; it came by 2023-12"),
    (dict(platform={"no_such_thing": 1}), None,
     "--npu_options: no_such_thing: the installed npu_bridge has no such option$"),
    (dict(platform={"model_dir": "out"}), None, "model_dir: give the flag --output_dir instead"),
    (dict(platform={"dynamic_input": True}), None, "dynamic_input cannot be set: all shapes are static"),
    (dict(platform={"compress_weight_conf": "a"}), None, "cannot be set: NPUEstimator sets enable_compress"),
    (dict(platform={"op_select_implmode": "high_precision_for_all"}), old,
     "must be one of high_precision, high_performance, got"),
    (dict(platform={"optypelist_for_implmode": "Pooling"}), old, "needs op_select_implmode, got null"),
    (dict(platform={"graph_run_mode": 2}), None, "graph_run_mode must be one of 1, got 2"),
    (dict(platform={"jit_compile": True}), None, "jit_compile must be a string, got true"),
    (dict(platform={"jit_compile": "maybe"}), None, 'must be one of auto, true, false, got "maybe"'),
    (dict(platform={"deterministic": True}), None, "deterministic must be an integer, got true"),
    (dict(platform={"enable_data_pre_proc": "false"}), None,
     'enable_data_pre_proc must be true or false, got "false"'),
    (dict(platform={"enable_data_pre_proc": False}), None,
     "enable_data_pre_proc false needs --iterations_per_loop 1, got 100"),
    (dict(platform={"local_rank_id": 8}), None, "local_rank_id must be one of 0, 1, .*, got 8"),
    (dict(platform={"local_device_list": [0, 1]}), None, 'local_device_list must be like "0,1", got'),
    (dict(platform={"session_device_id": -1}), None, "session_device_id must be from 0 to 2.31 - 1, got -1"),
    (dict(platform={"op_wait_timeout": "120"}), None, 'op_wait_timeout must be an integer, got "120"'),
    (dict(platform={"stream_max_parallel_num": 10}), None, "must be like .*AIcoreEngine:1.*, got 10"),
    (dict(platform={"buffer_optimize": "l9"}), None, 'one of l2_optimize, off_optimize, got "l9"'),
    (dict(platform={"enable_exception_dump": 7}), None, "must be one of 0, 1, 2, got 7"),
    (dict(platform={"aoe_mode": "3"}), None, 'aoe_mode must be one of 1, 2, 4, mdat, got "3"'),
    (dict(platform={"op_precision_mode": __file__, "op_select_implmode": "high_precision"}), None,
     "op_precision_mode excludes op_select_implmode, got high_precision: give one of them"),
    (dict(platform={"work_path": "gone"}), None, "work_path must be an existing directory"),
    (dict(platform={"op_debug_config": "gone"}), None, "op_debug_config must be an existing file, got"),
    (dict(platform={"variable_placement": "Host"}), None, "Host needs mix_compile_mode true, got null"),
    (dict(platform={"mix_compile_mode": True}), None,
     "mix_compile_mode needs --iterations_per_loop 1, got 100"),
    (dict(platform={"is_tailing_optimization": True}, accumulation_steps=2), None,
     "is_tailing_optimization needs --gradient_accumulation_steps 1, got 2"),
    (dict(platform={"graph_memory_max_size": {}}), None, "graph_memory_max_size must be a number of bytes"),
    (dict(platform={"profiling_config": {"enable_profiling": True, "profiling_options": []}}), None,
     "profiling_options must be a string, got"),
    (dict(platform={"profiling_config": {"enable_profiling": True}}), None, "needs profiling_options, got"),
    (dict(platform={"profiling_config": {"level": 1}}), None,
     "profiling_config: unknown level; it has enable_profiling"),
    (dict(platform={"profiling_config": 1}), None, "profiling_config must be a JSON object, got 1"),
    (dict(platform={"dump_config": {"enable_dump": True, "dump_path": "gone"}}), None,
     "dump_path must be an existing directory"),
    (dict(platform={"dump_config": {"enable_dump": True}}), None, "enable_dump needs dump_path, got null"),
    (dict(platform={"dump_config": {"dump_data": "stats"}}), old, "dump_config: unknown dump_data; it has"),
    (dict(platform={"dump_config": {"dump_step": "1,2"}}), None, "dump_step must be like"),
    (dict(platform={"dump_config": {"dump_step": "20-10"}}), None, "dump_step must be like"),
    (dict(platform={"dump_config": {"dump_mode": "some"}}), None,
     "dump_mode must be one of input, output, all"),
    (dict(platform={"memory_config": {"static_memory_policy": 9}}), None,
     "memory_config: static_memory_policy must be one of"),
    (dict(platform={"experimental_config": {"graph_memory_optimize_config": {"recompute": "x"}}}), None,
     "experimental_config: graph_memory_optimize_config: recompute must be one of auto, manual, got"),
])
def test_what_the_device_would_not_take_is_named(options, known, message):
    with pytest.raises(UserError, match=message):
        check(NpuOptions(**options), known or option_table.all_arguments, loop=100)


def test_the_installed_release_says_whether_an_option_is_true_or_false():
    def earlier(config):
        return {"jit_compile": True}
    check(NpuOptions(platform={"jit_compile": False}), earlier)
    with pytest.raises(UserError, match='jit_compile must be true or false, got "auto"'):
        check(NpuOptions(platform={"jit_compile": "auto"}), earlier)


def every_option(prefix, options):
    for name, option in options.items():
        yield prefix + (name,), option
        if isinstance(option.kind, option_table.Config):
            yield from every_option(prefix + (name,), option.kind.options)


@pytest.mark.parametrize("value", [
    None, True, 3.5, -7, float("nan"), 10 ** 400, "", " ", "\0", "\ud800", "\udc80", "٣", "x" * 100000, [0],
    ["x" * 100000], {"a": 1}])
def test_no_value_of_any_option_is_more_than_one_line(value):
    for path, option in every_option((), option_table.OPTIONS):
        platform = value
        for name in reversed(path):
            platform = {name: platform}
        try:
            check(NpuOptions(platform=platform))
        except UserError as error:
            assert path[-1] in str(error) and "\n" not in str(error) and len(str(error)) < 800
        else:
            assert value is None or option.kind is {True: bool, 3.5: float}.get(value, str)
            assert value not in ("", " ", "\0", "\ud800", "\udc80")


@pytest.mark.parametrize("value, known", [("3", ("aoe_mode",)), ("mdat", ("aoe_mode", "aoe_config_file"))])
def test_values_that_releases_have_in_turn(value, known):
    check(NpuOptions(platform={"aoe_mode": value}), lambda config: dict.fromkeys(known))


@pytest.mark.parametrize("value", ["cv", "LoadBalance", "LoadBalance:8", "MainStream:64"])
def test_streams(value):
    check(NpuOptions(platform={"auto_multistream_parallel_mode": value}))


def test_null_keeps_what_there_was():
    options = NpuOptions(platform={"precision_mode_v2": None, "deterministic": None,
                                   "dump_config": {"dump_path": None}})
    assert options.run_arguments() == {"precision_mode": "allow_mix_precision",
                                       "dump_config": {"dump_path": None}}
    assert options.is_half_precision
    assert npu_options.build(options.run_arguments(), lambda name, inner: (name, inner)) == {
        "precision_mode": "allow_mix_precision", "dump_config": ("DumpConfig", {})}


def test_objects_are_made_from_within():
    platform = {"experimental_config": {"graph_memory_optimize_config": {"recompute": "auto"}}}
    assert npu_options.build(platform, lambda name, inner: (name, inner)) == {"experimental_config": (
        "ExperimentalConfig", {"graph_memory_optimize_config": (
            "GraphMemoryOptimizeConfig", {"recompute": "auto"})})}


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
    (NpuOptions(platform={"precision_mode_v2": None}), True)])
def test_whether_values_take_two_bytes(options, is_half):
    assert options.is_half_precision == is_half
