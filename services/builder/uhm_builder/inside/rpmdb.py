"""The packages of an rpm database, read by the rpm program on a copy.

The database is SQLite, ndb or Berkeley DB, and its records are rpm's own: nobody but rpm(8) reads them all. It runs as
nobody, without new privileges, and with bounds on its memory, time and output, because the database is the image's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from uhm_builder.errors import NoSuchFile, NotReadable
from uhm_common.process import ProcessFailed, run

if TYPE_CHECKING:
    from uhm_builder.inside.tree import Tree

__all__ = ["read_rpm_packages"]

DIRECTORIES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
DATABASES = ("rpmdb.sqlite", "Packages.db", "Packages")
MAX_DATABASE_BYTES = 512 << 20
SECONDS = 60.0
FIELDS = ("name", "version", "architecture", "license", "supplier")
QUERY = "%{NAME}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\t%{ARCH}\t%{LICENSE}\t%|VENDOR?{%{VENDOR}}|\n"
BOUNDED = ("prlimit", "--as=2147483648", "--cpu=60", "--fsize=1073741824", "--core=0", "--")
UNPRIVILEGED = ("setpriv", "--no-new-privs", "--")
NOBODY_ID = 65534
NOBODY = ("setpriv", "--no-new-privs", f"--reuid={NOBODY_ID}", f"--regid={NOBODY_ID}", "--clear-groups", "--")


def read_rpm_packages(tree: Tree) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """The packages as fields of `Package`, and a sentence where there is a database that could not be read."""
    for directory in DIRECTORIES:
        for name in DATABASES:
            try:
                content = tree.read_whole(f"{directory}/{name}", limit=MAX_DATABASE_BYTES)
            except (NoSuchFile, NotReadable):
                continue
            return _query(name, content)
    return [], ()


def _query(name: str, content: bytes) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    if shutil.which("rpm") is None:
        return [], ("The image has an rpm database, and rpm is not installed here to read it: `make setup`.",)
    with tempfile.TemporaryDirectory(prefix="uhm-rpm-") as directory:
        database = Path(directory, name)
        database.write_bytes(content)
        unprivileged: tuple[str, ...] = UNPRIVILEGED
        if os.geteuid() == 0:
            unprivileged = NOBODY
            for path in (Path(directory), database):  # sqlite writes beside what it reads
                os.chown(path, NOBODY_ID, NOBODY_ID)
        argv = [*BOUNDED, *unprivileged, "rpm", "--dbpath", directory, "-qa", "--queryformat", QUERY]
        try:
            output = run(argv, timeout=SECONDS).stdout
        except ProcessFailed:
            return [], ("The image's rpm database cannot be read.",)
    rows = (line.split("\t", len(FIELDS) - 1) for line in output.decode(errors="replace").splitlines())
    return [dict(zip(FIELDS, row, strict=True)) for row in rows if len(row) == len(FIELDS)], ()
