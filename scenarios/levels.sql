-- Levels of synchronous_commit wherever one can be set.
ALTER ROLE app SET synchronous_commit = remote_apply;
ALTER DATABASE shop SET synchronous_commit = remote_write;
