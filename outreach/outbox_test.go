package outreach

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// failer is a test, or one of a property's.
type failer interface {
	Helper()
	Fatal(...any)
}

func noErr(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// outbox is a ledger for tests of sending.
type outbox struct {
	*Ledger
	now func() time.Time
}

// newOutbox opens an empty ledger that knows some accounts.
func newOutbox(t testing.TB, accounts ...string) *outbox {
	t.Helper()
	return newOutboxAt(t, filepath.Join(memoryDir(t), "ledger.db"), accounts...)
}

// memoryDir is a directory where nobody waits for a disk, if the system has such a one: thousands of
// transactions of these tests are each written for good.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "mailreeve-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newOutboxAt(t testing.TB, place string, accounts ...string) *outbox {
	t.Helper()
	l, err := OpenLedger(context.Background(), place, Options{Zone: berlin, Campaign: "tls-2027", Purpose: "Tests.", End: DayOf(time.Now(), berlin) + 1000, Who: "test"})
	noErr(t, err)
	t.Cleanup(func() { l.Close() })
	noErr(t, l.tx(context.Background(), func(x *tx) error {
		for _, a := range accounts {
			if _, err := x.exec("INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", a); err != nil {
				return err
			}
		}
		return nil
	}))
	return &outbox{l, time.Now}
}

// plenty are limits that nobody meets.
var plenty = limits{1000, 1000, 1000, func(now time.Time) time.Time { return DayOf(now, berlin).Start(berlin) }}

// claimed claims a notice that is free.
func (o *outbox) claimed(t testing.TB, k Key) *Notice {
	t.Helper()
	answer, err := o.claim(context.Background(), k, 0, "bounces.example.test", "me", plenty)
	noErr(t, err)
	if answer.notice == nil {
		t.Fatalf("%v is not free: %+v", k, answer)
	}
	return answer.notice
}
