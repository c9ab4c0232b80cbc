"""A stage that keeps nothing can be taken down; one that keeps its data is refused."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import boto3
import pytest
from moto import mock_aws

from headwater.errors import UsageError
from infra.settings import Deployment
from infra.teardown import teardown

REGION: Final = "eu-central-1"
DEV = Deployment("dev", "222222222222", REGION)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def test_what_the_stacks_cannot_delete_goes(aws: None) -> None:
    """Versions and delete markers over several pages; afterwards both buckets can be deleted, and twice is no fault."""
    s3, dynamodb = boto3.client("s3", region_name=REGION), boto3.client("dynamodb", region_name=REGION)
    for bucket in (DEV.bucket, DEV.logs_bucket):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=DEV.bucket, VersioningConfiguration={"Status": "Enabled"})
    for at in range(1_010):
        s3.put_object(Bucket=DEV.bucket, Key=f"lake/{at % 600}", Body=b"x")
    s3.delete_object(Bucket=DEV.bucket, Key="lake/1")
    s3.put_object(Bucket=DEV.logs_bucket, Key="alb/1", Body=b"x")
    dynamodb.create_table(
        TableName=DEV.application,
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert list(teardown(DEV, s3, dynamodb)) == [
        f"{DEV.bucket}: 1,011 versions of objects deleted",
        f"{DEV.logs_bucket}: 1 versions of objects deleted",
        f"{DEV.application}: table deleted",
    ]
    for bucket in (DEV.bucket, DEV.logs_bucket):
        s3.delete_bucket(Bucket=bucket)
    assert dynamodb.list_tables()["TableNames"] == []
    assert len(list(teardown(DEV, s3, dynamodb))) == 2


def test_a_stage_that_keeps_its_data_is_refused() -> None:
    with pytest.raises(UsageError, match="keeps its data"):
        list(teardown(Deployment("prod", "222222222222", REGION, keep=True), None, None))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["prod", "222222222222", REGION], "headwater: stage prod keeps its data: take it down by hand"),
        (["x", "222222222222", REGION], "headwater: stage x: there are dev, prod"),
        (["dev"], "usage: python -m infra.teardown STAGE ACCOUNT REGION"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], line: str) -> None:
    command = [sys.executable, "-m", "infra.teardown", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2 if line.startswith("headwater") else 1, f"{line}\n")
