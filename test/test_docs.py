"""What the documents say, held against the code: commands parse, links lead somewhere, messages exist."""
import ast
import dataclasses
import glob
import importlib
import os
import re
import shlex

import pytest

from etl.common.command_line import parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READMES = ("README.md", "README.zh.md")
CHINESE = tuple(sorted(os.path.basename(path)
                       for path in glob.glob(os.path.join(ROOT, "docs", "zh", "*.md"))))
DOCUMENTS = READMES + ("CONTRIBUTING.md", "CHANGELOG.md") + tuple(
    os.path.join("docs", name) for name in sorted(os.listdir(os.path.join(ROOT, "docs")))
    if name.endswith(".md")) + tuple(os.path.join("docs", "zh", name) for name in CHINESE)
PAIRS = [READMES] + [(os.path.join("docs", name), os.path.join("docs", "zh", name)) for name in CHINESE]
PACKAGES = ("albert_config", "etl", "estimator", "serving")
FOLDERS = [os.path.dirname(path) for package in PACKAGES
           for path in glob.glob(os.path.join(ROOT, package, "**", "__init__.py"), recursive=True)]
FOLDERS += ["test/benchmark", "test/checks"]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as stream:
        return stream.read()


def code_blocks(text):
    """(language, lines) of each fenced block; lines that a backslash joins are one, comments are left out."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        lines = [re.sub(r"\s+#.*", "", line).strip() for line in block.replace("\\\n", " ").split("\n")]
        yield language, [re.sub(r"\s+", " ", line) for line in lines if line]


def commands_in(text):
    """Each `python -m …` of a text, in blocks and within lines, without what the shell does with it."""
    for _, lines in code_blocks(text):
        yield from lines
    for line in re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).split("\n"):
        yield from re.findall(r"`([^`]+)`", line)


def python_commands():
    for name in DOCUMENTS:
        for line in commands_in(read(name)):
            for part in re.split(r" && | \| | < |; ", re.sub(r"^(\w+=\S+ )+", "", line)):
                words = part.split("#")[0]
                if words.startswith("python -m ") and "$flags" not in words:
                    yield name, words


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_have_the_same_commands(english, chinese):
    """A README's blocks without a language are text: what is printed, the layout."""
    first, second = ([block for block in code_blocks(read(name)) if block[0] or name not in READMES]
                     for name in (english, chinese))
    assert first == second


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_have_the_same_headings_and_tables(english, chinese):
    shapes = []
    for name in (english, chinese):
        text = re.sub(r"^```.*?^```$", "", read(name), flags=re.M | re.S)
        shapes.append([re.sub(r"[^#|].*", "", line) if line[0] == "#" else line.count("|")
                       for line in text.split("\n") if line[:1] in ("#", "|")])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", READMES)
def test_a_readme_can_be_read_in_ten_minutes(name):
    assert len(read(name).split("\n")) <= 150


def test_what_most_users_need_is_there_in_chinese():
    assert {"ascend.md", "data_format.md", "fine_tuning.md", "migration.md", "serving.md"} <= set(CHINESE)


@pytest.mark.parametrize("name, command", sorted(set(python_commands())))
def test_a_command_parses(name, command, monkeypatch, capsys):
    """As far as its flags, their types and what they must not contradict. `…` is a value, or what the
    reader adds."""
    words = shlex.split(command)
    words = [word for word, before in zip(words, [""] + words) if word != "…" or before.startswith("--")]
    module = importlib.import_module(words[2])
    parsed = []

    def run(prog, description, config_class, function, argv=None):
        parsed.append(config_class)
        parse(prog, description, config_class, argv)
        return 0

    monkeypatch.setattr(module, "run", run)
    try:
        module.main(words[3:])
    except SystemExit as end:
        error = capsys.readouterr().err
        assert end.code == 0 or "…" in command and "are required" in error, error
    assert parsed


def links_of(name):
    text = read(name)
    folder = os.path.dirname(name)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            yield os.path.join(folder, target)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for target in re.findall(r"`((?:\w+/)+[\w.]+\.(?:md|sh)|[\w/.]+\.py)`", text):
        yield target


def exists(name, target):
    """A link from its own folder; a name in a text also from the root, or, of a script, wherever it lies."""
    places = [target, os.path.join(os.path.dirname(name), target)]
    places += [os.path.join(folder, target) for folder in FOLDERS]
    return any(os.path.exists(os.path.join(ROOT, place)) for place in places)


@pytest.mark.parametrize("name", [
    name for name in DOCUMENTS if not name.endswith(("design.md", "CHANGELOG.md"))])
def test_what_a_document_names_is_there(name):
    """Scripts of the older tools are named by tables whose rows say so."""
    theirs = re.compile(r"run_\w+\.py|create_\w+|modeling_\w+|similarity|export_\w+|test_changes")
    assert [
        target for target in links_of(name) if not exists(name, target) and not theirs.search(target)] == []


