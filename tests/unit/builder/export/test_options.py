"""What an export can be asked for."""

from __future__ import annotations

import pytest

from uhm_builder.errors import InvalidExport
from uhm_builder.export.options import Compression, DiskFormat, ExportOptions, export_options


def asked(**more: object) -> ExportOptions:
    request = {"format": "", "compression": "", "seal": False, "verify": False, "size_bytes": 0} | more
    return export_options(**request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("disk_format", "compression", "chosen"),
    [
        ("", "", (DiskFormat.QCOW2, Compression.NONE)),
        ("qcow2", "zstd", (DiskFormat.QCOW2, Compression.ZSTD)),
        ("vmdk", "", (DiskFormat.VMDK, Compression.NONE)),
        ("vmdk", "zlib", (DiskFormat.VMDK, Compression.ZLIB)),
        ("ova", "", (DiskFormat.OVA, Compression.ZLIB)),
        ("vpc", "none", (DiskFormat.VPC, Compression.NONE)),
    ],
)
def test_defaults_and_choices(disk_format: str, compression: str, chosen: tuple[DiskFormat, Compression]) -> None:
    options = asked(format=disk_format, compression=compression)
    assert (options.format, options.compression) == chosen


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"format": "iso"}, "'iso' is no format of a disk. Choose one of qcow2, raw"),
        ({"compression": "xz"}, "'xz' is no compression of a disk. Choose one of none, zlib, zstd"),
        (
            {"format": "raw", "compression": "zstd"},
            "A disk in format raw cannot be compressed with zstd. It can be none",
        ),
        ({"format": "ova", "compression": "none"}, "cannot be compressed with none. It can be zlib"),
        ({"size_bytes": -1}, "A disk of -1 bytes cannot be made"),
        ({"size_bytes": 1 << 50}, "At most 2040 GiB"),
    ],
)
def test_what_does_not_go_together_is_refused(request_: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidExport) as refused:
        asked(**request_)
    assert sentence in str(refused.value)
