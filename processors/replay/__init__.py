"""Read events again from the lake or the stream, to replay them or to fill a new pipeline."""
