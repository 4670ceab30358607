"""A build context is what is not ignored, and the same directory is the same archive."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from uhm.context import open_context, packed_context
from uhm.errors import CommandError


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.c").write_text("int main;\n")
    (tmp_path / "src" / "main.o").write_bytes(b"\0" * 1000)
    (tmp_path / "node_modules" / "left").mkdir(parents=True)
    (tmp_path / "node_modules" / "left" / "pad.js").write_text("")
    (tmp_path / "link").symlink_to("src/main.c")
    return tmp_path


def archive(context) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(context.tar())))


def names(context) -> list[str]:
    return archive(context).getnames()


def test_everything_in_order(tree):
    assert names(open_context(tree)) == [
        "Dockerfile", "link", "node_modules", "node_modules/left", "node_modules/left/pad.js",
        "src", "src/main.c", "src/main.o",
    ]  # fmt: skip


def test_ignored_paths_are_left_out(tree):
    (tree / ".dockerignore").write_text("node_modules\n**/*.o\nDockerfile\n")
    assert names(open_context(tree)) == [".dockerignore", "Dockerfile", "link", "src", "src/main.c"]


def test_an_excluded_directory_comes_with_what_is_taken_back(tree):
    (tree / ".dockerignore").write_text("*\n!src/main.c\n!node_modules/none\n")
    assert names(open_context(tree)) == [".dockerignore", "Dockerfile", "src", "src/main.c"]


def test_an_ignore_file_of_the_dockerfiles_own_comes_first(tree):
    (tree / "other.Dockerfile").write_text("FROM scratch\n")
    (tree / "other.Dockerfile.dockerignore").write_text("src\n")
    (tree / ".dockerignore").write_text("node_modules\n")
    context = open_context(tree, dockerfile="other.Dockerfile")
    assert context.dockerfile == "other.Dockerfile"
    assert "node_modules" in names(context)
    assert "src" not in names(context)


def test_the_same_directory_gives_the_same_bytes(tree):
    first = b"".join(open_context(tree).tar())
    os.utime(tree / "src" / "main.c", ns=(0, (tree / "src" / "main.c").stat().st_mtime_ns // 10**9 * 10**9))
    assert b"".join(open_context(tree).tar()) == first


def test_entries_keep_mode_and_content_and_lose_their_owner(tree):
    (tree / "src" / "main.c").chmod(0o750)
    entries = archive(open_context(tree))
    member = entries.getmember("src/main.c")
    assert (member.mode, member.uid, member.gid, member.uname) == (0o750, 0, 0, "")
    content = entries.extractfile(member)
    assert content is not None
    assert content.read() == b"int main;\n"
    assert entries.getmember("link").linkname == "src/main.c"


def test_odd_names_and_kinds(tree):
    long = "d" * 120
    (tree / long).mkdir()
    (tree / long / ("ü" * 60)).write_text("x")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(tree)
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
    found = names(open_context(tree))
    assert f"{long}/{'ü' * 60}" in found
    assert "fifo" in found
    assert "socket" not in found


def test_no_dockerfile(tree):
    (tree / "Dockerfile").unlink()
    with pytest.raises(CommandError, match="There is no Dockerfile"):
        open_context(tree)


def test_a_dockerfile_outside(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "Dockerfile"
    outside.write_text("FROM scratch\n")
    with pytest.raises(CommandError, match="outside"):
        open_context(tree, dockerfile=str(outside))


def test_a_file_that_shrinks_is_told(tree):
    pieces = open_context(tree).tar()
    big = tree / "a-first"
    big.write_bytes(b"x" * 600_000)
    next(pieces)
    for piece in pieces:
        if len(piece) > 100_000:
            os.truncate(big, 300_000)
            break
    with pytest.raises(CommandError, match="became shorter"):
        list(pieces)


def packed(kind: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=kind) as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"), io.BytesIO())
    return buffer.getvalue()


class Piped(io.BytesIO):
    """Standard input, which cannot be read twice."""

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_packed_context_can_be_read_again(kind):
    content = packed(kind) + b"\0" * 1_000_000
    with packed_context(Piped(content), dockerfile="b/Dockerfile") as context:
        assert b"".join(context.tar()) == content
        assert b"".join(context.tar()) == content
        assert context.dockerfile == "b/Dockerfile"


@pytest.mark.parametrize("content", [b"", b"FROM nginx\n", b"\0" * 512, b"PK\3\4" + bytes(600)])
def test_what_is_no_archive_is_refused(content):
    with pytest.raises(CommandError, match="no tar archive"):
        packed_context(Piped(content))


@pytest.mark.parametrize("dockerfile", ["../Dockerfile", "/etc/passwd", "a/../../b"])
def test_a_dockerfile_outside_the_archive_is_refused(dockerfile):
    with pytest.raises(CommandError, match="outside the archive"):
        packed_context(Piped(packed()), dockerfile=dockerfile)
