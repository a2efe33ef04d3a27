"""The rules of the house that a syntax tree can show: questions, openings, sentences, flags."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

PACKAGE = Path(__file__).parents[1] / "aiosess"
MODULES = sorted(PACKAGE.rglob("*.py"))

each_module = pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix()
)


# A question changes nothing and tells nobody.

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
QUESTION = re.compile(r"_?(is|has|can)_")
TELLING = {"tell", "tell_once", "log", "set_cookie", "set_result", "set_exception"}
HEADERS = {"add", "setdefault", "update", "extend", "pop", "popall", "popone", "clear"}


def acts_of_questions(source: str) -> list[str]:
    """Return what the questions in *source* do besides asking, with its line."""
    tree = ast.parse(source)
    methods = {
        function: {each.name: each for each in owner.body if isinstance(each, FUNCTION)}
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for function in owner.body
    }
    return [
        f"line {act.lineno}: {function.name}() has {ast.unparse(act)!r}"
        for function in ast.walk(tree)
        if isinstance(function, FUNCTION) and QUESTION.match(function.name)
        for act in acts_in(function, dict(methods.get(function, {})))
    ]


def acts_in(function: ast.AST, methods: dict[str, Function]) -> Iterator[ast.expr | ast.stmt]:
    """Give what *function* does besides asking, also by way of those of its own *methods*."""
    own = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(function):
        match node:
            case ast.Delete():
                yield node
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()) if name in own:
                pass
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                yield node
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"))):
                yield node
            case ast.Call(func=ast.Attribute(attr=name)) if name in TELLING:
                yield node
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Attribute(attr="headers") | ast.Name(id="headers"), attr=name
                )
            ) if name in HEADERS:
                yield node
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if (
                name in methods
            ):
                yield from acts_in(methods.pop(name), methods)
            case _:
                pass


@each_module
def test_a_question_asks_and_changes_nothing(module: Path) -> None:
    assert acts_of_questions(module.read_text()) == []


@pytest.mark.parametrize(
    "act",
    [
        "self._seen = True",
        "self.count += 1",
        "first, self.second = found",
        "seen[key] = value",
        "del name",
        "_log.debug('asked')",
        "self.events.tell(reason)",
        "manager.tell_once(reason)",
        "response.headers.add('Vary', 'Cookie')",
        "headers.setdefault('Vary', 'Cookie')",
        "response.headers['Vary'] = 'Cookie'",
        "response.set_cookie('sid', value)",
        "answer.set_result(reply)",
        "answer.set_exception(error)",
    ],
)
@pytest.mark.parametrize("name", ["is_due", "_is_due", "has_ended", "can_wait"])
def test_a_question_that_acts_is_noticed(name: str, act: str) -> None:
    assert len(acts_of_questions(f"class A:\n    async def {name}(self):\n        {act}")) == 1


def test_a_question_that_acts_by_way_of_another_method_is_noticed() -> None:
    source = """
class Seen:
    def is_due(self):
        return self._passed() > 1

    def _passed(self):
        self._turn()
        return self._passed() - 1

    def _turn(self):
        self.generation += 1
"""

    assert acts_of_questions(source) == ["line 11: is_due() has 'self.generation'"]


@pytest.mark.parametrize(
    "asking",
    [
        "seen = self._seen",
        "seen = {}; seen[1] = self.first",
        "return self.add(1)",
        "return headers.get('Vary')",
    ],
)
def test_a_question_may_ask_and_remember(asking: str) -> None:
    assert acts_of_questions(f"def is_due(self):\n    {asking}") == []


# A sentence stands alone.

OPENING = re.compile(
    r"(Do so|Do the same|The same|As the storage does|What \S+\(\) does, with|Who|Same as|See above"
    r"|It|This)\b"
)
MARK = re.compile(r"(noqa|type|pyright|pragma|ruff|fmt):")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Give the line and the text of each docstring, those of attributes included."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, inspect.cleandoc(text)
            case _:
                pass


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Give the line and the text of each comment; lines below one another are one comment."""
    first, last, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("# ")
        stands_alone = token.line.lstrip().startswith("#")
        if stands_alone and lines and line == last + 1:
            lines.append(text)
        else:
            if lines:
                yield first, " ".join(lines)
            first, lines = line, [text]
        last = line if stands_alone else 0
    if lines:
        yield first, " ".join(lines)


