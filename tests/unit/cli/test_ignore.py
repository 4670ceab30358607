"""`.dockerignore` decides as Docker does; the table follows moby/patternmatcher's own."""

from __future__ import annotations

import pytest

from uhm.errors import CommandError
from uhm.ignore import IgnoreRules, read_patterns

CASES = [
    # patterns, path, excluded
    (["**"], "file", True),
    (["**"], "dir/file", True),
    (["**/"], "file", True),
    (["**/**"], "dir/file", True),
    (["dir/**"], "dir/file", True),
    (["dir/**"], "dir", False),
    (["dir/**"], "dir/dir2/file", True),
    (["**/dir"], "dir", True),
    (["**/dir"], "dir/file", True),
    (["**/dir2/*"], "dir/dir2/file", True),
    (["**/dir2/*"], "dir/dir2/dir2/file", True),
    (["**file"], "file", True),
    (["**file"], "dir/file", True),
    (["**file"], "dir/otherfile", True),
    (["**/file"], "dir/otherfile", False),
    (["**/file"], "file", True),
    (["**/*file"], "dir/otherfile", True),
    (["**/*.txt"], "dir/file.txt", True),
    (["**/**/*.txt"], "dir/dir/file.txt", True),
    (["a**/*.txt"], "a/dir/file.txt", True),
    (["a/*.txt"], "a/file.txt", True),
    (["a/*.txt"], "a/dir/file.txt", False),
    (["a[b-d]e"], "ace", True),
    (["a[b-d]e"], "ae", False),
    (["a[^b-d]e"], "aze", True),
    (["a[^b-d]e"], "ace", False),
    (["abc.def"], "abcZdef", False),
    (["abc?def"], "abcZdef", True),
    (["abc?def"], "abc/def", False),
    (["a\\*b"], "a*b", True),
    (["a\\*b"], "axb", False),
    (["a\\\\"], "a\\", True),
    (["a(b"], "a(b", True),
    (["a|b"], "a|b", True),
    (["a|b"], "a", False),
    (["a.|)$(}+{bc"], "a.|)$(}+{bc", True),
    (["*"], "file", True),
    (["*", "!keep"], "keep", False),
    (["*", "!keep"], "keep/file", False),
    (["*", "!keep", "keep/secret"], "keep/secret", True),
    (["dir", "!dir/keep"], "dir/keep", False),
    (["dir", "!dir/keep"], "dir/other", True),
    (["!keep", "*"], "keep", True),
    (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
    (["*.md", "!README*.md"], "README.md", False),
    (["dir/"], "dir/file", True),
    (["/dir"], "dir/file", True),
    (["./dir"], "dir", True),
    (["a/../dir"], "dir", True),
    (["name"], "names", False),
    (["ü*"], "über", True),
    (["."], "file", False),
    ([], "file", False),
]


@pytest.mark.parametrize(("patterns", "path", "excluded"), CASES)
def test_decides_as_docker(patterns, path, excluded):
    assert IgnoreRules(read_patterns("\n".join(patterns))).excludes(path) is excluded


def test_reads_a_file():
    text = "\ufeff# comment\n\n  /abs/path/ \n!  /kept\n #not a comment\n"
    assert read_patterns(text) == ["abs/path", "!kept", "#not a comment"]


@pytest.mark.parametrize("text", ["!", "a[b"])
def test_a_malformed_pattern_is_told(text):
    with pytest.raises(CommandError):
        IgnoreRules(read_patterns(text))


def test_looks_below_an_excluded_directory_only_where_something_is_taken_back():
    rules = IgnoreRules(["dir", "!dir/keep", "!other/x"])
    assert not rules.excludes_below("dir")
    assert rules.excludes_below("third")
    assert not IgnoreRules(["dir", "!**/keep"]).excludes_below("dir")


def test_what_the_engine_needs_is_kept():
    rules = IgnoreRules(["*"]).keeping(["Dockerfile", ".dockerignore"])
    assert not rules.excludes("Dockerfile")
    assert rules.excludes("secret")
