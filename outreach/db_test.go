package outreach

import "testing"

// TestPatient: the wait for a database that takes connections and says nothing is bounded, unless
// somebody has bounded it already.
func TestPatient(t *testing.T) {
	t.Setenv("PGCONNECT_TIMEOUT", "")
	for place, want := range map[string]string{
		"postgres:///mailreeve?host=/run/postgresql":            "postgres:///mailreeve?connect_timeout=10&host=%2Frun%2Fpostgresql",
		"postgres://reeve@db.internal/mailreeve":                "postgres://reeve@db.internal/mailreeve?connect_timeout=10",
		"postgres://db.internal/mailreeve?connect_timeout=3":    "postgres://db.internal/mailreeve?connect_timeout=3",
		"postgres://db1:5432,db2:5432/mailreeve?sslmode=prefer": "postgres://db1:5432,db2:5432/mailreeve?connect_timeout=10&sslmode=prefer",
	} {
		if got := patient(place); got != want {
			t.Errorf("%s becomes %s, want %s", place, got, want)
		}
	}
	t.Setenv("PGCONNECT_TIMEOUT", "60")
	if got := patient("postgres:///mailreeve"); got != "postgres:///mailreeve" {
		t.Errorf("the environment's word is overruled: %s", got)
	}
}
