"""How right an answer is beside the right ones: the measures of CMRC 2018 and of SQuAD, each in [0, 1].

SQuAD (arXiv 1606.05250, 1806.03822) normalizes texts and counts the words that both have. CMRC 2018 (arXiv
1810.07366) cuts texts into Han characters and words of what stands between them (mixed segmentation), and
measures the longest string of those that both have.
"""
import collections
import functools
import re
import string
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

_HAN_OF_CMRC = re.compile("[\u4e00-\u9fa5]")
# What CMRC takes for punctuation. Its list holds …… as one entry, which no single character is equal to.
_PUNCTUATION_OF_CMRC = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")

# Words as the Penn Treebank's tokenizer parts them, of lower-case text, one sentence; in this order.
_OPENING = ((re.compile("([«“‘„]|`+)"), r" \1 "), (re.compile('^"'), " `` "),
            (re.compile("([ ([{<])(\"|'')"), r"\1 `` "),
            (re.compile(r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)"), "' "))
_MARKS = ((re.compile("([^.])(\\.)([])}>\"'»”’ ]*)\\s*$"),
           r"\1 \2 \3 "), (re.compile(r"([:,])(\D)"), r" \1 \2"), (re.compile("([:,])$"), r" \1 "),
          (re.compile(r"\.{2,}|[;@#$%&\u2012-\u2015]"), r" \g<0> "),
          (re.compile("([^.])(\\.)([])}>\"']*)\\s*$"), r"\1 \2\3 "), (re.compile("[?!]"), r" \g<0> "),
          (re.compile("([^'])' "), r"\1 ' "), (re.compile(r"[][(){}<>*]|--"), r" \g<0> "))
_CLOSING = ((re.compile("[»”’]|''"), r" \g<0> "), (re.compile('"'), " '' "), (re.compile(r"\s+"), " "),
            (re.compile("([^' ])('[smd]|') "), r"\1 \2 "), (re.compile("([^' ])('ll|'re|'ve|n't) "),
                                                            r"\1 \2 "),
            (re.compile(r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim)(me)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(lem)(me)\b"
                        r"|\b(more)('n)\b|\b(wan)(na)(?=\s)"), None), (re.compile(r" ('t)(is|was)\b"),
                                                                       r" \1 \2 "))
_PLAIN_WORDS = re.compile(r"[a-z0-9.\s]*[a-z0-9\s]|")
_PARTED_WORDS = re.compile(r"cannot|gimme|gonna|gotta|lemme|wanna|\.\.|\.\s")
# A point behind them, a letter or a number ends no sentence: what the Punkt model of English that CMRC's
# script uses
# has for abbreviations (Kiss and Strunk 2006, doi 10.1162/coli.2006.32.4.485).
_ABBREVIATIONS = frozenset(
    "a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c.i.t c.o.m.b c.v calif "
    "chg cie co col colo conn corp cos ct d.c d.h d.w dec dr e.f e.h e.l e.m f.g f.j feb fla fri ft g.d "
    "g.f g.k ga gen h.c h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr kan ky l.a l.f l.p lt ltd "
    "m.b.a m.d.c m.j maj messrs mg mich minn mr mrs ms n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla "
    "ore p.a.m p.m pa ph.d prof r.a r.h r.i r.j r.k r.t rep reps s.a s.a.y s.c s.g s.p.a s.s sen sep "
    "sept sr st sw t.j tenn tues u.k u.n u.s u.s.a u.s.s.r va vs vt w.c w.r w.va w.w wash wed wis yr".split())
_LETTER_OR_NUMBER = re.compile(r"[^\W\d]|[\d.,]*\d")
_SENTENCE_END = re.compile(r"(\S*?)([.?!])(?=[\s)\]}\"']*\s)")
_BEFORE_LAST_WORD = re.compile("^.*[\\s()[\\]{}<>\"`']", re.DOTALL)

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


class AnswerScores(NamedTuple):
    """Of one answer beside the best of the right ones."""
    exact: float
    f1: float


Measure = Callable[[Sequence[str], str], AnswerScores]


def squad_v1(right: Sequence[str], answer: str) -> AnswerScores:
    """SQuAD 1.1's: exact after normalization; F1 of the words, 0 where none is left."""
    wanted, got = [_normalized(text) for text in right], _normalized(answer)
    return AnswerScores(max(float(text == got) for text in wanted),
                        max(_word_f1(text.split(), got.split()) for text in wanted) if got else 0.0)


def squad_v2(right: Sequence[str], answer: str) -> AnswerScores:
    """SQuAD 2's: the same, but where there is no right answer, or it is nothing once normalized, "" is
    right."""
    wanted = [_normalized(text) for text in right if _normalized(text)] or [""]
    got = _normalized(answer)
    return AnswerScores(max(float(text == got) for text in wanted),
                        max(_word_f1(text.split(), got.split()) for text in wanted))


def cmrc(right: Sequence[str], answer: str) -> AnswerScores:
    """CMRC's: exact but for punctuation; F1 of the longest common string of segments. Where there is no right
    answer, "" is right."""
    if not right:
        return AnswerScores(float(not answer), float(not answer))
    segments = mixed_segmentation(answer)
    best = 0.0
    for text in right:
        wanted = mixed_segmentation(text)
        common = longest_common_string(wanted, segments)
        if common:
            precision, recall = common / len(segments), common / len(wanted)
            best = max(best, 2 * precision * recall / (precision + recall))
    return AnswerScores(float(any(_bare(text) == _bare(answer) for text in right)), best)


MEASURES: Dict[str, Measure] = {"cmrc": cmrc, "squad_v1": squad_v1, "squad_v2": squad_v2}


@functools.lru_cache(maxsize=4096)
def mixed_segmentation(text: str) -> Tuple[str, ...]:
    """Han characters, and words of what stands between them, lower-case, without punctuation.

    `"《战国无双3》 OK?"` → 战 国 无 双 3 ok ?.
    """
    found: List[str] = []
    between: List[str] = []
    for char in text.lower().strip():
        if char in _PUNCTUATION_OF_CMRC:
            continue
        if _HAN_OF_CMRC.match(char):
            found += _words("".join(between))
            between = []
            found.append(char)
        else:
            between.append(char)
    return tuple(found + _words("".join(between)))


def longest_common_string(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest run of items that both have: `("abcd", "xbcy")` → 2."""
    places: Dict[str, List[int]] = collections.defaultdict(list)
    for place, item in enumerate(b):
        places[item].append(place)
    longest, ending_before = 0, {}  # type: int, Dict[int, int]
    for item in a:
        ending_here = {place: ending_before.get(place - 1, 0) + 1 for place in places.get(item, ())}
        longest = max(longest, max(ending_here.values(), default=0))
        ending_before = ending_here
    return longest


class NullThreshold(NamedTuple):
    """From which difference of scores on, that of no answer minus that of the best answer, it is best to give
    none; and what that gives, a mean."""
    threshold: float
    value: float


def best_null_threshold(differences: Sequence[float], values: Sequence[float], has_answer: Sequence[bool],
                        answers: Sequence[str]) -> NullThreshold:
    """The threshold that is best over all questions, as SQuAD 2's script finds it.

    Args:
      differences: score of no answer minus score of the best answer, by question.
      values: exact match or F1 of the best answer, by question.
      has_answer: whether there is one in the passage.
      answers: the best answers; "" where there is none to give.
    """
    current = float(sum(not has for has in has_answer))      # all questions are given no answer
    best = NullThreshold(0.0, current)
    for place in sorted(range(len(differences)), key=differences.__getitem__):
        current += values[place] if has_answer[place] else -1.0 if answers[place] else 0.0
        if current > best.value:
            best = NullThreshold(differences[place], current)
    return NullThreshold(best.threshold, best.value / max(1, len(differences)))


def _word_f1(wanted: List[str], got: List[str]) -> float:
    if not wanted or not got:
        return float(wanted == got)
    common = sum((collections.Counter(wanted) & collections.Counter(got)).values())
    if not common:
        return 0.0
    precision, recall = common / len(got), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


def _bare(text: str) -> str:
    return "".join(char for char in text.lower().strip() if char not in _PUNCTUATION_OF_CMRC)


def _words(text: str) -> List[str]:
    """Words of lower-case text without Han."""
    if _PLAIN_WORDS.fullmatch(text) and not _PARTED_WORDS.search(text):
        return text.split()
    return [word for sentence in _sentences(text) for word in _words_of_sentence(sentence)]


def _sentences(text: str) -> List[str]:
    found, begin = [], 0
    for match in _SENTENCE_END.finditer(text):
        word = _BEFORE_LAST_WORD.sub("", match.group(1))
        if match.group(2) == "." and (word in _ABBREVIATIONS or _LETTER_OR_NUMBER.fullmatch(word)
                                      or word.endswith(".")):
            continue
        found.append(text[begin:match.end()])
        begin = match.end()
    return [sentence.strip() for sentence in found + [text[begin:]] if sentence.strip()]


def _words_of_sentence(sentence: str) -> List[str]:
    for pattern, put in _OPENING + _MARKS:
        sentence = pattern.sub(put, sentence)
    sentence = " %s " % sentence
    for pattern, spaced in _CLOSING:
        sentence = pattern.sub(spaced or _parted, sentence)
    return sentence.split()


def _parted(match: "re.Match[str]") -> str:
    first, second = (group for group in match.groups() if group is not None)
    return " %s %s " % (first, second)


def scores_of(measure: Measure, right: Sequence[Sequence[str]], answers: Sequence[str]
              ) -> Tuple[List[float], List[float]]:
    """(exact matches, F1s) of answers, by question."""
    found = [measure(texts, answer) for texts, answer in zip(right, answers)]
    return [score.exact for score in found], [score.f1 for score in found]
