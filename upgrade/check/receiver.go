package check

// ReceiverName is what a walreceiver calls itself, given its conninfo as
// pg_stat_wal_receiver shows it and its server's cluster_name.
func ReceiverName(conninfo, cluster string) string { return receiverName(conninfo, cluster) }