def anchors_of(name):
    """What GitHub makes of a document's headings: `## gRPC limits` → grpc-limits."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", read(name), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_link_to_a_heading_leads_to_one(name):
    links = [(os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name, anchor)
             for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(name))]
    assert [link for link in links if link[1] not in anchors_of(link[0])] == []


def test_every_make_target_that_is_named_exists():
    """Rules, and rows of the table: `make help` lists those that say what they do, which all must."""
    targets = set(re.findall(r"^([a-z][\w-]*)(?: = .*\S|:.*)  #: \S", read("Makefile"), re.M))
    rules = set(re.findall(r"^([a-z][\w-]*)(?: =|:)", read("Makefile"), re.M))
    assert rules - targets == {"help", "flags"}                    # itself, and a function
    named = {(name, target) for name in DOCUMENTS
             for target in re.findall(r"\bmake ([a-z][\w-]+)", "\n".join(commands_in(read(name))))}
    assert named and sorted(pair for pair in named if pair[1] not in targets | {"help"}) == []


def names_in(path):
    """What a file defines at its top: functions, classes, values."""
    for node in ast.parse(read(path)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        for target in getattr(node, "targets", None) or [getattr(node, "target", None)]:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()


def test_a_file_holds_what_a_document_says_it_holds():
    """As in "`METRICS` of `estimator/finetuning/scores.py`"."""
    said = {(name, words, path) for name in DOCUMENTS for words, path in re.findall(
        r"`(\w+)`(?:,? (?:in|of)|[\w ]{0,20} \(|, ?在|（) ?`((?:\w+/)+\w+\.py)`", read(name))}
    assert len(said) > 5
    assert sorted(row for row in said if row[1] not in names_in(row[2])) == []


def quantity(text, flag):
    """`64 KiB` → 65536, `30 s` of a flag in milliseconds → 30000, `1,000` → 1000."""
    number, _, unit = text.replace(",", "").partition(" ")
    return int(number) * {"KiB": 1 << 10, "MiB": 1 << 20,
                          "s": 1000 if flag.endswith("_in_ms") else 1}.get(unit, 1)


def test_defaults_of_the_server_in_tables_are_its_own():
    """Rows of `| … | flags | their defaults |`, several apart by `;`."""
    from serving.server import ServerConfig
    defaults = {field.name: field.default for field in dataclasses.fields(ServerConfig)}
    table = re.search(r"\| flag \| default \|\n(.*?)\n\n", read("docs/security.md"), re.S).group(1)
    rows = [line.strip("| ").split(" | ")[1:] for line in table.split("\n")[1:]]
    said = {flag: quantity(value, flag) for flags, values in rows
            for flag, value in zip(re.findall(r"`--(\w+)`", flags), values.split("; "))}
    assert len(said) > 12 and said == {flag: defaults[flag] for flag in said}


def test_a_value_called_the_default_is_the_default():
    """As in "`--masking whole_word` (the default)". Of a table the last column is ours; the others may be
    older tools'."""
    texts = [re.sub(r"^\|.*\|(.*)\|$", r"\1", read(name), flags=re.M) for name in DOCUMENTS]
    said = {pair for text in texts
            for pair in re.findall(r"`--(\w+) ([^` ]+)`(?: \((?:the )?default|（默认)", text)}
    commands = {importlib.import_module("%s.%s" % (package, os.path.basename(path)[:-3]))
                for package in PACKAGES[1:] for path in glob.glob(os.path.join(ROOT, package, "*.py"))
                if os.path.basename(path) != "__init__.py"}
    configs = {config for module in commands
               for config in vars(module).values() if dataclasses.is_dataclass(config)}
    configs |= {field.metadata["nested"] for config in configs
                for field in dataclasses.fields(config) if "nested" in field.metadata}
    defaults = {(field.name, str(field.default)) for config in configs
                for field in dataclasses.fields(config)}
    assert said and sorted(said - defaults) == []


def literals():
    """All text that our sources hold, and the script's that makes environments."""
    for package in PACKAGES:
        for path in glob.glob(os.path.join(ROOT, package, "**", "*.py"), recursive=True):
            with open(path, encoding="utf-8") as stream:
                for node in ast.walk(ast.parse(stream.read())):
                    if isinstance(node, ast.Str):
                        yield node.s
    yield read("requirements/environment.sh")


@pytest.mark.parametrize("name", ["docs/errors.md", "docs/zh/errors.md"])
def test_messages_to_look_up_are_messages_of_ours(name):
    """Between the `…`, where values stand, they are what the sources say."""
    texts = list(literals())
    messages = re.findall(r"^\| `([^`]+)` \|", read(name), re.M)
    assert len(messages) > 8
    for message in messages:
        for fragment in filter(None, (fragment.strip() for fragment in message.split("…"))):
            assert any(fragment in text for text in texts), fragment
