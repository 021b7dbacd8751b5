package traffic

// haproxy is refused in this version, its mistakes with it.
func haproxy() Kind {
	return Kind{
		Key: "haproxy", Keys: []Keys{{"haproxy", []string{"socket", "backend"}}}, Later: "pgbouncer and hook are",
		Read: func(m Mapping) Entry {
			m.Require("socket", "its admin sockets, like socket: [unix:/run/haproxy/admin.sock]")
			m.Require("backend", "the backend that sends to PostgreSQL, like backend: pg")
			m.Texts("socket", "unix:/run/haproxy/admin.sock")
			m.Text("backend", "pg")
			return nil
		},
	}
}
