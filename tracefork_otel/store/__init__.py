"""The store's files: records, WAL, segments, manifest, and the SQL views over them."""
