"""Texts in which parts, entities, bear labels: files in three forms → examples.

  {"text": "浙商银行", "label": {"company": {"浙商银行": [[0, 3]]}}}
  {"text": "浙商银行", "entities": [{"start": 0, "end": 4, "label": "company"}]}
  浙 B-company
  商 I-company

The first is CLUENER's, whose ends are the last characters; those of the second are behind them. Columns have
a blank line between texts and BIO, BIOES (E the last, S a single one) or BMES (M for I). Places count
characters (code points). What is wrong with a file is a UserError that names file and line.
"""
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from estimator.data.reading import Counts, why_bad
from estimator.data.task_files import is_json, lines_of, read_rows
from etl.common.command_line import UserError

FIRST, LONGEST = OVERLAPS = ("first", "longest")  # which of several that overlap is kept
SUFFIXES = (".json", ".jsonl", ".txt", ".tsv", ".bio", ".bmes", ".conll")  # JSON lines, the others columns
OUTSIDE = "O"
_DOCUMENT = "-DOCSTART-"  # a line of CoNLL's files between documents
_OF_TOKENS = ("X", "[CLS]", "[SEP]")  # labels that scripts add, of what is no character


class Entity(NamedTuple):
    """A part of a text: text[start:end]."""
    start: int
    end: int
    label: str


class TaggedText(NamedTuple):
    """A text. label: its entities, ascending, none of which overlaps another; None where they are not
    known."""
    text: str
    label: Optional[Tuple[Entity, ...]]
    id: Any


def read_entities(
    path: str,
    is_test: bool,
    labels: Sequence[str],
    overlaps: Optional[str] = None,
    inclusive_ends: bool = False,
) -> List[TaggedText]:
    """The texts of a file, in its order; tells what was counted.

    Args:
      path: JSON lines by its suffix, else columns.
      is_test: whether entities may be missing.
      labels: that entities may have; (): any.
      overlaps: which of several entities that overlap is kept, a name in OVERLAPS, the others being counted;
        None: they are refused.
      inclusive_ends: whether the `end` of `entities` is the last character's place, as CLUENER's always is.
    """
    examples: List[TaggedText] = []
    counts = Counts()
    rows = _json_rows(path, inclusive_ends) if is_json(path) else _column_rows(path, counts)
    for line, example in rows:
        try:
            if not example.text.strip():
                raise ValueError("its text is empty")
            if example.label is None and not is_test:
                raise ValueError("no entities are given; an empty list, or labels O, say that there are none")
            if example.label is not None:
                for entity in example.label:
                    _check(entity, example.text, labels)
                example = example._replace(label=_apart(example.label, example.text, overlaps, counts))
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, line, error))
        examples.append(example)
    if not examples:
        raise UserError("%s: holds no text" % path)
    counts.tell(path)
    return examples


def found_labels(examples: Sequence[TaggedText]) -> List[str]:
    """All labels of entities, in the order in which they come."""
    return list(dict.fromkeys(entity.label for example in examples for entity in example.label or ()))


def apart(entities: Sequence[Entity], overlaps: str) -> List[Entity]:
    """Of entities that overlap the first, or the longest, ascending. Of those that begin together the longer
    one is the first; of those as long as each other the first is the longest."""
    order = {
        FIRST: lambda entity: (entity.start, -entity.end),
        LONGEST: lambda entity: (entity.start - entity.end, entity.start),
    }[overlaps]
    kept: List[Entity] = []
    for entity in sorted(entities, key=order):
        if all(entity.start >= other.end or entity.end <= other.start for other in kept):
            kept.append(entity)
    return sorted(kept)