def dependent_openings(source: str) -> list[str]:
    """Return what in *source* begins so that it needs what stands before it, with its line."""
    return [
        f"line {line}: {text[:60]}"
        for line, text in sorted([*docstrings(source), *comments(source)])
        if OPENING.match(text) and not MARK.match(text)
    ]


@each_module
def test_no_docstring_and_no_comment_begins_as_if_something_stood_before_it(module: Path) -> None:
    assert dependent_openings(module.read_text()) == []


@pytest.mark.parametrize(
    "opening",
    [
        "Do so where it is due.",
        "Do the same later.",
        "The same for touches.",
        "As the storage does, with retries.",
        "What load() does, with a call less.",
        "Who asks again waits.",
        "Same as load.",
        "See above.",
        "It waits.",
        "This waits.",
    ],
)
def test_such_an_opening_is_noticed(opening: str) -> None:
    source = f'def f():\n    """{opening}"""\n    # {opening}\n    pass\n    pass  # {opening}\n'

    found = dependent_openings(source)

    assert [each[:7] for each in found] == ["line 2:", "line 3:", "line 5:"]


def test_the_second_line_of_a_comment_may_begin_as_it_likes() -> None:
    assert dependent_openings("# A sentence. And another:\n# It goes on here.\npass\n") == []


# A sentence can be read in one breath.

MOST_WORDS = 30
CODE = re.compile(r"(``?)(?!`).+?\1")
BULLET = re.compile(r"^(?:[-*]|\d+\.) ")
END = re.compile(r"(?<!\.\.)(?<!e\.g)(?<!i\.e)(?<!\bcf)(?<!\bvs)[.!?][\"')\]]*\s+")


def texts(docstring: str) -> Iterator[str]:
    """Give the paragraphs and the items of lists, each on one line, without code and drawings."""
    is_code = False
    for block in docstring.split("\n\n"):
        is_indented = block.startswith(" ")
        is_code = is_indented and is_code
        if is_code or block.startswith((">>> ", "|", "    ")):
            continue
        is_code = block.endswith("::")
        item: list[str] = []
        for line in block.splitlines():
            if BULLET.match(line.lstrip()) and item:
                yield " ".join(item)
                item = []
            item.append(BULLET.sub("", line.strip(), count=1))
        yield " ".join(item)


def sentences(docstring: str) -> list[str]:
    """Return the sentences of *docstring*; a piece of code in one is a word."""
    return [sentence for text in texts(docstring) for sentence in END.split(CODE.sub("Code", text))]


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def long_sentences(source: str) -> list[str]:
    """Return the sentences of the docstrings in *source* that are too long, with their lines."""
    return [
        f"line {line}: {words(sentence)} words: {sentence}"
        for line, docstring in docstrings(source)
        for sentence in sentences(docstring)
        if words(sentence) > MOST_WORDS
    ]


@each_module
def test_no_sentence_of_a_docstring_is_longer_than_thirty_words(module: Path) -> None:
    assert long_sentences(module.read_text()) == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One. Two! Is it three?", ["One", "Two", "Is it three?"]),
        ("A line\nthat goes on. redis-py too.", ["A line that goes on", "redis-py too."]),
        ('He said "no." Then he went.', ["He said no", "Then he went."]),
        ("See RFC 6265, 5.1.4, e.g. here.", ["See RFC 6265, 5.1.4, e.g. here."]),
        ("With 1, 2, ... before each.", ["With 1, 2, ... before each."]),
        ("``load(a, b)`` reads. ``None`` if not.", ["Code reads", "Code if not."]),
        ("A list:\n\n- one\n  of two\n- two", ["A list:", "one of two", "two"]),
        ("Run::\n\n    a = 1. b\n\n    c = 2\n\nThen stop.", ["Run::", "Then stop."]),
        (
            "Kept under its SHA-256. A hash - no more.",
            ["Kept under its SHA-256", "A hash - no more."],
        ),
        ("A table:\n\n| a. | b. |\n| c | d |", ["A table:"]),
    ],
)
def test_sentences_are_told_apart(docstring: str, expected: list[str]) -> None:
    assert [each.replace('"', "") for each in sentences(docstring)] == expected


