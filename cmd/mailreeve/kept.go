package main

// What outlives a reload: who has certificates and who orders them, session
// tickets, and the sockets for browsers and for Prometheus.

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/config"
	"mailreeve/proxy"
	"mailreeve/web"
)

// kept lives as long as the program.
type kept struct {
	log     *zap.Logger
	engine  *proxy.Engine
	keeper  *certs.Keeper
	tickets *certs.Tickets
	site    *web.Site
	metrics *metrics
	state   string // as the tickets have it

	issuer  *issuer // in force; nil: nobody orders
	sockets map[string]*socket

	background sync.WaitGroup
	ctx        context.Context // of what runs until the end
	stop       context.CancelFunc
}

// newKept makes all of it, and starts what needs no configuration.
func newKept(c *config.Config, engine *proxy.Engine, log *zap.Logger) (*kept, error) {
	k := &kept{log: log, engine: engine, keeper: certs.NewKeeper(log), site: &web.Site{Log: log}, state: c.State, sockets: map[string]*socket{}}
	if err := makeState(c); err != nil {
		return nil, err
	}
	path := ""
	if c.State != "" {
		path = filepath.Join(c.State, "tickets")
	}
	var err error
	if k.tickets, err = certs.OpenTickets(path, log); err != nil {
		return nil, stateHint(err)
	}
	k.metrics = newMetrics(engine.Sessions, k.keeper.Status)
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.background.Go(func() { k.keeper.Watch(k.ctx) })
	k.background.Go(func() { k.tickets.Run(k.ctx) })
	return k, nil
}

// makeState makes the directory of what is kept, for the program's user alone.
func makeState(c *config.Config) error {
	if c.State == "" {
		return nil
	}
	if err := os.Mkdir(c.State, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return stateHint(err)
	}
	return nil
}

func stateHint(err error) error {
	return withHint(err, "state says where certificates and keys are kept: a directory that the program's user may write, and nobody else")
}

// change is a new configuration of what is kept, all made and not in force yet.
type change struct {
	kept    *kept // as it is, until commit
	config  *config.Config
	pages   web.Settings
	issuer  *issuer
	sockets map[string]*socket // all that there shall be
	fresh   []*socket          // those of them that are new
	former  certs.Sources      // to go back to; without names there are none
}

