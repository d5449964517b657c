"""Questions with candidates of which one is right: files as their distributors ship them → examples.

What is wrong with a file is a UserError that names file and line, or question.
"""
import glob
import os
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from estimator.data.reading import HAS_NUL, Counts, read_json
from estimator.data.task_files import field_rows, read_rows
from etl.common.command_line import UserError

BLANK = "_"                                    # where a candidate goes in a question that has a gap
_IDIOM = re.compile(r"#idiom\d*#")
_CLAUSE_END = re.compile("[。！？!?\n]")
_CLAUSE = 40  # characters on either side of a blank, where no clause ends before


class ChoiceExample(NamedTuple):
    """One question. passage: what it is about, "" for nothing; label: the number of the right candidate, None
    where it is not known; group: questions of one group share their candidates, which exclude each other."""
    question: str
    passage: str
    candidates: Tuple[str, ...]
    label: Optional[int]
    group: Any
    id: Any


ChoiceReader = Callable[[str], Iterator[ChoiceExample]]


def read_choices(paths: Sequence[str], read: ChoiceReader, is_test: bool) -> List[ChoiceExample]:
    """The questions of all files, in order. Raises UserError for one without a label where it is no test,
    with fewer than two candidates, with texts missing, or with another's id; for files without any."""
    examples: List[ChoiceExample] = []
    ids: Set[Any] = set()
    for path in paths:
        counts = Counts()
        for number, example in enumerate(read(path), 1):
            try:
                _check(example, is_test)
            except ValueError as error:
                raise UserError("%s: question %s: %s"
                                % (path, number if example.id is None else example.id, error))
            if example.id is not None and example.id in ids:
                raise UserError("%s: question %s: this id comes twice" % (path, example.id))
            ids.add(example.id)
            examples.append(example)
            if any("\0" in text for text in (example.question, example.passage, *example.candidates)):
                counts.add(HAS_NUL)
        counts.tell(path)
    if not examples:
        raise UserError("%s: holds no question" % ", ".join(paths))
    return examples


def filled(question: str, candidate: str) -> str:
    """The question with a candidate in its first gap, behind it where it has none. `("多_啊", "好")` →
    多好啊."""
    before, gap, after = question.partition(BLANK)
    return before + candidate + after.lstrip(BLANK) if gap else "%s %s" % (question, candidate)


def own(path: str) -> Iterator[ChoiceExample]:
    """JSON lines with question, candidates and, where there are, passage, label (a candidate's number from 0
    on) and id."""
    for line, row in read_rows(path, ()):
        yield _with_line(path, line, ChoiceExample(
            row.get("question", ""), row.get("passage", ""), _candidates(row.get("candidates")),
            _whole(row.get("label")), None, row.get("id")))


def copa(path: str) -> Iterator[ChoiceExample]:
    """CLUE's: which of two is the cause, or the effect?"""
    for line, row in read_rows(path, ()):
        asks = row.get("question")
        if asks not in ("cause", "effect"):
            raise UserError("%s: line %d: wanted cause or effect as question, got %r" % (path, line, asks))
        yield _with_line(
            path, line,
            ChoiceExample("原因是什么？" if asks == "cause" else "结果是什么？", row.get("premise", ""),
                          _candidates([row.get("choice0"), row.get("choice1")]), _whole(row.get("label")),
                          None, row.get("id")))


def c3(path: str) -> Iterator[ChoiceExample]:
    """C3's: `[[["男：你好", "女：好"], [{"question": "…", "choice": ["…", "…"], "answer": "…"}], "m1"],
    …]`."""
    dialogues = read_json(path)
    if not isinstance(dialogues, list):
        raise UserError("%s: wanted a list of [texts, questions, id]" % path)
    for number, dialogue in enumerate(dialogues, 1):
        if not (isinstance(dialogue, list) and len(dialogue) == 3 and isinstance(dialogue[0], list)
                and isinstance(dialogue[1], list) and all(isinstance(line, str) for line in dialogue[0])):
            raise UserError("%s: item %d: wanted [texts, questions, id], got %.80r" %
                            (path, number, dialogue))
        for place, question in enumerate(dialogue[1]):
            fields = question if isinstance(question, dict) else {}
            candidates = _candidates(fields.get("choice"))
            yield ChoiceExample(fields.get("question", ""), "\n".join(dialogue[0]), candidates,
                                _number_of(fields.get("answer"), candidates),
                                None, fields.get("id", "%s-%d" % (dialogue[2], place)))


def race(path: str) -> Iterator[ChoiceExample]:
    """RACE's: an object of article, questions, options, answers (A, B, …) and id in each file."""
    found = read_json(path)
    fields = found if isinstance(found, dict) else {}
    questions, options, answers = (fields.get(name) for name in ("questions", "options", "answers"))
    if not (isinstance(questions, list) and isinstance(options, list) and len(questions) == len(options)
            and (answers is None or (isinstance(answers, list) and len(answers) == len(questions)))):
        raise UserError("%s: wanted an object of article, questions, options and answers, of equal number" %
                        path)
    for number, (question, candidates) in enumerate(zip(questions, options)):
        letter = answers[number] if answers else None
        yield ChoiceExample(
            question, fields.get("article", ""), _candidates(candidates),
            ord(letter) - ord("A") if isinstance(letter, str) and len(letter) == 1 else letter, None,
            "%s-%d" % (fields.get("id", os.path.basename(path)), number))