def runs_of(labels: Sequence[str]) -> List[Tuple[int, int, str]]:
    """Begin, end and type of each entity in a sequence of labels, by conlleval's rule: one begins at B and S,
    and where nothing of its type is open; it ends at E and S, and before what does not continue it.

    `B-x I-x O I-y S-y` → (0, 2, x), (3, 4, y), (4, 5, y). Raises ValueError for what is no label.
    """
    found: List[Tuple[int, int, str]] = []
    begin, open_type = 0, ""
    for place, label in enumerate([*labels, OUTSIDE]):
        mark, kind = _split(label)
        if open_type and (mark in "BSO" or kind != open_type):
            found.append((begin, place, open_type))
            open_type = ""
        if mark != "O" and not open_type:
            begin, open_type = place, kind
        if open_type and mark in "ES":
            found.append((begin, place + 1, open_type))
            open_type = ""
    return found


def _split(label: str) -> Tuple[str, str]:
    """`B-name` → B, name."""
    if label == OUTSIDE:
        return "O", ""
    if label[:1] in tuple("BIMES") and label[1:2] in ("-", "_") and label[2:]:
        return label[0], label[2:]
    reason = (
        "; it is one of tokens, not of a character: give the characters with their labels"
        if label in _OF_TOKENS
        else ""
    )
    raise ValueError(
        "label must be O, or one of B-, I-, M-, E-, S- and a type, got %.40r%s" % (label, reason)
    )


def _json_rows(path: str, inclusive_ends: bool) -> Iterator[Tuple[int, TaggedText]]:
    for line, row in read_rows(path, ()):
        try:
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError("wanted a text as text, got %.40r" % (text,))
            entities = (
                _listed(row["entities"], text, inclusive_ends)
                if row.get("entities") is not None
                else _by_mention(row["label"], text)
                if row.get("label") is not None
                else None
            )
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, line, error))
        yield line, TaggedText(text, None if entities is None else tuple(entities), row.get("id"))


def _listed(found: Any, text: str, inclusive_ends: bool) -> List[Entity]:
    if not isinstance(found, list):
        raise ValueError("entities must be a list, got %.40r" % (found,))
    entities = []
    for number, fields in enumerate(found, 1):
        fields = fields if isinstance(fields, dict) else {}
        start, end, label = (fields.get(name) for name in ("start", "end", "label"))
        if not (type(start) is int and type(end) is int and isinstance(label, str)):
            raise ValueError(
                "entity %d must have start and end, whole numbers, and label, a text; got %.80r"
                % (number, found[number - 1])
            )
        entity = Entity(start, end + inclusive_ends, label)
        mention = fields.get("text", text[start:entity.end])
        if text[start:entity.end] != mention:
            other = text[start:end + (not inclusive_ends)]
            raise ValueError(
                "--inclusive_ends: end %d of entity %d, %.40r, is %s its last character"
                % (end, number, mention, "behind" if inclusive_ends else "the place of")
                if start <= end and other == mention
                else _why_bad(text, mention, entity)
            )
        entities.append(entity)
    return entities


def _by_mention(found: Any, text: str) -> List[Entity]:
    """CLUENER's form: `{"name": {"叶老桂": [[9, 11], [32, 34]]}}`."""
    entities = []
    for label, mentions in found.items() if isinstance(found, dict) else ((None, None),):
        for mention, places in mentions.items() if isinstance(mentions, dict) else ((None, None),):
            for place in places if isinstance(places, list) else (None,):
                if not (
                    isinstance(place, list)
                    and len(place) == 2
                    and all(type(number) is int for number in place)
                ):
                    raise ValueError(
                        'label must be as {"type": {"mention": [[start, end]]}}, got %.80r' % (found,)
                    )
                entity = Entity(place[0], place[1] + 1, str(label))
                if text[entity.start:entity.end] != mention:
                    raise ValueError(_why_bad(text, mention, entity))
                entities.append(entity)
    return entities


def _why_bad(text: str, mention: Any, entity: Entity) -> str:
    if isinstance(mention, str) and entity.start >= 0 and text.startswith(mention, entity.start):
        return "%.40r has %d characters, but its places are %d, %d to %d" % (
            mention,
            len(mention),
            entity.end - entity.start,
            entity.start,
            entity.end - 1,
        )
    return why_bad(text, str(mention), entity.start, "the text", "the entity")


