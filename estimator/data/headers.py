"""Is a first line the header of a table, and which column is which? By the names that people give to columns,
in English and in Chinese.

A name is words: `sentence1`, `query_text`, `textB`, `句子一`, `相似问题`. At least one of them says what
stands in the column; others say of what, or which of two.
"""
import bisect
import re
import unicodedata
from typing import Collection, List, NamedTuple, Optional, Sequence

TEXT, LABEL, ID, OTHER = "text", "label", "id", "other"

_ROLES = {word: role for role, words in (
    (TEXT, "text texts txt sentence sentences sent sen s seq str string question questions ques q query "
           "title content contents body review reviews comment comments premise hypothesis hypo passage "
           "para paragraph context document doc article utterance utter message msg phrase headline "
           "summary abstract subject tweet sms answer ans candidate cand reply response input 句子 句 文本 "
           "短文本 问题 问句 问 标题 内容 正文 评论 评价 摘要 查询 回答 答案 答 前提 假设 段落 文章 语句 "
           "原文 原句 全文 对话 短信 微博 弹幕 新闻 样本 话术 语料 文案 语句 话语 问法 说法 帖子"),
    (LABEL, "label labels class classes category categories cat score scores rating ratings star stars "
            "gold tag tags y polarity sentiment emotion intent similarity is 标签 类别 分类 类型 标注 情感 "
            "情绪 意图 得分 分数 评分 打分 星级 等级 相似度 是否 是否一致 关系 判断 极性 倾向 结果"),
    (ID, "id ids idx index no num number guid qid uid pid gid docid 编号 序号 索引 主键"),
    (OTHER, "desc des description name date time split set keyword keywords url author lang language genre "
            "domain 关键词 日期 时间 作者 链接 备注 说明 名称 描述 领域"),
) for word in words.split()}
_RANKS = {word: rank for rank, words in enumerate((
    "0", "1 a left first one 一 甲 左 前 上 首 第一", "2 b right second two 二 乙 右 后 下 次 第二"))
    for word in words.split()}
_SECOND = "hypothesis hypo answer ans reply response target 回答 答案 答 假设".split()
_OF_WHAT = ("raw original orig pair similar duplicate match same user news source target 用户 原始 输入 "
            "相似 相同 匹配 同义 近义 相关 对比 比较 对照 参考 扩展 改写 标准 候选 目标 商品 客户 客服 "
            "来源 的").split()

_LONGEST = 24                                  # characters of a name
# The longest name in unknown words, in median lengths of a column, and the share of its texts that may be as
# short: of one column, of each of several.
MUCH_SHORTER = {True: (0.5, 0.002), False: (0.75, 0.01)}
_MARKS = " \t\"'`#*[]()<>:“”‘’《》"                     # that stand around names
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s_.\-/:]+")
_WORDS = re.compile("|".join(sorted((word for word in [*_ROLES, *_RANKS, *_OF_WHAT] if not word.isascii()),
                                    key=len, reverse=True)) + r"|[a-z]+|\d+|.")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What may be a name in words of one's own: no number, and nothing of what people say or ask.
_NAME = re.compile(r"(?![\d_]+$|.*[我你您吗呢吧呀啊嘛么哦不没了很怎哪谁])"
                   r"(?:[\w.\-/#()]{1,10}|[A-Za-z_][\w.\- ]{1,%d})" % (_LONGEST - 2))
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.\- ]{1,%d}" % (_LONGEST - 2))


class Column(NamedTuple):
    """What a name says: one of the four roles; of a text which of two, None where it does not say."""
    role: str
    rank: Optional[int] = None


def read_name(field: str) -> Optional[Column]:
    """What a field says as the name of a column; None when it is none. `问句2` → TEXT, 2."""
    name = _plain(field)
    words = [word for part in _PARTS.split(name) for word in _WORDS.findall(part.lower())]
    if words and words[-1][:-1] in _ROLES and words[-1][-1] in ("a", "b"):
        words[-1:] = [words[-1][:-1], words[-1][-1]]                 # texta
    if words == ["target"]:                    # of what is learned; target_text is the second of two
        return Column(LABEL)
    roles = {_ROLES[word] for word in words if word in _ROLES}
    if not roles or len(name) > _LONGEST or any(
            word not in _ROLES and word not in _RANKS and word not in _OF_WHAT for word in words):
        return None
    if LABEL in roles:                         # label_desc says what a label means
        return Column(OTHER if OTHER in roles else LABEL)
    if ID in roles:
        return Column(ID)
    if TEXT not in roles:
        return Column(OTHER)
    ranks = [_RANKS[word] for word in words if word in _RANKS] + [2 for word in words if word in _SECOND]
    return Column(TEXT, ranks[0] if ranks else None)