// prepare makes all that a configuration needs. What fails leaves everything as it was.
func (k *kept) prepare(c *config.Config, former *config.Config) (*change, error) {
	n := &change{kept: k, config: c, sockets: map[string]*socket{}}
	if former != nil {
		n.former = sources(former, k.issuer.orNil())
	}
	if err := makeState(c); err != nil {
		return nil, err
	}
	n.pages = browse(c, k.keeper.Get, k.engine.Owner)
	n.pages.Tickets = k.tickets.Bind
	var err error
	if n.issuer, err = k.nextIssuer(c); err != nil {
		return nil, err
	}
	if n.issuer != nil {
		n.pages.HTTP01, n.pages.ALPN = n.issuer.HTTP01, n.issuer.ALPN
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	n.issuer.hold()
	if err := k.keeper.Set(sources(c, n.issuer.orNil())); err != nil {
		n.issuer.release()
		n.closeFresh()
		return nil, err
	}
	return n, nil
}

// undo takes a change back that could not come into force with the rest.
func (n *change) undo() {
	defer n.issuer.release()
	n.closeFresh()
	if n.former.Names == nil {
		return
	}
	if err := n.kept.keeper.Set(n.former); err != nil {
		n.kept.log.Error("the former certificates could not be read again; those of the new configuration stay", zap.Error(err))
	}
}

// commit puts the change in force. Challenges can be answered before anything is ordered.
func (n *change) commit() {
	n.kept.site.Apply(n.pages)
	n.issuer.release()
	for _, s := range n.fresh {
		s.serve(n.kept)
		n.kept.log.Info("listening", zap.String("listener", s.key), zap.Stringer("address", s.Addr()))
	}
	for key, s := range n.kept.sockets {
		if n.sockets[key] != s {
			s.close()
			n.kept.log.Info("no longer listening", zap.String("listener", key), zap.String("address", s.address))
		}
	}
	n.kept.sockets = n.sockets
	if former := n.kept.issuer; former != n.issuer {
		n.kept.issuer = n.issuer
		n.kept.run(former)
	}
	if n.config.State != n.kept.state {
		n.kept.log.Warn("session tickets move to the new state directory at the next start")
	}
	n.sayMissing()
}

// sayMissing names the canonical names that wait for their first certificate.
func (n *change) sayMissing() {
	if n.issuer == nil {
		return
	}
	var names []string
	for _, s := range n.kept.keeper.Status() {
		if s.Canonical && s.KeyType == certs.ECDSA && s.NotAfter.IsZero() {
			names = append(names, s.Name)
		}
	}
	if names != nil {
		n.kept.log.Warn("there is no certificate yet for some names; until they are issued, clients get another one, or the handshake fails", zap.Strings("names", names))
	}
}

// end stops everything that is kept. What listens has been closed by then.
func (k *kept) end() {
	k.stop()
	k.background.Wait()
}

// closeSockets lets requests end that are under way, and no new ones begin; so
// nothing can be ordered any more either. Handshakes go on with what there is.
func (k *kept) closeSockets() {
	if k.issuer != nil {
		k.issuer.cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	k.site.Shutdown(ctx)
	for _, s := range k.sockets {
		s.close()
	}
	k.sockets = nil
}

// acme is an ACME client, which [certs.ACME] is.
type acme interface {
	certs.Issuer
	Run(context.Context)
	Retry()
	HTTP01(token string) (keyAuth string, ok bool)
	ALPN(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// issuer orders certificates. While one that takes over from another has nothing for a
// name, what the former had stays in force.
type issuer struct {
	acme
	former acme   // nil: there was none
	made   string // of which configuration
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	held  bool     // a configuration is prepared that may yet not come into force
	names []string // to keep, told meanwhile; nil: none were
}

// orNil is an interface that is nil where nobody orders.
func (i *issuer) orNil() certs.Issuer {
	if i == nil {
		return nil
	}
	return i
}

// Certificate asks the former where there is nothing yet, as far as it need not order.
func (i *issuer) Certificate(ctx context.Context, name string, kind certs.KeyType, own certs.Own) (*tls.Certificate, error) {
	c, err := i.acme.Certificate(ctx, name, kind, own)
	if c == nil && i.former != nil {
		if c, _ := i.former.Certificate(ctx, name, kind, certs.Keep); c != nil {
			return c, nil
		}
	}
	return c, err
}

// Keep passes the names on, or holds them back: what does not come into force must not cost
// an order.
func (i *issuer) Keep(names []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held {
		i.names = append([]string{}, names...)
		return
	}
	i.acme.Keep(names)
}

// hold holds back names until release. Both may be told to nobody.
func (i *issuer) hold() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held = true
}

// release passes on the last names that were held back.
func (i *issuer) release() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held && i.names != nil {
		i.acme.Keep(i.names)
	}
	i.held, i.names = false, nil
}

// nextIssuer is who orders by a configuration: the present one, where it has not changed.
func (k *kept) nextIssuer(c *config.Config) (*issuer, error) {
	m, err := acmeConfig(c, k.log)
	if m == nil || err != nil {
		return nil, err
	}
	made := fingerprint(c, m)
	if k.issuer != nil && k.issuer.made == made {
		return k.issuer, nil
	}
	a, err := certs.NewACME(*m)
	if err != nil {
		return nil, stateHint(err)
	}
	n := &issuer{acme: a, made: made, done: make(chan struct{})}
	if k.issuer != nil {
		n.former = k.issuer.acme
	}
	return n, nil
}

// fingerprint tells two configurations of ACME apart, also by what is in their files.
func fingerprint(c *config.Config, m *certs.ACMEConfig) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %v %q %d %v %v\n", m.Directory, m.Email, m.Dir, m.RSA, m.Lookup, m.Hourly, m.HTTP01, m.TLSALPN01)
	if m.EAB != nil {
		fmt.Fprintf(h, "%q %x\n", m.EAB.KeyID, m.EAB.Key)
	}
	if ca := c.Certificates.ACME.CA; ca != "" {
		data, _ := os.ReadFile(ca) // it was read a moment ago
		h.Write(data)
	}
	return string(h.Sum(nil))
}

// run starts the issuer in force, once the former one has ended.
func (k *kept) run(former *issuer) {
	if former != nil {
		former.cancel()
	}
	i := k.issuer
	if i == nil {
		return
	}
	var ctx context.Context
	ctx, i.cancel = context.WithCancel(k.ctx)
	k.background.Go(func() {
		defer close(i.done)
		if former != nil {
			<-former.done
		}
		i.Run(ctx)
	})
}

// socket is one for browsers or for Prometheus.
type socket struct {
	net.Listener
	key     string // of the configuration
	address string // as it is written there
	server  *http.Server
	done    chan struct{}
}

// listen opens the sockets that are new.
func (n *change) listen() error {
	wanted := map[string]*config.Address{}
	if w := n.config.Web; w != nil {
		wanted["web.http"], wanted["web.https"] = w.HTTP, w.HTTPS
	}
	if m := n.config.Metrics; m != nil {
		wanted["metrics"] = &m.Address
	}
	for _, key := range []string{"web.http", "web.https", "metrics"} {
		a := wanted[key]
		if a == nil {
			continue
		}
		if s := n.kept.sockets[key]; s != nil && s.address == a.String() {
			n.sockets[key] = s
			continue
		}
		l, err := net.Listen("tcp", a.String())
		if err != nil {
			n.closeFresh()
			err = &proxy.ListenError{Listener: key, Address: a.String(), Err: err}
			if own := n.kept.ownPort(a.Port); own != "" && errors.Is(err, syscall.EADDRINUSE) {
				return withHint(err, "this program has the port itself, for %s: restart it, or choose another port", own)
			}
			return listenHint(err)
		}
		s := &socket{Listener: l, key: key, address: a.String(), done: make(chan struct{})}
		n.sockets[key] = s
		n.fresh = append(n.fresh, s)
	}
	return nil
}

// ownPort is the key of the socket that has a port now; empty if none of these has.
func (k *kept) ownPort(port int) string {
	for key, s := range k.sockets {
		if at, ok := s.Addr().(*net.TCPAddr); ok && at.Port == port {
			return key
		}
	}
	return ""
}

func (n *change) closeFresh() {
	for _, s := range n.fresh {
		s.Listener.Close()
	}
}

// serve answers at a socket from now on.
func (s *socket) serve(k *kept) {
	if s.key != "metrics" {
		close(s.done)
		k.site.Serve(s.Listener, s.key == "web.https")
		return
	}
	s.server = k.metrics.server(k.log)
	go func() {
		defer close(s.done)
		s.server.Serve(s.Listener) // ends when it is closed
	}()
}

// close ends what serve began. Pages and challenges that are being read come to their end
// all the same.
func (s *socket) close() {
	if s.server != nil {
		s.server.Close()
	}
	s.Listener.Close()
	<-s.done
}