@pytest.mark.parametrize(("count", "expected"), [(30, 0), (31, 1)])
def test_a_sentence_that_is_too_long_is_noticed(count: int, expected: int) -> None:
    sentence = " - ".join(["word"] * count)

    assert len(long_sentences(f'"""{sentence}."""')) == expected


# A life is an enum, not a set of booleans.

FLAG = re.compile(r"_?is_")
MOST_FLAGS = 2
STATES = PACKAGE / "exchange" / "stages.py"


def flags(owner: ast.ClassDef) -> set[str]:
    """Return the attributes of a class that are called as flags are."""
    names: set[str] = set()
    for node in ast.walk(owner):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.ClassDef(body=body):
                names.update(target.id for target in declared(body))
            case _:
                pass
    return {name for name in names if FLAG.match(name)}


def declared(body: list[ast.stmt]) -> Iterator[ast.Name]:
    for statement in body:
        match statement:
            case ast.AnnAssign(target=ast.Name() as name):
                yield name
            case ast.Assign(targets=targets):
                yield from (each for each in targets if isinstance(each, ast.Name))
            case _:
                pass


def is_value(owner: ast.ClassDef) -> bool:
    """Ask whether objects of the class never change: such a one has no life."""
    return "NamedTuple" in map(ast.unparse, owner.bases) or any(
        keyword.arg == "frozen" and ast.unparse(keyword.value) == "True"
        for keyword in (
            *owner.keywords,
            *(
                kw
                for each in owner.decorator_list
                if isinstance(each, ast.Call)
                for kw in each.keywords
            ),
        )
    )


def lives_in_flags(source: str) -> list[str]:
    """Return the classes in *source* with too many flags, with their lines."""
    return [
        f"line {owner.lineno}: {owner.name} has {sorted(flags(owner))}"
        for owner in ast.walk(ast.parse(source))
        if isinstance(owner, ast.ClassDef) and not is_value(owner)
        if len(flags(owner)) > MOST_FLAGS
    ]


@each_module
def test_no_class_keeps_its_life_in_flags(module: Path) -> None:
    if module != STATES:
        assert lives_in_flags(module.read_text()) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class A:\n    is_a = is_b = False\n    is_c: bool", 1),
        ("class A:\n    is_a = False\n    is_b: bool = True", 0),
        (
            "class A:\n    def f(self):\n        self.is_a = self._is_b = 1\n        self.is_c = 2",
            1,
        ),
        ("class A(NamedTuple):\n    is_a: int\n    is_b: int\n    is_c: int", 0),
        ("class A(Struct, frozen=True):\n    is_a: int\n    is_b: int\n    is_c: int", 0),
        ("@dataclass(frozen=True)\nclass A:\n    is_a: int\n    is_b: int\n    is_c: int", 0),
        ("@dataclass(slots=True)\nclass A:\n    is_a: int\n    is_b: int\n    is_c: int", 1),
    ],
)
def test_a_life_in_flags_is_noticed(source: str, expected: int) -> None:
    assert len(lives_in_flags(source)) == expected


# The map says where everything is.


def on_the_map() -> set[str]:
    """Return the modules that the map in ARCHITECTURE.md names, each behind its folder."""
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    _, _, drawn = text.partition("```text\naiosess/\n")
    drawn, _, _ = drawn.partition("_aiosess_pytest.py")
    folders: list[str] = []
    named: set[str] = set()
    for line in drawn.splitlines():
        folder = re.match(r"( +)(\w+)/ ", line)
        if folder:
            folders = [*folders[: len(folder[1]) // 2 - 1], folder[2]]
        elif re.match(r"  \w", line):
            folders = []
        named |= {"/".join((*folders, each)) for each in re.findall(r"\b[a-z_]+\.py\b", line)}
    return named


def test_the_map_names_each_module_and_no_other() -> None:
    modules = {
        module.relative_to(PACKAGE).as_posix() for module in MODULES if module.name != "__main__.py"
    }

    # A folder's own file says what its line on the map says.
    assert on_the_map() == {each for each in modules if not each.endswith("/__init__.py")}