def _column_rows(path: str, counts: Counts) -> Iterator[Tuple[int, TaggedText]]:
    """A text for each group of lines; the line is that of its first character."""
    tokens: List[str] = []
    labels: List[Optional[str]] = []
    first, has_ends = 0, False
    sequences: List[Tuple[int, List[str], List[Optional[str]]]] = []
    for number, line in lines_of(path):
        line = line.rstrip(" \t")
        if not line or line.startswith(_DOCUMENT):
            if tokens:
                sequences.append((first, tokens, labels))
            tokens, labels = [], []
            continue
        fields = line.split("\t" if "\t" in line else " ")
        label = fields[-1] if len(fields) > 1 else None
        try:
            has_ends |= label is not None and _split(label)[0] in "ES"
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
        first = first if tokens else number
        if tokens and (label is None) != (labels[-1] is None):
            raise UserError(
                "%s: line %d: wanted a character and its label, as in the line before, got %.40r"
                % (path, number, line)
            )
        tokens.append(fields[0] or " ")  # the character may itself be a blank
        labels.append(label)
    if tokens:
        sequences.append((first, tokens, labels))
    for first, tokens, labels in sequences:
        text, begins = _joined(tokens)
        known = [label for label in labels if label is not None]
        if not known:
            yield first, TaggedText(text, None, None)
            continue
        entities = []
        for begin, end, kind in runs_of(known):
            if known[begin][0] not in "BS":
                counts.add("entities that begin with neither B nor S, and are taken to begin there")
            if has_ends and known[end - 1][0] not in "ES":
                counts.add("entities that end with neither E nor S, and are taken to end there")
            entities.append(Entity(begins[begin], begins[end - 1] + len(tokens[end - 1]), kind))
        yield first, TaggedText(text, tuple(entities), None)


def _joined(tokens: Sequence[str]) -> Tuple[str, List[int]]:
    """The text of tokens, and where each begins. Between words of Latin letters stands a blank: characters
    follow each other without."""
    text, begins = "", []
    for before, token in zip(["", *tokens], tokens):
        between = before[-1:] + token[:1]
        if (
            max(len(before), len(token)) > 1
            and len(between) == 2
            and all(char < "\x80" and char.isalnum() for char in between)
        ):
            text += " "
        begins.append(len(text))
        text += token
    return text, begins


def _check(entity: Entity, text: str, labels: Sequence[str]) -> None:
    if not entity.label.strip():
        raise ValueError("an entity has an empty label")
    if labels and entity.label not in labels:
        raise ValueError("unknown label %r; there are %s" % (entity.label, ", ".join(labels)))
    if not 0 <= entity.start < entity.end <= len(text):
        raise ValueError(
            "an entity must stand in the text, which has %d characters, got %d to %d (%s)"
            % (len(text), entity.start, entity.end, entity.label)
        )


def _apart(
    entities: Sequence[Entity], text: str, overlaps: Optional[str], counts: Counts
) -> Tuple[Entity, ...]:
    """The entities, ascending, each once. Raises ValueError for some that overlap, if none is to be left
    out."""
    once = sorted(set(entities))
    for _ in range(len(entities) - len(once)):
        counts.add("entities given twice")
    kept = apart(once, overlaps or FIRST)
    if len(kept) < len(once) and overlaps is None:
        one, other = next(
            (one, other) for one in once for other in once if one < other and other.start < one.end
        )
        raise ValueError(
            "%s and %s overlap: --overlaps %s keeps one of them, and counts the others"
            % (_shown(one, text), _shown(other, text), " or ".join(OVERLAPS))
        )
    for _ in range(len(once) - len(kept)):
        counts.add("entities left out: they overlap another (--overlaps %s)" % overlaps)
    return tuple(kept)


def _shown(entity: Entity, text: str) -> str:
    return "%.40r (%s, %d to %d)" % (text[entity.start:entity.end], entity.label, entity.start, entity.end)
