package interop

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Postgres is Debian's PostgreSQL, with an empty cluster of its own that is reached by a socket in
// its directory alone.
type Postgres struct {
	dir     string
	process *Process
}

// StartPostgres starts it for a test.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	if testing.Short() {
		t.Skip("real servers are left out by -short")
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian has its servers beside each other, and none in the PATH
	if len(dirs) == 0 {
		missing(t, "postgresql is not installed; to install it type: interop/install")
	}
	programs := dirs[len(dirs)-1]
	// Not t.TempDir: its path may be too long for a socket (unix(7)).
	dir, err := os.MkdirTemp("", "pg")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	command := func(name string, args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(programs, name), args...)
	}
	if os.Getuid() == 0 {
		// It refuses to run as root (initdb(1)).
		as, err := user.Lookup("postgres")
		must(t, err)
		uid, err1 := strconv.Atoi(as.Uid)
		gid, err2 := strconv.Atoi(as.Gid)
		must(t, errors.Join(err1, err2, os.Chown(dir, uid, gid)))
		command = func(name string, args ...string) *exec.Cmd {
			return exec.Command("setpriv", append([]string{"--reuid", as.Uid, "--regid", as.Gid, "--clear-groups", filepath.Join(programs, name)}, args...)...)
		}
	}
	data := filepath.Join(dir, "data")
	cluster := command("initdb", "-D", data, "-U", "mailreeve", "-A", "trust", "-E", "UTF8", "--no-sync")
	cluster.Dir = "/" // a directory that it may enter
	if out, err := cluster.CombinedOutput(); err != nil {
		t.Fatalf("making a cluster of PostgreSQL: %v\n%s", err, out)
	}
	server := command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=")
	server.Dir = "/"
	output := filepath.Join(t.TempDir(), "postgres.out")
	p := &Postgres{dir: dir}
	p.process, err = StartProcess(server, output, func() bool {
		said, err := os.ReadFile(output)
		return err == nil && strings.Contains(string(said), "ready to accept connections")
	})
	if p.process != nil {
		t.Cleanup(p.process.Stop)
	}
	must(t, err)
	return p
}

// URL is the address of a database.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://mailreeve@/%s?host=%s", database, url.QueryEscape(p.dir))
}

// Database makes a database and returns its address. It sorts text as people do, which
// ledgers must not.
func (p *Postgres) Database(t testing.TB, name string) string {
	t.Helper()
	create := exec.Command("psql", "-q", "-X", p.URL("postgres"), "-c",
		"CREATE DATABASE "+name+" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C.UTF-8'")
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("making a database: %v\n%s", err, out)
	}
	return p.URL(name)
}