def is_header(fields: Sequence[str]) -> bool:
    """Whether a line names columns: texts or labels among them, and nothing that can be no name."""
    found = [read_name(field) for field in fields]
    says = any(column and column.role in (TEXT, LABEL) for column in found)
    return says and _may_all_be_names(fields, found)


def stands_inside(fields: Sequence[str]) -> bool:
    """Whether a line that is not the first names columns, as where files with headers were joined: each field
    is a usual name, and one of them says text."""
    found = [read_name(field) for field in fields]
    return all(found) and any(column and column.role == TEXT for column in found)


def looks_like_one(rows: Sequence[Sequence[str]], labels: Collection[str] = ()) -> bool:
    """Whether the first of some rows may name columns in words that nobody knows: each of its fields could be
    a name, and is one or is of another kind than the column below it (`_is_above`). Not with fewer than two
    rows below.

    Args:
      labels: all that may stand in a column of labels.
    """
    first = rows[0] if rows else ()
    others = [row for row in rows[1:] if len(row) == len(first) and row != first]
    if len(others) < 2 or not all(map(_NAME.fullmatch, map(_plain, first))):
        return False
    if all(map(_WORD.fullmatch, first)) and not any(field.isascii() for row in others for field in row):
        return True                            # identifiers above text that is not ASCII
    return all(read_name(field) or _is_above(field, column, labels, *MUCH_SHORTER[len(first) == 1])
               for field, column in zip(first, zip(*others)))


def _is_above(field: str, column: Sequence[str], labels: Collection[str], length_share: float, share: float
              ) -> bool:
    """Whether a field is of another kind than those of a column: no label above labels, no number above
    numbers; at most `length_share` as long as the median of texts, and shorter than all but `share` of
    them."""
    if set(column) <= set(labels):
        return field not in labels
    if all(value.strip().isdecimal() for value in column):
        return True
    lengths = sorted(len(value.strip()) for value in column)
    length = len(field.strip())
    return (length <= length_share * lengths[len(lengths) // 2]
            and bisect.bisect_right(lengths, length) <= share * len(lengths))


def _plain(field: str) -> str:
    return unicodedata.normalize("NFKC", field).strip(_MARKS)


def match(fields: Sequence[str], order: Sequence[str], may_lack: str = "") -> Optional[List[str]]:
    """The columns' names by those that are wanted, where a first line is a header; None where it is none.

    `(["标签", "句子"], ["label", "text_a"])` → `["label", "text_a"]`; what nobody wants keeps its name.

    Args:
      fields: of the line.
      order: the names wanted.
      may_lack: one of them that may be missing.

    Raises ValueError for a header that does not say which columns the texts or the label are.
    """
    found, wanted = [read_name(field) for field in fields], [read_name(name) for name in order]
    texts = [number for number, column in enumerate(found) if column and column.role == TEXT]
    labels = [number for number, column in enumerate(found) if column and column.role == LABEL]
    if not (texts or labels) or not _may_all_be_names(fields, found):
        return None
    if not all(found) and not (texts and labels):      # two words of which one is a name may well be a text
        return None
    roles = {name: column.role for name, column in zip(order, wanted) if column}
    names = list(fields)
    for role, numbers in ((TEXT, texts), (LABEL, labels)):
        ours = [name for name in order if roles.get(name) == role]
        if len(numbers) > 1 and role == LABEL:
            numbers = [number for number in numbers if fields[number].strip().lower() in ("label", "标签")]
        if len(numbers) != len(ours) and not (not numbers and may_lack in ours):
            raise ValueError("a header, %s, that does not say which columns are %s: call them so, or name "
                             "them by --columns where the task takes it"
                             % (", ".join(fields), ", ".join(order)))
        ranks = {number: 1 if column is None or column.rank is None else column.rank
                 for number, column in enumerate(found) if number in numbers}
        if len(set(ranks.values())) == len(ranks):
            numbers = sorted(numbers, key=ranks.__getitem__)
        for number, name in zip(numbers, ours):
            names[number] = name
    for number, column in enumerate(found):
        if column and column.role == ID and "id" not in names:
            names[number] = "id"
    return names


def _may_all_be_names(fields: Sequence[str], found: Sequence[Optional[Column]]) -> bool:
    return all(column or _IDENTIFIER.fullmatch(field.strip()) for field, column in zip(fields, found))
