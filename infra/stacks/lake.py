"""Build the lake: the bucket, the Iceberg table in the Glue catalog, and Athena over it."""

from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3

from headwater.contract.iceberg import iceberg_schema
from headwater.processors.definition.loading import load
from headwater.processors.definition.pipeline import Pipeline
from headwater.sinks.lake.queries import named_queries
from headwater.sinks.lake.specs import partition_spec
from infra.settings import Deployment
from infra.stacks.checks import explain
from infra.stacks.data import removal

__all__ = ["LakeBuckets", "lake"]


class LakeBuckets:
    """Hold the two buckets."""

    def __init__(self, bucket: Any, logs: Any) -> None:
        self.bucket, self.logs = bucket, logs


def lake(app: Any, deployed: Deployment, env: Any, key: Any) -> LakeBuckets:
    """Fill the stack."""
    stack = Stack(app, f"{deployed.name}-lake", env=env, termination_protection=deployed.keep)
    logs = _logs(stack, deployed)
    bucket = s3.Bucket(
        stack,
        "Lake",
        bucket_name=deployed.bucket,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        encryption=s3.BucketEncryption.KMS,
        encryption_key=key,
        bucket_key_enabled=True,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        versioned=True,
        server_access_logs_bucket=logs,
        server_access_logs_prefix="s3/lake/",
        removal_policy=removal(deployed),
        lifecycle_rules=_lifecycle(),
    )
    pipeline = load(deployed.pipeline)
    database = glue.CfnDatabase(
        stack,
        "Database",
        catalog_id=deployed.account,
        database_name=deployed.database,
        database_input=glue.CfnDatabase.DatabaseInputProperty(name=deployed.database),
    )
    table = _iceberg(stack, deployed, pipeline)
    table.add_resource_dependency(database)
    for one in (database, table):  # without them nothing says which of the bucket's files are the table
        one.apply_removal_policy(removal(deployed))
    _athena(stack, deployed, pipeline, key)
    return LakeBuckets(bucket, logs)


def _logs(stack: Any, deployed: Deployment) -> Any:
    logs = s3.Bucket(
        stack,
        "AccessLogs",
        bucket_name=deployed.logs_bucket,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        encryption=s3.BucketEncryption.S3_MANAGED,
        removal_policy=removal(deployed),
        lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(max(90, deployed.log_days)))],
    )
    explain(logs, S1="It holds the access logs; a log of its own would log itself.")
    return logs


def _lifecycle() -> list[Any]:
    """Only what the pipeline has let go of expires: superseded versions, unfinished uploads, letters sent again."""
    return [
        s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1)),
        s3.LifecycleRule(noncurrent_version_expiration=Duration.days(14), expired_object_delete_marker=True),
        s3.LifecycleRule(prefix="redriven/", expiration=Duration.days(90)),
        s3.LifecycleRule(prefix="athena/", expiration=Duration.days(7)),
    ]


def _iceberg(stack: Any, deployed: Deployment, pipeline: Pipeline) -> Any:
    """As the publisher would make it; it grows the columns when the contract does."""
    target = pipeline.lake_to
    schema = iceberg_schema(pipeline.contract, pipeline.added)
    of = glue.CfnTable
    fields = [
        of.IcebergStructFieldProperty(
            id=one.field_id, name=one.name, type=str(one.field_type), required=one.required, doc=one.doc
        )
        for one in schema.fields
    ]
    parts = [
        of.IcebergPartitionFieldProperty(
            field_id=one.field_id, source_id=one.source_id, transform=str(one.transform), name=one.name
        )
        for one in partition_spec(pipeline.lake_partitioning, schema).fields
    ]
    partition = of.IcebergPartitionSpecProperty(fields=parts, spec_id=0) if parts else None
    table = of.IcebergTableInputProperty(
        location=f"s3://{deployed.bucket}/lake/{target.table}",
        schema=of.IcebergSchemaProperty(type="struct", fields=fields, schema_id=0),
        partition_spec=partition,
    )
    return of(
        stack,
        "Table",
        catalog_id=deployed.account,
        database_name=deployed.database,
        name=target.table,
        open_table_format_input=of.OpenTableFormatInputProperty(
            iceberg_input=of.IcebergInputProperty(metadata_operation="CREATE", version="2", iceberg_table_input=table)
        ),
    )


def _athena(stack: Any, deployed: Deployment, pipeline: Pipeline, key: Any) -> None:
    group = athena.CfnWorkGroup(
        stack,
        "WorkGroup",
        name=deployed.name,
        recursive_delete_option=not deployed.keep,
        work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
            enforce_work_group_configuration=True,
            publish_cloud_watch_metrics_enabled=True,
            bytes_scanned_cutoff_per_query=deployed.scan_limit_gb * 1_000_000_000,
            result_configuration=athena.CfnWorkGroup.ResultConfigurationProperty(
                output_location=f"s3://{deployed.bucket}/athena/",
                encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                    encryption_option="SSE_KMS", kms_key=key.key_arn
                ),
            ),
        ),
    )
    for name, asked in named_queries(pipeline.lake_to.table, pipeline.contract).items():
        query = athena.CfnNamedQuery(
            stack,
            f"Query{name.title().replace(' ', '')}",
            name=name,
            description=asked.description,
            database=deployed.database,
            query_string=asked.sql,
            work_group=deployed.name,
        )
        query.add_resource_dependency(group)
