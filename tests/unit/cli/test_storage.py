"""`uhm storage` and `uhm publish`."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Refusal, Stream

PUBLICATION = {
    "id": "p" * 32,
    "image": "i" * 32,
    "reference": "nginx:latest",
    "storage": "s3",
    "format": "qcow2",
    "status": "publishing",
    "done_bytes": "10",
    "total_bytes": "100",
}
DONE = PUBLICATION | {"status": "published", "done_bytes": "100"}
WATCH = f"GET /api/v1/publications/{'p' * 32}:watch"


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("dir", "disks"), {"directory": {"path": "disks"}}),
        (
            ("s3", "bucket/team/vms", "-u", "ID", "-p", "hush", "--endpoint", "http://s3", "--region", "eu"),
            {
                "s3": {
                    "endpoint": "http://s3",
                    "bucket": "bucket",
                    "prefix": "team/vms",
                    "region": "eu",
                    "access_key_id": "ID",
                    "secret_access_key": "hush",
                }
            },
        ),
        (("registry", "r.example/x"), {"registry": {"repository": "r.example/x", "username": "", "password": ""}}),
        (
            ("webdav", "https://dav.example/x", "-u", "me", "-p", "hush"),
            {"webdav": {"url": "https://dav.example/x", "username": "me", "password": "hush"}},
        ),
    ],
)
def test_adding_a_location(server, uhm, arguments, place):
    server.answers["POST /api/v1/storage"] = lambda request: request.json
    done = uhm("storage", "add", "home", *arguments)
    assert (done.code, done.out.startswith("home works: ")) == (0, True)
    assert server.requests[0].json == {"name": "home"} | place
    assert "hush" not in done.out


@pytest.mark.parametrize(
    "arguments",
    [("dir", "x", "-u", "me"), ("s3", "bucket"), ("webdav", "http://x", "--region", "eu"), ("ftp", "x"), ("dir",)],
)
def test_what_does_not_go_together(server, uhm, arguments):
    assert uhm("storage", "add", "home", *arguments).code == 2
    assert server.requests == []


def test_what_there_is(server, uhm):
    s3 = {"name": "far", "s3": {"endpoint": "http://s3", "bucket": "b", "prefix": "p"}}
    server.answers["GET /api/v1/storage"] = {"storage": [{"name": "home", "directory": {"path": "/x"}}, s3]}
    image = {
        "reference": "nginx:latest",
        "objects": [{"kind": "layer", "size_bytes": "2000000"}, {"kind": "disk", "size_bytes": "1000000"}],
    }
    server.answers["GET /api/v1/storage/home/images"] = {"images": [image]}
    server.answers["GET /api/v1/publications"] = {"publications": [DONE]}
    listed = uhm("storage", "ls").out
    assert "home   dir    /x" in listed
    assert "http://s3/b/p" in listed
    assert "1 MB   2 MB" in uhm("storage", "images", "home").out
    assert "published" in uhm("storage", "publications").out


def test_publishing_is_followed_to_its_end(server, uhm):
    server.answers |= {
        "POST /api/v1/images/nginx:publish": PUBLICATION,
        WATCH: Stream([{"publication": PUBLICATION}, {"publication": DONE}]),
    }
    done = uhm("publish", "nginx", "s3", "--format", "raw")
    assert (done.code, done.out) == (0, "nginx:latest is at s3, 100 B\n")
    assert server.requests[0].json == {"storage": "s3", "format": "raw"}
    assert uhm("publish", "nginx", "s3", "--json").json == DONE
    assert uhm("publish", "-d", "nginx", "s3").out == "p" * 32 + "\n"


@pytest.mark.parametrize(
    "command",
    [("pull", "nginx"), ("load", "-i", "{archive}"), ("customize", "nginx", "-t", "mine", "--hostname", "h")],
    ids=lambda command: command[0],
)
def test_an_image_that_is_made_is_published_too(server, uhm, tmp_path, command):
    (tmp_path / "image.tar").write_bytes(b"an archive")
    image = {"id": PUBLICATION["image"], "reference": "nginx:latest", "status": "ready"}
    failed = DONE | {"status": "failed", "reason": "Access is denied."}
    server.answers |= {
        "POST /api/v1/contexts": {"id": "c"},
        "POST /api/v1/images": {"id": image["id"]},
        f"GET /api/v1/images/{image['id']}:watch": Stream([{"image": image}]),
        "GET /api/v1/publications": {"publications": [DONE | {"id": "another", "image": "another"}, PUBLICATION]},
        WATCH: Stream([{"publication": DONE}]),
    }
    arguments = [word.format(archive=tmp_path / "image.tar") for word in command]

    done = uhm(*arguments, "--publish", "s3", "--publish", "home")

    assert (done.code, done.out.splitlines()[-1]) == (0, "nginx:latest is at s3, 100 B"), done.err
    (create,) = server.asked("POST /api/v1/images")
    assert create.json["publish"] == ["s3", "home"]
    assert uhm(*arguments, "--publish", "s3", "--json").json == image | {"publications": [DONE]}
    server.answers[WATCH] = Stream([{"publication": failed}])
    assert "was not published to s3: Access is denied." in uhm(*arguments, "--publish", "s3").err


def test_a_publication_that_waits_says_why_and_one_that_fails_too(server, uhm):
    waits = PUBLICATION | {"reason": "The server does not answer."}
    failed = PUBLICATION | {"status": "failed", "reason": "Access is denied."}
    server.answers |= {
        "POST /api/v1/images/nginx:publish": PUBLICATION,
        WATCH: Stream([{"publication": waits}, {"publication": waits}, {"publication": failed}]),
    }
    done = uhm("publish", "nginx", "s3")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("The server does not answer. It is tried again.") == 1
    assert done.err.endswith("uhm: nginx:latest was not published to s3: Access is denied.\n")
    assert uhm("publish", "nginx", "s3", "--json").json["publication"] == failed


def test_what_the_server_refuses(server, uhm):
    server.answers["POST /api/v1/storage/home:test"] = Refusal(403, 7, "Nothing can be written there.")
    done = uhm("storage", "test", "home")
    assert (done.code, done.err) == (1, "uhm: Nothing can be written there.\n")
