"""What docs/portable.md promises of users, files and scripts, in a root that is a directory of this host."""

from __future__ import annotations

import base64
import gzip
import os
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.cloud_bench import PASSWD, needs_root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cloud_bench import Cloud

pytestmark = [pytest.mark.integration, needs_root]
pytest_plugins = ("tests.integration.cloud_bench",)

ALICE = """#cloud-config
groups: [ops: [alice, nobody], empty]
users:
  - default
  - name: alice
    gecos: Alice A.
    uid: 1500
    groups: wheel, docker
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
    lock_passwd: false
    hashed_passwd: $6$salt$hash
    ssh_authorized_keys: [ssh-ed25519 CCCC alice]
  - {name: daemon1, system: true, no_create_home: true, primary_group: users}
ssh_authorized_keys: [ssh-ed25519 BBBB top]
"""


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def days_since_1970() -> int:
    return int(time.time() // 86400)


def test_users_groups_and_keys(cloud: Cloud) -> None:
    cloud.give("meta-data", "instance-id: i\npublic-keys: [ssh-ed25519 AAAA meta]\n")
    (cloud.root / "etc/skel").mkdir()
    (cloud.root / "etc/skel/.profile").write_text("umask 022\n")
    answer = cloud.run(ALICE)
    assert answer.problems == ()
    assert answer.pairs == ()
    assert cloud.lines("etc/passwd")[2:] == [
        "alice:x:1500:1500:Alice A.:/home/alice:/bin/bash",
        "daemon1:x:100:100::/home/daemon1:/bin/sh",
    ]
    assert cloud.lines("etc/group")[3:] == [
        "alice:x:1500:",
        "wheel:x:1501:alice",
        "docker:x:1502:alice",
        "ops:x:1503:alice,nobody",
        "empty:x:1504:",
    ]
    today = days_since_1970()
    assert cloud.lines("etc/shadow") == [
        f"alice:$6$salt$hash:{today}:0:99999:7:::",
        f"daemon1:*:{today}:0:99999:7:::",
    ]
    assert cloud.text("home/alice/.ssh/authorized_keys") == "ssh-ed25519 CCCC alice\n"
    assert cloud.text("root/.ssh/authorized_keys") == "ssh-ed25519 AAAA meta\nssh-ed25519 BBBB top\n"
    assert cloud.text("etc/sudoers.d/90-cloud-init-users") == "alice ALL=(ALL) NOPASSWD:ALL\n"
    assert not (cloud.root / "home/daemon1").exists()
    assert {
        path: owner_and_mode(cloud.root / path)
        for path in ("home", "home/alice", "home/alice/.profile", "home/alice/.ssh", "home/alice/.ssh/authorized_keys")
    } == {
        "home": (0, 0, 0o755),
        "home/alice": (1500, 1500, 0o700),
        "home/alice/.profile": (1500, 1500, 0o644),
        "home/alice/.ssh": (1500, 1500, 0o700),
        "home/alice/.ssh/authorized_keys": (1500, 1500, 0o600),
    }
    assert owner_and_mode(cloud.root / "etc/shadow") == (0, 0, 0o640)
    assert owner_and_mode(cloud.root / "etc/sudoers.d/90-cloud-init-users") == (0, 0, 0o440)


def test_another_instance_changes_nothing_that_is_there_already(cloud: Cloud) -> None:
    cloud.run(ALICE)
    before = {path: path.read_bytes() for path in cloud.root.rglob("*") if path.is_file()}
    cloud.give("meta-data", "instance-id: second\n")
    assert cloud.run().problems == ()
    after = {path: path.read_bytes() for path in cloud.root.rglob("*") if path.is_file()}
    marker = cloud.root / "var/lib/uhmalguhm/instance-id"
    assert (before.pop(marker), after.pop(marker)) == (b"first\n", b"second\n")
    assert before == after


def test_an_instance_is_made_once_but_named_every_time(cloud: Cloud) -> None:
    assert cloud.run("#cloud-config\nwrite_files: [{path: /a, content: one}]\n").pairs == (("hostname", "shop"),)
    (cloud.root / "a").write_text("the machine's")
    assert cloud.run("#cloud-config\nwrite_files: [{path: /a, content: two}]\n").pairs == (("hostname", "shop"),)
    assert cloud.text("a") == "the machine's"
    cloud.give("meta-data", "instance-id: other\n")
    cloud.run()
    assert cloud.text("a") == "two"


@pytest.mark.parametrize(
    ("user_data", "shadow", "changed"),
    [
        ("password: $6$a$b\nchpasswd: {expire: false}", "root:$6$a$b", True),
        ("password: $6$a$b", "root:$6$a$b", False),
        ("chpasswd: {list: 'root:$6$a$b\n\nnobody:$5$c', expire: false}", "root:$6$a$b", True),
        ("chpasswd: {list: ['root:$6$a$b'], expire: false}", "root:$6$a$b", True),
        ("chpasswd: {users: [{name: root, password: $6$a$b}], expire: false}", "root:$6$a$b", True),
        ("user: {name: root, lock_passwd: false, hashed_passwd: $6$a$b}", "root:$6$a$b", True),
        ("user: {name: root, lock_passwd: true}", "root:*", True),
    ],
)
def test_passwords(cloud: Cloud, user_data: str, shadow: str, changed: bool) -> None:
    assert cloud.run(f"#cloud-config\n{user_data}\n").problems == ()
    name, secret, day, _ = cloud.lines("etc/shadow")[0].split(":", 3)
    assert f"{name}:{secret}" == shadow
    assert int(day) == (days_since_1970() if changed else 0)


def test_a_password_is_hashed(cloud: Cloud) -> None:
    cloud.run('#cloud-config\nuser: web\npassword: "it\'s: öß"\nchpasswd: {expire: false}\n')
    _, secret, _ = cloud.lines("etc/shadow")[0].split(":", 2)
    _, method, salt, _ = secret.split("$")
    assert method == "6"
    again = ["busybox", "mkpasswd", "-m", "sha512", "-S", salt, "it's: öß"]
    assert subprocess.run(again, capture_output=True, text=True, check=True, timeout=10).stdout.strip() == secret
    assert cloud.lines("etc/passwd")[2].startswith("web:x:1000:1000:")


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("{name: 'a:b'}", "no user a:b is made"),
        ("{name: ../x}", "no user ../x is made"),
        ("{name: x, gecos: 'a:b'}", "gecos, homedir or shell has a colon"),
        ('{name: x, shell: "/bin/sh\\nroot2:x:0:0::/:/bin/sh"}', "gecos, homedir or shell has a colon"),
        ("{name: x, homedir: home}", "homedir no leading /"),
        ("{name: x, uid: 0}", "the uid 0 is taken"),
        ("{name: x, uid: minus}", "uid minus is no number"),
        ("{name: x, uid: 99999999999999999999}", "is taken or none"),
        ("{gecos: nobody}", "it has no name"),
        ("{name: x, selinux_user: y}", "selinux_user is not supported"),
        ('{name: x, hashed_passwd: "a:b", lock_passwd: false}', "no password is set for x"),
    ],
)
def test_users_that_are_wrong(cloud: Cloud, user: str, problem: str) -> None:
    answer = cloud.run(f"#cloud-config\nusers: [{user}]\n")
    assert any(problem in line for line in answer.problems), answer
    assert "root2" not in cloud.text("etc/passwd")
    assert cloud.text("etc/passwd").startswith(PASSWD)


