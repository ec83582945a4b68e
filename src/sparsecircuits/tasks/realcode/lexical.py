"""Finders that read tokens: quotes, brackets, keywords."""

import itertools
import keyword
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from sparsecircuits.tasks.realcode.source import Lexeme, Place, Source

_LINE_ENDS = (tokenize.NEWLINE, tokenize.NL)
_OPENER = re.compile(r"""(\w*)('{3}|"{3}|['"])""")


def _is_value(token: Lexeme) -> bool:
    """Whether a bracket right behind this token calls it or takes an item of it."""
    named = token.type == tokenize.NAME and not keyword.iskeyword(token.text)
    return named or token.type == tokenize.STRING or token.text in (")", "]", "}")


def _first_strings(source: Source) -> Iterator[tuple[Lexeme, Lexeme]]:
    """Strings on one line, right behind the bracket of a call, with the token that follows."""
    tokens = source.tokens
    for place in range(2, len(tokens) - 1):
        token, bracket = tokens[place], tokens[place - 1]
        if token.type != tokenize.STRING or bracket.text != "(" or bracket.end != token.start:
            continue
        if _is_value(tokens[place - 2]) and tokens[place - 2].end == bracket.start and "\n" not in token.text:
            yield token, tokens[place + 1]


def closing_quotes(source: Source) -> Iterator[Place]:
    """Where a string closes that is all of a call's arguments. Empty ones and those with a backslash are left out."""
    for string, following in _first_strings(source):
        quote, body = string.text[0], string.text[1:-1]
        plain = quote in "'\"" and not string.text.startswith(quote * 3) and body and "\\" not in body
        if plain and following.text == ")" and following.start == string.end:
            yield Place(string.end - 1, int(quote == '"'), string.start - 1)


def braces_in_strings(source: Source) -> Iterator[Place]:
    """The first ` {` of an f-string, and a word in a plain string (another one each time), in a call."""
    plain = 0
    for string, _ in _first_strings(source):
        prefix, quote = _OPENER.match(string.text).groups()  # type: ignore[union-attr]
        body = string.text[len(prefix) + 1 : -1]
        if len(quote) > 1 or "\\" in body or prefix not in ("", "f", "F"):
            continue
        words = _first_brace(body) if prefix else _words(body)
        if words:
            word = words[plain % len(words)]
            plain += not prefix
            at = string.start + len((string.text[: len(prefix) + 1] + body[:word]).encode())
            yield Place(at, int(not prefix), string.start)


def _first_brace(body: str) -> list[int]:
    """The space before the first value of an f-string, if words and a space stand before it."""
    value = body.replace("{{", "  ").find("{")
    return [value - 1] if value > 1 and body[value - 1] == " " and any(map(str.isalpha, body[:value])) else []


def _words(body: str) -> list[int]:
    """The spaces before the words of a plain string but the first; none in one that is a format."""
    if {"{", "}", "%"} & set(body):
        return []
    return [i for i, (a, b) in enumerate(itertools.pairwise(body)) if i and a == " " and b.isalpha()]


@dataclass
class _Opened:
    """A bracket that is open."""

    token: Lexeme
    display: bool
    """A list, dict or set; not what takes an item or calls."""
    decided: bool = False
    lambdas: int = 0


def _brackets(source: Source) -> Iterator[tuple[int, Lexeme, list[_Opened]]]:
    """Every token with its place and the brackets that are open before it."""
    stack: list[_Opened] = []
    for place, token in enumerate(source.tokens):
        yield place, token, stack
        if token.type == tokenize.OP and token.text in ("(", "[", "{"):
            stack.append(_Opened(token, display=not (place and _is_value(source.tokens[place - 1]))))
        elif token.type == tokenize.OP and token.text in (")", "]", "}") and stack:
            stack.pop()


def first_items(source: Source) -> Iterator[Place]:
    """Behind the first key of a dict, and behind the first item of a list that has more."""
    for _, token, stack in _brackets(source):
        if not stack or stack[-1].decided or not stack[-1].display:
            continue
        top = stack[-1]
        if token.text == "lambda":
            top.lambdas += 1
        elif token.text == ":" and top.lambdas:
            top.lambdas -= 1
        elif token.text in (":", ",", "for", "async") and not top.lambdas:
            top.decided = True
            if (top.token.text, token.text) in (("{", ":"), ("[", ",")):
                yield Place(token.start, int(token.text == ","), top.token.start)


def closing_brackets(source: Source) -> Iterator[Place]:
    """Square brackets behind an item that close at the end of its line all that are open: one level, or two."""
    tokens = source.tokens
    for place, token, stack in _brackets(source):
        if token.text != "]" or not place or tokens[place - 1].text == "]" or tokens[place - 1].type in _LINE_ENDS:
            continue
        run = 1
        while place + run < len(tokens) and tokens[place + run].text == "]":
            run += 1
        following = tokens[place + run] if place + run < len(tokens) else None
        levels = 0
        while levels < min(len(stack), 3) and stack[-1 - levels].token.text == "[":
            levels += 1
        adjacent = tokens[place + run - 1].end == token.start + run
        if run == levels <= 2 and adjacent and following is not None and following.type in _LINE_ENDS:
            yield Place(token.start, run - 1, stack[-levels].token.start)


def branches(source: Source) -> Iterator[Place]:
    """Behind `else` and `elif` at the beginning of a line."""
    tokens = source.tokens
    for place in range(1, len(tokens) - 1):
        token, following = tokens[place], tokens[place + 1]
        if token.type != tokenize.NAME or tokens[place - 1].type not in _LINE_ENDS:
            continue
        if token.text == "elif" or (token.text == "else" and following.text == ":"):
            yield Place(token.end, int(token.text == "elif"), token.start)
