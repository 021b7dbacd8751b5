package schema

import (
	"fmt"
	"os"
	"testing"
)

func TestZZ(t *testing.T) {
	for _, v := range []int{110000, 130000, 150000, 170000, 180000} {
		os.WriteFile(fmt.Sprintf("/tmp/sch/fp%d.sql", v/10000), []byte("\\timing on\n"+FingerprintSQL(v)+";\n"+FingerprintSQL(v)+";\nset max_parallel_workers_per_gather=0;\n"+FingerprintSQL(v)+";\nexplain analyze "+FingerprintSQL(v)+";\n"), 0o644)
	}
}