def test_files(cloud: Cloud) -> None:
    (cloud.root / "appended").write_text("old ")
    (cloud.root / "appended").chmod(0o600)
    packed = base64.encodebytes(gzip.compress(b"packed")).decode()
    answer = cloud.run(f"""#cloud-config
users: [{{name: web}}]
write_files:
  - {{path: /plain, content: "a\\nb\\n"}}
  - {{path: /made/of/parts, content: x, permissions: '0640', owner: 'web:users'}}
  - {{path: /appended, content: new, append: true}}
  - {{path: /base64, encoding: b64, content: aGVsbG8=}}
  - {{path: /binary, content: !!binary aGVsbG8=}}
  - {{path: /packed-binary, encoding: gz, content: !!binary {packed.replace(chr(10), "")}}}
  - {{path: /zeros, encoding: base64, content: AAAA}}
  - {{path: /empty}}
  - path: /packed
    encoding: gz+b64
    content: |
      {packed}
""")
    assert answer.problems == ()
    expected = {
        "plain": b"a\nb\n",
        "made/of/parts": b"x",
        "appended": b"old new",
        "base64": b"hello",
        "binary": b"hello",
        "packed-binary": b"packed",
        "zeros": bytes(3),
    }
    expected |= {"packed": b"packed", "empty": b""}
    assert {path: (cloud.root / path).read_bytes() for path in expected} == expected
    assert owner_and_mode(cloud.root / "plain") == (0, 0, 0o644)
    assert owner_and_mode(cloud.root / "made/of/parts") == (1000, 100, 0o640)
    assert owner_and_mode(cloud.root / "made/of") == (0, 0, 0o755)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("{path: relative, content: x}", "a path that begins with /"),
        ("{content: x}", "a path that begins with /"),
        ("{path: /, content: x}", "Is a directory"),
        ("{path: /etc/, content: x}", "Is a directory"),
        ("{path: /etc, content: x}", "directory"),
        ("{path: /etc/passwd/x, content: x}", "Not a directory"),
        ("{path: /x, content: '%%%', encoding: b64}", "not so encoded"),
        ("{path: /x, content: AAA, encoding: b64}", "not so encoded"),
        ("{path: /x, content: AAAA, encoding: gz+b64}", "not so encoded"),
        ("{path: /x, content: AAAA, encoding: rot13}", "encoding is unknown"),
        ("{path: /x, content: x, permissions: 'rw'}", "no octal number"),
        ("{path: /x, content: x, owner: 'ghost:ghosts'}", "owner does not exist"),
        ("{path: /x, source: {uri: 'http://127.0.0.1/'}}", "not supported"),
        ('{path: "/a\\0b", content: x}', "a path that begins with /"),
        ("{path: /etc, content: x, append: true}", "what is there already cannot be read"),
    ],
)
def test_files_that_are_wrong(cloud: Cloud, item: str, problem: str) -> None:
    answer = cloud.run(f"#cloud-config\nwrite_files: [{item}, {{path: /good, content: good}}]\n")
    assert any(problem in line for line in answer.problems), answer
    assert cloud.text("good") == "good"


