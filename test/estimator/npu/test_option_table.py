import os

from estimator.npu import option_table

DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "..", "docs", "ascend_options.md")


def rows():
    """The table as the document has it."""
    return ["| %s |" % " | ".join("`%s`" % cell if number == 0 else cell.replace("|", "\\|")
                                  for number, cell in enumerate(row)) for row in option_table.describe()]


def test_the_document_has_this_table():
    """To renew it, put what rows() gives in the place of the old rows."""
    with open(DOCUMENT, encoding="utf-8") as stream:
        found = [line for line in stream.read().split("\n") if line.startswith("| `")]
    assert found == rows()


def test_rules_name_options_and_flags_that_there_are():
    beside = {option_table.LOOP_FLAG, option_table.PRECISION_FLAG, option_table.ACCUMULATION_FLAG}
    tables = dict(option_table.configs(option_table.OPTIONS), NPURunConfig=option_table.OPTIONS)
    for options in tables.values():
        for option in options.values():
            assert all(rule.other in options or rule.other in beside for rule in option.rules)


def test_what_every_release_together_knows():
    assert option_table.all_arguments("ProfilingConfig") == {"enable_profiling": None,
                                                             "profiling_options": None}
    assert "recompute" in option_table.all_arguments("GraphMemoryOptimizeConfig")
