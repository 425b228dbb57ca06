"""The store for Redis Cluster and Valkey Cluster: rows guarded one by one, offsets beside them on every primary."""