def test_what_is_too_large_to_be_added_to_stays(cloud: Cloud) -> None:
    with (cloud.root / "log").open("wb") as file:
        file.truncate((16 << 20) + 1)
    answer = cloud.run("#cloud-config\nwrite_files: [{path: /log, content: x, append: true}]\n")
    assert "too large" in answer.problems[0]
    assert (cloud.root / "log").stat().st_size == (16 << 20) + 1
    assert not (cloud.root / "x").exists()


@pytest.mark.parametrize("link", ["/out", "../../../../../../../../../..{out}", "{out}"])
def test_no_path_and_no_link_leads_out_of_the_root(cloud: Cloud, tmp_path: Path, link: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").write_text("kept")
    target = link.format(out=out)
    for name in ("dir", "home"):
        (cloud.root / name).symlink_to(target)
    (cloud.root / "file").symlink_to(f"{target}/kept")
    (cloud.root / "etc/sudoers.d").symlink_to(target)
    up = "/.." * 20
    cloud.run(f"""#cloud-config
users: [{{name: eve, sudo: ALL, ssh_authorized_keys: [key]}}]
write_files:
  - {{path: /dir/a, content: x}}
  - {{path: /file, content: x}}
  - {{path: "{up}{out}/b", content: x}}
  - {{path: "/etc/{up}{out}/c", content: x, append: true}}
""")
    assert [path.name for path in out.iterdir()] == ["kept"]
    assert (out / "kept").read_text() == "kept"
    assert cloud.text("file") == "x"
    assert not (cloud.root / "file").is_symlink()
    assert (cloud.root / str(out)[1:] / "b").read_text() == "x"


@pytest.mark.parametrize("name", ["passwd", "group", "shadow"])
def test_a_table_of_users_that_is_none_is_left_alone(cloud: Cloud, name: str) -> None:
    (cloud.root / "etc" / name).unlink(missing_ok=True)
    os.mkfifo(cloud.root / "etc" / name)
    answer = cloud.run(ALICE)
    assert "users are left as they are" in answer.problems[0]
    assert stat.S_ISFIFO((cloud.root / "etc" / name).stat().st_mode)


def test_commands_become_scripts_of_the_instance(cloud: Cloud) -> None:
    cloud.run("#cloud-config\nbootcmd: [echo early]\nruncmd:\n  - echo $HOME | cat\n  - [printf, '%s', \"it's\", '']\n")
    directory = cloud.root / "etc/uhmalguhm/first-boot.d"
    assert sorted(path.name for path in directory.iterdir()) == [
        "50-cloud-init-bootcmd-first",
        "60-cloud-init-runcmd-first",
    ]
    assert (directory / "60-cloud-init-runcmd-first").read_text().splitlines() == [
        "#!/bin/sh",
        "echo $HOME | cat",
        r"'printf' '%s' 'it'\''s' '' ",
    ]
    assert owner_and_mode(directory / "50-cloud-init-bootcmd-first") == (0, 0, 0o755)


@pytest.mark.parametrize(
    "wrap", [bytes, gzip.compress, base64.b64encode, lambda text: base64.b64encode(gzip.compress(text))]
)
def test_user_data_may_be_a_script_or_wrapped(cloud: Cloud, wrap: type[bytes]) -> None:
    script = b"#!/bin/sh\necho hello\n"
    cloud.give("meta-data", "instance-id: ../a b\n")
    assert cloud.run(wrap(script)).problems == ()
    directory = cloud.root / "etc/uhmalguhm/first-boot.d"
    assert (directory / "70-cloud-init-user-data----a-b").read_bytes() == script


@pytest.mark.parametrize(
    ("user_data", "problem"),
    [
        ("#include\nhttp://127.0.0.1/\n", "begins neither with"),
        ("Content-Type: multipart/mixed; boundary=x\n", "begins neither with"),
        ("#cloud-config\n- a\n- b\n", "not a map"),
        ("#cloud-config\na: [1, 2\n", "line 3, column 1: did not find expected"),
        ("#cloud-config\na: *nowhere\n", "undefined alias"),
        ('#cloud-config\na: "\\ud800"\n', "line 2"),
        ("#cloud-config\na: \x01\n", "control characters are not allowed"),
        ("#cloud-config\n" + "a: [" * 20_000, "user-data is left out"),
        ("#cloud-config\na: " + "[" * 200_000, "user-data is left out"),
        ("#cloud-config\npackages: [nginx]\n", "packages is not supported and ignored"),
        ('#cloud-config\n"\\e[2J": x\n', "user-data: ?[2J is not supported"),
        ("#cloud-config\nhostname: 'a b'\n", "is no name for a machine"),
        (b"\x1f\x8b\x08\x00broken", "damaged gzip"),
        ("x" * (1 << 20) + "x", "larger than 1 MiB"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_user_data_that_is_wrong_is_said(cloud: Cloud, user_data: str | bytes, problem: str) -> None:
    answer = cloud.run(user_data)
    assert any(problem in line for line in answer.problems), answer
    assert len(answer.problems) <= 2


@pytest.mark.parametrize(
    "user_data",
    [
        "#cloud-config\nusers: [" + "[]," * 300_000 + "]",
        "#cloud-config\nusers: [" + "default," * 120_000 + "]",
        "#cloud-config\nusers: [" + "".join(f"u{i}," for i in range(20_000)) + "]",
        "#cloud-config\na: &a [x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]\n" for i in range(20)),
        "#cloud-config\nusers: &a [*a, *a, {name: *a}]\n",
        "#cloud-config\nwrite_files: &a [*a, {path: *a, content: *a}]\nruncmd: *a\n",
        "#cloud-config\n? " + "x" * 500_000 + "\n: y\n",
    ],
    ids=["lists", "the same user", "many users", "laughs", "users in themselves", "files in themselves", "a long key"],
)
def test_hostile_user_data_is_bounded(cloud: Cloud, user_data: str) -> None:
    started = time.monotonic()
    cloud.run(user_data)
    assert time.monotonic() - started < 10
    assert cloud.text("etc/passwd").startswith(PASSWD)


def test_a_gzip_bomb_is_bounded(cloud: Cloud) -> None:
    answer = cloud.run(gzip.compress(b"#cloud-config\n#" + bytes(64 << 20)))
    assert "damaged gzip, or holds too much" in answer.problems[0]


@pytest.mark.parametrize(
    ("meta_data", "user_data", "expected"),
    [
        ("instance-id: i", "", []),
        ("local-hostname: a", "#cloud-config\n{}", ["a"]),
        ("local-hostname: a", "#cloud-config\nhostname: b", ["b"]),
        ("local-hostname: a", "#cloud-config\nfqdn: c.example.org", ["c"]),
        ("local-hostname: a", "#cloud-config\npreserve_hostname: true", []),
        ('{"instance-id":"i","local-hostname":"json"}', "", ["json"]),
        ("local-hostname: null", "", []),
        ("- a", "", []),
    ],
)
def test_names(cloud: Cloud, meta_data: str, user_data: str, expected: list[str]) -> None:
    cloud.give("meta-data", meta_data)
    assert cloud.run(user_data).pairs == tuple(("hostname", name) for name in expected)


def test_a_config_drive(cloud: Cloud) -> None:
    meta_data = '{"uuid":"83-1","name":"n","hostname":"drive.novalocal","public_keys":{"mine":"ssh-rsa A\\/B mine\\n"}}'
    cloud.give("openstack/latest/meta_data.json", meta_data)
    cloud.give("openstack/latest/user_data", "#cloud-config\nwrite_files: [{path: /a, content: b}]\n")
    assert cloud.run().pairs == (("hostname", "drive"),)
    assert cloud.text("a") == "b"
    assert cloud.text("root/.ssh/authorized_keys") == "ssh-rsa A/B mine\n"
    assert cloud.text("var/lib/uhmalguhm/instance-id") == "83-1\n"
