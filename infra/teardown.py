"""Empty what a stage's stacks cannot delete: `python -m infra.teardown STAGE ACCOUNT REGION`, before `cdk destroy`.

Every version of every object of the two buckets goes, and the tables that the KCL made for itself. A stage that keeps
its data is refused.
"""

import sys
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.exceptions import ClientError

from headwater.errors import HeadwaterError, UsageError
from infra.settings import STAGES, Deployment

__all__ = ["main", "teardown"]

_LEASES = ("", "-WorkerMetricStats", "-CoordinatorState")


def teardown(deployed: Deployment, s3: Any, dynamodb: Any) -> Iterator[str]:
    """Delete, and yield a line for each thing that was; raise UsageError for a stage that keeps its data."""
    if deployed.keep:
        raise UsageError(f"stage {deployed.stage} keeps its data: take it down by hand")
    for bucket in (deployed.bucket, deployed.logs_bucket):
        yield f"{bucket}: {_emptied(s3, bucket):,} versions of objects deleted"
    for suffix in _LEASES:
        try:
            dynamodb.delete_table(TableName=f"{deployed.application}{suffix}")
            yield f"{deployed.application}{suffix}: table deleted"
        except dynamodb.exceptions.ResourceNotFoundException:
            continue


def _emptied(s3: Any, bucket: str) -> int:
    """Delete the first thousand versions until there are none; the place in a listing goes with what is deleted."""
    count = 0
    try:
        while True:
            page = s3.list_object_versions(Bucket=bucket, MaxKeys=1_000)
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            if not found:
                return count
            keys = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise HeadwaterError(f"{bucket}/{first['Key']} is not deleted: {first['Code']}")
            count += len(keys)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        return count


def main() -> None:
    """Exit with 2 and one line when something is wrong."""
    try:
        stage, account, region = sys.argv[1:]
        if stage not in STAGES:
            raise UsageError(f"stage {stage}: there are {', '.join(STAGES)}")
        found = Deployment(stage, account, region, keep=STAGES[stage].keep)
        clients = (boto3.client(name, region_name=region) for name in ("s3", "dynamodb"))
        for line in teardown(found, *clients):
            sys.stdout.write(line + "\n")
    except ValueError:
        sys.exit("usage: python -m infra.teardown STAGE ACCOUNT REGION")
    except (HeadwaterError, ClientError) as error:
        sys.stderr.write(f"headwater: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
