"""Every error becomes the status that its class says."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from uhm_common import errors

CODES = {
    errors.InvalidArgument: (3, "INVALID_ARGUMENT"),
    errors.NotFound: (5, "NOT_FOUND"),
    errors.AlreadyExists: (6, "ALREADY_EXISTS"),
    errors.PermissionDenied: (7, "PERMISSION_DENIED"),
    errors.ResourceExhausted: (8, "RESOURCE_EXHAUSTED"),
    errors.FailedPrecondition: (9, "FAILED_PRECONDITION"),
    errors.InternalError: (13, "INTERNAL_ERROR"),
    errors.Unavailable: (14, "UNAVAILABLE"),
    errors.Unauthenticated: (16, "UNAUTHENTICATED"),
    errors.UhmError: (13, "UHM_ERROR"),
}


@pytest.mark.parametrize(("kind", "number", "reason"), [(kind, *row) for kind, row in CODES.items()])
def test_status_of_each_leaf(kind, number, reason):
    status = kind("It is wrong.", hint="Do it right.", image="nginx", count=3).to_status()

    assert status.code == number
    assert status.message == "It is wrong. Do it right."
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "uhmalguhm")
    assert dict(info.metadata) == {"image": "nginx", "count": "3"}


@pytest.mark.parametrize(("seconds", "told"), [(0.2, 1), (7, 7), (59.01, 60)])
def test_when_to_try_again(seconds, told):
    status = errors.ResourceExhausted("Too many.", retry_after=seconds, by="address").to_status()

    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert [status.details[0].Unpack(info), status.details[1].Unpack(retry)] == [True, True]
    assert dict(info.metadata) == {"by": "address"}
    assert retry.retry_delay.ToSeconds() == told


def test_only_an_error_that_knows_says_when_to_try_again():
    assert len(errors.ResourceExhausted("Too many.").to_status().details) == 1


def test_the_table_has_every_error():
    assert {getattr(errors, name) for name in errors.__all__} == set(CODES)


def test_a_leaf_of_a_service_has_its_own_reason_and_inherits_the_code():
    class DiskInUse(errors.FailedPrecondition):
        pass

    error = DiskInUse("In use.")

    assert error.reason == "DISK_IN_USE"
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert str(error) == "In use."
