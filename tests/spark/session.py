"""One Spark session, which answers a statement a line: run by Spark's own Python, with nothing of ours to import."""

import base64
import json
import os
import pickle
import sys

from pyspark.sql import Row, SparkSession  # type: ignore[import-not-found]  # in an environment of its own


def plain(value: object) -> object:
    """Return a value without types of Spark's."""
    if isinstance(value, Row):
        return {name: plain(one) for name, one in value.asDict().items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return bytes(value) if isinstance(value, bytearray) else value


def main() -> None:
    catalog, s3, jars = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Spark prints is no answer
    lake = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": catalog,
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".s3.endpoint": s3,
        ".s3.path-style-access": "true",
        ".s3.access-key-id": "x",
        ".s3.secret-access-key": "x",
        ".client.region": "us-east-1",
    }
    own = {
        "spark.jars": jars,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    }
    builder = SparkSession.builder.master("local[1]")
    # `beside` is as Spark makes it: a statement goes on with the table that it has begun with
    catalogs = {"lake": lake | {".cache-enabled": "false"}, "beside": lake}
    of = [(f"spark.sql.catalog.{name}{key}", one) for name, options in catalogs.items() for key, one in options.items()]
    for name, value in [*own.items(), *of]:
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    for line in sys.stdin:
        try:
            found: object = [plain(row) for row in session.sql(json.loads(line)).collect()]
        except Exception as error:
            found = f"{type(error).__name__}: {error}"[:2000]
        answers.write(base64.b64encode(pickle.dumps(found)).decode() + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
