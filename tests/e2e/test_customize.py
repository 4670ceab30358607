"""An image with something on top, made, looked into and run by the command line."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvbw someone@somewhere"
LOOK = "cat /etc/motd; id -un ann; hostname; cat /var/first-boot; stat -c '%a %U' /home/ann/.ssh/authorized_keys"


def test_a_customised_image_has_it_all_when_it_runs(system, tmp_path):
    token = system.user("customiser")

    def uhm(*arguments, **more):
        return system.uhm(*arguments, token=token, **more).stdout

    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("hello")
    script = tmp_path / "first.sh"
    script.write_text("echo once >> /var/first-boot\n")
    key = tmp_path / "key.pub"
    key.write_text(f"# mine\n{KEY}\n")

    uhm("pull", "debian")
    options = ("--copy-in", f"{site}:/srv", "--write", "/etc/motd:welcome\n", "--chmod", "0600:/etc/motd")
    user = ("--user", "ann:groups=users,shell=/bin/bash", "--ssh-key", f"ann:file:{key}")
    boot = ("--hostname", "customised", "--run-first-boot", str(script))
    made = json.loads(uhm("customize", "debian", "-t", "mine", *options, *user, *boot, "--json"))
    assert [stage["name"] for stage in made["stages"]] == ["resolve", "customize", "convert", "compose"]
    assert [layer.get("reused", False) for layer in made["layers"]] == [True, False]

    ran = uhm("run", "--rm", "mine", "sh", "-c", LOOK)
    assert ran.splitlines() == ["welcome", "ann", "customised", "once", "600 ann"]

    assert uhm("cat", "mine", "/srv/site/index.html") == "hello"
    assert "-rw------- 0:0 8 /etc/motd" in uhm("files", "mine", "/etc/motd")
    changes = uhm("diff", "debian", "mine").splitlines()
    assert {"A /srv/site/index.html", "C /etc/passwd", "A /home/ann/.ssh/authorized_keys"} <= set(changes)
    assert all(line.split()[1].startswith(("/srv", "/etc", "/home")) for line in changes)
    packages = {each["name"] for each in json.loads(uhm("sbom", "mine"))["components"]}
    assert {"dpkg", "libc6"} <= packages

    refused = system.uhm("customize", "debian", "-t", "x", "--write", "/etc:y", token=token, check=False)
    assert (refused.returncode, "/etc is a directory in the image" in refused.stderr) == (1, True)
    assert "no /nope in the image" in system.uhm("cat", "mine", "/nope", token=token, check=False).stderr
