"""LogManager's regular expressions are Java's: what they match there, they match here, or they are refused by name."""

import warnings

import pytest

from edgeml.errors import ConfigError
from log_shipper.java_regex import compiled
from log_shipper.scan import is_compressed

LITERAL, PUNCTUATION = "#x &~ {", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

MATCHES = [
    (r"^\Qa+b\E\w*.txt", ["a+b_1.txt"], ["aab.txt"]),
    (r"\Q.log", ["x.log"], ["xlog"]),
    (r"^(?<day>\d+)-\k<day>$", ["12-12"], ["12-13"]),
    (r"^(?P<day>\d+)-(?P=day)$", ["12-12"], ["12-13"]),
    (r"^(a)\1", ["aa"], ["ab"]),
    (r"^a(?i)b|c$", ["aB", "C"], ["AB"]),
    (r"^((?i)a)b$", ["Ab"], ["AB"]),
    (r"^(a|b(?i)c|d(?-i)e)$", ["a", "bC", "De"], ["DE", "BC", "A"]),
    (r"^(?i:a)b$", ["Ab"], ["AB"]),
    (r"(?i)^\p{Lower}+$", ["aB"], ["1"]),
    (r"^\p{Digit}+\z", ["12"], ["12\n", "١٢"]),
    (r"^\d\Z", ["1", "1\n", "1\r\n"], ["1\n\n", "²"]),
    (r"^[\w&&[^\d]]+\z", ["abc"], ["ab1", "-"]),
    (r"^[a-z&&[^aeiou]]+$", ["xyz"], ["xaz"]),
    (r"^[a-z&&[def]&&[^e]]$", ["d"], ["e", "a"]),
    (r"^[a-d[m-p]]+$", ["an"], ["ae"]),
    (r"^[a[^a-y]]$", ["a", "z"], ["b"]),
    (r"^[^a-z&&[def]]$", ["a", "1"], ["e"]),
    (r"^[\p{L}&&[^\p{Lu}]]$", ["ä", "a"], ["Ä", "1"]),
    (r"^[\]\[\^a-]+$", ["[]^a-"], ["b"]),
    (r"^[]a]$", ["]", "a"], ["b"]),
    (r"^[\Qa]-\E]+$", ["a]-"], ["b"]),
    (r"^\h+\H\v\V$", ["\t \u3000x\u2028x"], [" x x"]),
    (r"^a\Rb$", ["a\r\nb", "a\u2028b"], ["ab"]),
    (r"^a++b(?>c+)d{1,2}+$", ["aabccd"], ["b"]),
    (r"^\x41\x{42}\u0043\0104\cA\e\t$", ["ABCD\x01\x1b\t"], ["ABCD"]),
    (r"^\ud83d\ude00$", ["\U0001f600"], ["x"]),
    (r"^\p{Lu}\pL\P{L}$", ["Éa1"], ["éa1"]),
    (r"^\p{Punct}+$", [PUNCTUATION], ["a", " "]),
    (r"^.$", ["a", "ä"], ["\r", "\u2028"]),
    (r"(?s)^.$", ["\r", "\n"], ["ab"]),
    (r"(?x) ^ a b $ # a comment", ["ab"], ["a b"]),
    (r"(?m)^b$", ["a\nb\nc"], ["ab"]),
    (r"^\w+$", ["a_1"], ["ü"]),
    (r"(?U)^\w+$", ["ü"], ["-"]),
    (r"(?iu)^Ü\w$", ["üa"], ["üü"]),
    (r"(?<=a)b(?=c)(?!d)(?<!x)", ["abc"], ["bc"]),
    (r"^[\[(]?\d{4}-\d\d-\d\d|^\{", ["[2026-11-21", "{"], ["x2026-11-21"]),
    (r"^#x\ &~ \{$", [LITERAL], []),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), MATCHES, ids=[case[0].encode().hex()[:40] for case in MATCHES])
def test_what_java_matches_matches_here(pattern: str, yes: list[str], no: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compiled(pattern, "here")
    assert [text for text in yes if not found.search(text)] == []
    assert [text for text in no if found.search(text)] == []


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        (r"\p{IsLatin}", r"\p{IsLatin}"),
        (r"[\P{InGreek}]", r"\P{InGreek}"),
        (r"\Gx", r"\G"),
        (r"\X", r"\X"),
        (r"\y", r"\y"),
        (r"(?<1>a)", "(?<1"),
        (r"(?z)a", "flag z"),
        (r"a(?u)b", "(?u)"),
        (r"[\w-z]", "range"),
        (r"(?<=a*)b", "look-behind"),
        (r"\x{FFFFFF}", "no character"),
        ("(", "not closed"),
        ("a)", "unbalanced"),
        ("[a", "not closed"),
        (r"\p", "without a name"),
        (r"\p{", "without a name"),
        ("\\", "backslash"),
        ("*a", "repeat"),
        ("a{99999999999}", "repetition"),
        ("(?P<", "(?P<"),
        ("(?P=", "(?P="),
        ("(?", "(?"),
        ("[" * 500, "nested too deeply"),
        ("(" * 500, "not closed"),
    ],
    ids=str,
)
def test_what_cannot_be_said_here_is_refused_by_its_name_and_place(pattern: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(pattern, "some.place")
    assert caught.value.path == "some.place"
    assert named in str(caught.value)


def test_compressed_leftovers_of_rotations_are_no_logs() -> None:
    kinds = ["gz", "tgz", "bz2", "xz", "zst", "lz4", "Z", "zip", "lzma", "tar.gz", "GZ"]
    assert [kind for kind in kinds if not is_compressed(f"a.log.1.{kind}")] == []
    assert not is_compressed("a.log.1")
