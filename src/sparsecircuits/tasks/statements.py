"""Statements with the cues of either answer, for contexts; each split has its own (see `distractors`).

A row: what has the cue of a task's first answer, then of its second. `|` stands where the cue is complete.
"""

from collections.abc import Mapping

from sparsecircuits.tasks.distractors import Table, quoted, sides

QUOTED: Table = {
    "train": quoted(
        "print(Q{w}|Q)\n",
        "{a} = Q{w}|Q\n",
        "{a}.append(Q{w}|Q)\n",
        "{a} = [Q{b}|Q, Q{w}Q]\n",
        "{a}({b}, Q{w}|Q)\n",
        "{a}({b}=Q{w}|Q)\n",
        "if {a} == Q{w}|Q:\n    {b} = {n}\n",
    ),
    "validation": quoted(
        "{a}.write(Q{w}|Q)\n",
        "{a} += Q{w}|Q\n",
        "{a} = {b}[Q{c}|Q]\n",
        "{a} = {b}(Q{w}|Q, {n})\n",
        "{a}.{b}({c}, Q{w}|Q)\n",
    ),
    "held_out": quoted(
        "log(Q{w}|Q)\n",
        "{a} = {b}.get(Q{c}|Q)\n",
        "{a} = (Q{b}|Q, Q{w}Q)\n",
        "{a} = {b} or Q{w}|Q\n",
        "{a}({b}, {c}, Q{w}|Q)\n",
        "{a}({b}, {c}=Q{w}|Q)\n",
    ),
}
DEFAULTS: Table = {
    "train": sides(
        ("def {f}({a}, {b}=None|):\n    pass\n", "def {f}({a}, {b}|):\n    pass\n"),
        ("{a} = {b}({c}=None|)\n", "{a} = {b}({c}|)\n"),
        ("def {f}({a}=None|, {b}=None):\n    return {a}\n", "def {f}({a}|, {b}, {c}):\n    return {a}\n"),
    ),
    "validation": sides(
        ("async def {f}({a}=None|):\n    pass\n", "async def {f}({a}|):\n    pass\n"),
        ("{a}.{b}({c}, {a}=None|)\n", "{a}.{b}({c}, {a}|)\n"),
        ("def {f}(self, {a}=None|, {b}=None):\n    return {b}\n", "def {f}(self, {a}|, {b}):\n    return {b}\n"),
    ),
    "held_out": sides(
        ("def {f}({a}, {b}, {c}=None|):\n    return {b}\n", "def {f}({a}, {b}, {c}|):\n    return {b}\n"),
        ("{a} = {b}({n}, {c}=None|)\n", "{a} = {b}({n}, {c}|)\n"),
        ("{a}({b}=None|, {c}=None)\n", "{a}({b}|, {c})\n"),
    ),
}
ACCUMULATORS: Table = {
    "train": sides(
        ("{a} = set()|\n", "{a} = QQ|\n"),
        ("{a} = set()|\n{a}.add({b})\n", "{a} = QQ|\n{a} += {b}\n"),
        ("{a}.{b} = set()|\n", "{a}.{b} = QQ|\n"),
    ),
    "validation": sides(
        ("{a} = {b} = set()|\n", "{a} = {b} = QQ|\n"),
        ("{a}_{b} = set()|\n", "{a}_{b} = QQ|\n"),
        ("self.{a} = set()|\nself.{a}.add({n})\n", "self.{a} = QQ|\nself.{a} += {b}\n"),
    ),
    "held_out": sides(
        ("{a} = {n}\n{b} = set()|\n", "{a} = {n}\n{b} = QQ|\n"),
        ("{a}.{b}.{c} = set()|\n", "{a}.{b}.{c} = QQ|\n"),
        ("{a} = set()|\n{a}.add({b} + {n})\n", "{a} = QQ|\n{a} += {b} + {c}\n"),
    ),
}
XY: Table = {
    "train": sides(
        ("{a}.x| = {n}\n", "{a}.y| = {n}\n"),
        ("{a} = {b}.x|\n", "{a} = {b}.y|\n"),
        ("print({a}.x|)\n", "print({a}.y|)\n"),
    ),
    "validation": sides(
        ("{a}.x| += {n}\n", "{a}.y| += {n}\n"),
        ("{a} = {b}.x| + {c}\n", "{a} = {b}.y| + {c}\n"),
        ("del {a}.x|\n", "del {a}.y|\n"),
    ),
    "held_out": sides(
        ("{a}.x| -= {b}\n", "{a}.y| -= {b}\n"),
        ("{a} = {b}({c}.x|)\n", "{a} = {b}({c}.y|)\n"),
        ("assert {a}.x| > {n}\n", "assert {a}.y| > {n}\n"),
    ),
}
ENTERED: Table = {
    "train": sides(
        ("with {a}| as {b}:\n    {c} = {n}\n", "{b} = {a}|\n"),
        ("with open({a})| as {b}:\n    pass\n", "{b} = open({a})|\n"),
        ("with {a}|:\n    {b}({c})\n", "{a} = {b}.{c}|\n"),
    ),
    "validation": sides(
        ("with self.{a}| as {b}:\n    pass\n", "{b} = self.{a}|\n"),
        ("with {a}|:\n    {b} += {n}\n", "{b} = {a}[{n}]|\n"),
        ("with open({a}, {b})| as {c}:\n    pass\n", "{c} = open({a}, {b})|\n"),
    ),
    "held_out": sides(
        ("with {a}.{b}| as {c}:\n    {c}({n})\n", "{c} = {a}.{b}|\n{c}({n})\n"),
        ("with {a}.{b}({c})|:\n    pass\n", "{a} = {b}.{c}({n})|\n"),
        ("with open(self.{a})| as {b}:\n    {b}()\n", "{b} = open(self.{a})|\n"),
    ),
}
ITEMS: Table = {
    "train": sides(
        ("{a} = {{{b}|: {n}, {c}: {m}}}\n", "{a} = [{b}|, {n}, {c}]\n"),
        ("{a}({{{b}|: {n}}})\n", "{a}([{b}|, {n}])\n"),
        ("{a} = {{\n    {b}|: {n},\n}}\n", "{a} = [\n    {b}|,\n]\n"),
    ),
    "validation": sides(
        ("{a}.{b} = {{{c}|: {n}}}\n", "{a}.{b} = [{c}|, {n}]\n"),
        ("{a} = {{{n}|: {b}, {m}: {c}}}\n", "{a} = [{n}|, {m}]\n"),
        ("{a}({b}, {{{c}|: {n}}})\n", "{a}({b}, [{c}|, {n}])\n"),
    ),
    "held_out": sides(
        ("{a} = {b} or {{{c}|: {n}}}\n", "{a} = {b} or [{c}|, {n}]\n"),
        ("{a} = {{{n}|: [{m}], {b}: {c}}}\n", "{a} = [{n}|, {{{m}: {b}}}]\n"),
        ("{a}.update({{{b}|: {n}}})\n", "{a}.extend([{b}|, {n}])\n"),
    ),
}
WAYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": (
        ("def {way}_{a}({b}|):\n    return {b}\n", "{a} = {way}_{b}|({c})\n"),
        ("{a}({way}_path|, {b})\n", "{a} = {b}({way}_path|)\n"),
    ),
    "validation": (
        ("# {way} the {a}|\n{b} = {n}\n", "{a}.{way}_{b}|()\n"),
        ("{a}.{b}({way}_file|)\n", "{a} = {b}({way}_file|, {n})\n"),
    ),
    "held_out": (
        (
            "def {way}_{a}(self|):\n    return {b}\n",
            "{a} = self.{way}_{b}|\n",
            "def {way}_{a}(self|, {b}):\n    pass\n",
        ),
        ("{a} = {b}.{c}({way}_path|)\n", "{a}({b}, {n})({way}_path|)\n"),
    ),
}
"""With a word that tells reading from writing: in the name of a function, in that of a variable. Either word fits."""
LISTS: Table = {
    "train": sides(
        ("{a} = [{l}|]\n", "{a} = [[{l}|]]\n"),
        ("{a} = [{l}|, {n}, {m}]\n", "{a} = [[{l}|], [{n}]]\n"),
        ("{a} = [\n    {l}|,\n]\n", "{a} = [\n    [{l}|],\n    [{n}],\n]\n"),
        ("{a} = {{{n}: [{l}|]}}\n", "{a} = {{{n}: [[{l}|]]}}\n"),
    ),
    "validation": sides(
        ("{a}.{b} = [{l}|]\n", "{a}.{b} = [[{l}|]]\n"),
        ("{a}({b}, [{l}|])\n", "{a}({b}, [[{l}|]])\n"),
        ("{a} = (\n    [{l}|],\n)\n", "{a} = (\n    [[{l}|], [{n}]],\n)\n"),
    ),
    "held_out": sides(
        ("{a} = {b} or [{l}|]\n", "{a} = {b} or [[{l}|]]\n"),
        ("{a} = [{l}|] + {b}\n", "{a} = [[{l}|], [{m}, {n}]] + {b}\n"),
        ("{a} += [\n    {l}|,\n]\n", "{a} += [\n    [{l}|],\n]\n"),
    ),
}
LOOPS: Table = {
    "train": sides(
        ("for {a}| in {b}:\n    {c} = {n}\n", "while {a}|:\n    {c} = {n}\n"),
        ("{a} = [{b} for {b}| in {c}]\n", "while {a}| < {n}:\n    {a} += 1\n"),
    ),
    "validation": sides(
        ("for {a}| in {b}.{c}:\n    {a}()\n", "while {a}|:\n    {b}()\n"),
        ("{a} = {b}({c} for {c}| in {a})\n", "while {a}|.{b}:\n    {c}()\n"),
    ),
    "held_out": sides(
        ("for {a}| in {b}[{n}]:\n    pass\n", "while {a}|:\n    pass\n"),
        ("{a} = {{{b} for {b}| in {c}}}\n", "while {a}| != {b}:\n    {a} -= {n}\n"),
    ),
}
BRANCHES: Table = {
    "train": sides(
        ("if {a}:\n    {b} = {n}\nelse|:\n    {b} = {m}\n", "if {a}:\n    {b} = {n}\nelif| {c}:\n    {b} = {m}\n"),
    ),
    "validation": sides(
        ("if {a}:\n    {b}()\nelse|:\n    {c}()\n", "if {a}:\n    {b}()\nelif| {c}:\n    {c}()\n"),
    ),
    "held_out": sides(
        ("if {a}:\n    {b} += {n}\nelse|:\n    pass\n", "if {a}:\n    {b} += {n}\nelif| {c} > {m}:\n    pass\n"),
    ),
}
PRINTED: Table = {
    "train": sides(
        ("print(fQ{w}| {{{a}}}Q)\n", "print(Q{w}|Q)\n"),
        ("{a}({b}, fQ{w}| {{{a}}} {{{c}}}Q)\n", "{a}({b}, Q{w}| {{}}Q)\n"),
        ("{a} = fQ{w}|Q\n", "{a} = Q{w}|Q\n"),
    ),
    "validation": sides(
        ("{a}.write(fQ{w}|Q)\n", "{a}.write(Q{w}|Q)\n"),
        ("{a} += fQ{w}| {{{b}}}Q\n", "{a} += Q{w}|Q\n"),
        ("{a}({b}, {c}, fQ{w}| {{{a}}}Q)\n", "{a}({b}, {c}, Q{w}| {{}}Q)\n"),
    ),
    "held_out": sides(
        ("log(fQ{w}| {{{a}}} {{{b}}}Q)\n", "log(Q{w}|Q)\n"),
        ("{a} = {b}(fQ{w}|Q)\n", "{a} = {b}(Q{w}| {{}}Q)\n"),
        ("{a}({n}, fQ{w}| {{{b}}}Q)\n", "{a}({n}, Q{w}|Q)\n"),
    ),
}
CHOICES: Table = {
    "train": sides(
        ("{a} = {b}\nif {c}|:\n    {a} = {n}\n", "{a} = {b} if {c}| else {n}\n"),
        ("if {a}| > {n}:\n    {b}({c})\n", "{a}({b} if {c}| > {n} else {m})\n"),
    ),
    "validation": sides(
        ("{a} = {b}\nif {c}|:\n    pass\n", "{a} = {n} if {b}| else {c}\n"),
        ("if not {a}|:\n    {b} = {n}\n", "{a} = {b} if not {c}| else None\n"),
    ),
    "held_out": sides(
        ("{a} = {b}\nif {c}.{a}|:\n    {b}()\n", "{a} = {b} if {c}.{a}| else {b}()\n"),
        ("if {a} in {b}|:\n    {c}()\n", "{a} = {n} if {b} in {c}| else {m}\n"),
    ),
}
SWAPPED: Table = {
    "train": sides(
        ("x, {a}| = {a}, x\n", "y, {a}| = {a}, y\n"),
        ("{a} = x| + {n}\n", "{a} = y| + {n}\n"),
        ("print({a}, x|)\n", "print({a}, y|)\n"),
        ("x| = {n}\n", "y| = {n}\n"),
    ),
    "validation": sides(
        ("{a}, x| = x, {a}\n", "{a}, y| = y, {a}\n"),
        ("{a}({b}, x|)\n", "{a}({b}, y|)\n"),
        ("x| += {n}\n", "y| += {n}\n"),
    ),
    "held_out": sides(
        ("x, {a}| = {a}, {b}\n", "y, {a}| = {a}, {b}\n"),
        ("{a} = {b} - x|\n", "{a} = {b} - y|\n"),
        ("x| -= {a}\n", "y| -= {a}\n"),
    ),
}
GROUPS: Table = {
    "train": sides(
        ("for {a} in {b}:|\n    {c} = {n}\n", "assert {a} in {b}|\n{c} = {n}\n"),
        ("for {a}| in {b}({c}):\n    pass\n    {a}()\n", "{c} =| {a} in {b}\n"),
        ("{a} = [{b} for {b} in {c}]|\n", "return {a}| in {b}\n"),
    ),
    "validation": sides(
        ("for {a} in {b}.{c}:|\n    {a}()\n", "yield {a} in {b}|\n{a}()\n"),
        ("{a} = {b}({c} for {c} in {a})|\n", "{c} = not {a}| in {b}\n"),
        ("for {a}| in {b}[{n}]:\n    pass\n", "return not {a} in {b}|\n"),
    ),
    "held_out": sides(
        ("for {a} in {b}:|\n    {a} -= {n}\n    {b}()\n", "assert not {a}| in {b}\n{b}()\n"),
        ("{a} = {{{b} for {b} in {c}}}|\n", "{c} -=| {a} in {b}\n"),
        ("for {a}| in {b} + {c}:\n    pass\n", "{c} = {n} + ({a} in {b})|\n"),
    ),
}
FUNCTIONS: Table = {
    "train": sides(
        ("{a} = lambda {b}|: {c}\n", "def {b}|({c}):\n    pass\n"),
        ("{a}(key=lambda {b}|: {b})\n", "def {b}|():\n    return {n}\n"),
    ),
    "validation": sides(
        ("{a}.{c} = lambda {b}|: {n}\n", "async def {b}|({c}):\n    pass\n"),
        ("{a}({c}, lambda {b}|: {n})\n", "def {b}|(*{c}):\n    {a} = {n}\n"),
    ),
    "held_out": sides(
        ("{a} += lambda {b}|: {b} + {n}\n", "def {b}|({a}, {c}):\n    {a}()\n"),
        ("{a}.sort(key=lambda {b}|: -{b})\n", "def {b}|(self):\n    return {a}\n"),
    ),
}
COMPARED: Table = {
    "train": sides(
        ("if {a}| == {n}:\n    {b} = {n}\n", "{a}| = {n}\n{b} = {n}\n"),
        ("if {a}|:\n    {b}({c})\n", "{a}| = {b}({c})\n"),
        ("{a} = {b} if {c}| == {n} else {m}\n", "{a} = {b}| + {n}\n"),
        ("{a} = [{b} for {b} in {c} if {b}|]\n", "{a}| = [{b}, {c}]\n"),
    ),
    "validation": sides(
        ("if {a}| == {b}:\n    {c}()\n", "{a}| = {b}\n{c}()\n"),
        ("if {a}| < {n}:\n    pass\n", "{a}| = {n} < {b}\n"),
        ("{a} = {n} if {b}| else {c}\n", "{a}| = {b} or {c}\n"),
    ),
    "held_out": sides(
        ("if {a}| == None:\n    {b}()\n", "{a}| = None\n{b}()\n"),
        ("if {a}| != {n}:\n    {b} -= {n}\n", "{a}| = {b} != {n}\n"),
        ("{a}({b} if {c}| == {n} else None)\n", "{a}| = {b}({c}, None)\n"),
    ),
}
EQUALS: Table = {
    "train": sides(
        ("if {a} == {n}|:\n    {b} = {n}\n", "{a} = {n}|\n{b} = {n}\n"),
        ("if {a} == {b}|:\n    {c}()\n", "{a} = {b}|\n"),
        ("{a} = {b} if {c} == {n}| else {m}\n", "{a} = {b} == {n}|\n"),
        ("while {a} == {b}|:\n    {b}()\n", "{a} = {b} * {n}|\n"),
    ),
    "validation": sides(
        ("if {a} == -{n}|:\n    {b}()\n", "{a} = -{n}|\n{b}()\n"),
        ("if {a} == {b} or {c}|:\n    pass\n", "{a} = {b} or {c}|\n"),
        ("{a} = {n} if {b} == {c}| else {m}\n", "{a} = {b} == {c} - {n}|\n"),
    ),
    "held_out": sides(
        ("if {a} == None|:\n    {b}()\n", "{a} = None|\n{b}()\n"),
        ("if {a} == {b}.{c}|:\n    pass\n", "{a} = {b}.{c}|\n"),
        ("{a}({b} if {c} == {n}| else None)\n", "{a} = {b}({c} == {n}|)\n"),
    ),
}
COUNTED: Table = {
    "train": sides(
        ("for {a}, {b} in| enumerate({c}):\n    pass\n", "for {a} in| range({n}):\n    pass\n"),
        ("{a}, {b}| = {n}, {m}\n", "{a}| = {n}\n"),
        ("for {a}, {b} in| {c}:\n    {a}()\n", "for {a} in| {c}:\n    {a}()\n"),
    ),
    "validation": sides(
        ("for {a}, {b} in| enumerate({c}.{a}):\n    {b}()\n", "for {a} in| range({b}, {n}):\n    {a}()\n"),
        ("{a}, {b}| = {c}\n", "{a}| = {c}\n"),
        ("{a} = [{b} for {b}, {c} in| {a}]\n", "{a} = [{b} for {b} in| {a}]\n"),
    ),
    "held_out": sides(
        ("for {a}, {b} in| enumerate({c}({n})):\n    {a} += {b}\n", "for {a} in| range(len({c})):\n    {b} += {a}\n"),
        ("{a}, {b}| = {c}({n})\n", "{a}| = {c}({n})\n"),
        ("{a} = {{{b}: {c} for {b}, {c} in| {a}}}\n", "{a} = {{{b} for {b} in| {a}}}\n"),
    ),
}
ENDINGS: Table = {
    "train": sides(
        ("while True|:\n    {b} = {n}\n    break\n", "def {f}({a}):\n    return True|\n"),
        ("while True|:\n    {a}()\n", "if {a}:\n    return True|\n"),
    ),
    "validation": sides(
        ("while True|:\n    {a} += {n}\n", "for {a} in {b}:\n    return True|\n"),
        ("while True|:\n    {a}({b})\n    break\n", "return True|\n"),
    ),
    "held_out": sides(
        ("while True|:\n    if {a}:\n        break\n", "def {f}(self):\n    return True|\n"),
        ("while True|:\n    {a} -= {n}\n    {b}()\n", "if not {a}:\n    return True|\n"),
    ),
}