def chid(path: str) -> Iterator[ChoiceExample]:
    """ChID's idioms left out of texts: CLUE's form, whose answers stand in a file beside it
    (`train_answer.json`, or .csv), or that of its authors, with groundTruth in the line.

    All blanks of a text are questions on it; those of one line share their candidates (CLUE), which are taken
    once each at most.
    """
    answers = _chid_answers(path)
    for line, row in read_rows(path, ()):
        texts, truth = row.get("content"), row.get("groundTruth")
        texts = [texts] if isinstance(texts, str) else texts
        candidates = row.get("candidates")
        if not isinstance(texts, list) or not isinstance(candidates, list) or not all(
                isinstance(text, str) for text in texts):
            raise UserError("%s: line %d: wanted content, a text or texts, and candidates, a list" %
                            (path, line))
        has_own = bool(candidates) and isinstance(candidates[0], list)     # candidates of each blank
        number = 0
        for text in texts:
            for blank in _IDIOM.finditer(text):
                if has_own and number >= len(candidates):
                    raise UserError("%s: line %d: there are more blanks than the %d lists of candidates"
                                    % (path, line, len(candidates)))
                own_candidates = candidates[number] if has_own else candidates
                tag = blank.group()
                found = _candidates(own_candidates)
                label = (_number_of(truth[number], found) if isinstance(truth, list) and number < len(truth)
                         else answers.get(tag))
                identity = tag if tag != "#idiom#" else "%d-%d" % (line, number)
                yield _with_line(path, line, ChoiceExample(
                    _clause(text, blank.start(), blank.end()), _IDIOM.sub("○○○○", text), found, label,
                    None if has_own else line, identity))
                number += 1


def _clause(text: str, begin: int, end: int) -> str:
    """What stands around a blank, which becomes BLANK; other blanks become circles."""
    before, after = text[:begin].replace(BLANK, " "), text[end:].replace(BLANK, " ")
    ends = [match.end() for match in _CLAUSE_END.finditer(before)]
    begin_of_clause = max(ends[-1] if ends else 0, len(before) - _CLAUSE)
    stop = _CLAUSE_END.search(after)
    end_of_clause = min(stop.end() if stop else len(after), _CLAUSE)
    return _IDIOM.sub("○○○○", before[begin_of_clause:]) + BLANK + _IDIOM.sub("○○○○", after[:end_of_clause])


def _chid_answers(path: str) -> Dict[str, int]:
    """The right candidate's number by blank; {} where no file says it."""
    base = path[:-len(".json")] + "_answer"
    if os.path.exists(base + ".json"):
        found = read_json(base + ".json")
        if not isinstance(found, dict) or not all(type(number) is int for number in found.values()):
            raise UserError('%s: wanted an object as {"#idiom000000#": 3}' % (base + ".json"))
        return found
    if not os.path.exists(base + ".csv"):
        return {}
    answers = {}
    for line, fields in field_rows(base + ".csv"):
        try:
            tag, number = fields
            answers[tag] = int(number)
        except ValueError:
            raise UserError("%s: line %d: wanted #idiom000000#,3 or the like, got %.40r"
                            % (base + ".csv", line, ",".join(fields)))
    return answers


def files_that_match(data_dir: str, pattern: str) -> List[str]:
    """Files of a folder by a pattern such as "[dm]-train.json", sorted."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(data_dir), pattern))
                  if os.path.isfile(path))


def _with_line(path: str, line: int, example: ChoiceExample) -> ChoiceExample:
    try:
        _check(example, True)
    except ValueError as error:
        raise UserError("%s: line %d: %s" % (path, line, error))
    return example


def _whole(label: Any) -> Any:
    """A number that is written as a text is one."""
    return int(label) if isinstance(label, str) and label.isdecimal() else label


def _candidates(value: Any) -> Tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _number_of(answer: Any, candidates: Sequence[Any]) -> Any:
    """Where the right candidate stands; what is none of them stays, to be refused; None where none is
    said."""
    return candidates.index(answer) if answer in candidates else None if answer in (None, "") else answer


def _check(example: ChoiceExample, is_test: bool) -> None:
    if not isinstance(example.id, (str, int, float, type(None))):
        raise ValueError("its id must be a text or a number, got %.40r" % (example.id,))
    if not isinstance(example.question, str) or not isinstance(example.passage, str):
        raise ValueError("question and passage must be texts, got %.40r and %.40r"
                         % (example.question, example.passage))
    if not (example.question.strip() or example.passage.strip()):
        raise ValueError("question and passage are empty")
    if len(example.candidates) < 2 or not all(isinstance(text, str) and text.strip()
                                              for text in example.candidates):
        raise ValueError("there must be at least two candidates, texts that are not empty, got %.80r"
                         % (list(example.candidates),))
    if example.label is None:
        if not is_test:
            raise ValueError("it has no label")
    elif type(example.label) is not int or not 0 <= example.label < len(example.candidates):
        raise ValueError("its label must be one of its %d candidates, got %r"
                         % (len(example.candidates), example.label))
