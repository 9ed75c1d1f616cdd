package main

// The daemon: start, reload on SIGHUP, drain on SIGTERM.

import (
	"errors"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/proxy"
)

func newRun() *cobra.Command {
	var path, at string
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the proxy in front of your servers",
		Long: `Run the proxy with a configuration file, until SIGTERM or SIGINT.

SIGHUP reads the file and the certificates anew: sessions go on, and a file with
an error leaves the old configuration in force and says so. Only events, log.format,
outreach and the session tickets in state wait for the next start. It opens the event log
anew too, for logrotate. Certificates and lists of names that change by
themselves are seen within half a minute, without a signal.

With certificates.acme it orders and renews certificates, and keeps them in state;
` + "`mailreeve certs list`" + ` shows them. SIGHUP tries those that failed once more, unless
the CA asked to wait. Until the first has come, clients of a name get another
certificate, or none.

Stages of the policy begin at their instant, without a signal, and each is a line in
the log; so is a hold, which is looked for every second (` + "`mailreeve policy hold`" + `).

SIGTERM and SIGINT drain: no new sessions, a goodbye in their protocol to those
that are idle, spread over drain.goodbye; what is left is cut at drain.deadline.
A second signal cuts at once.

With --now the policy lives at another date, from which its clock runs on: for
rehearsals, never for customers. The log says so every minute.`,
		Example: `  mailreeve run -c /etc/mailreeve/mailreeve.yaml
  mailreeve run -c rehearsal.yaml --now 2027-01-14T23:55:00+01:00`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := &daemonized{path: path, errors: zapcore.AddSync(c.ErrOrStderr())}
			d.at = at
			signals, stop := heed()
			defer stop()
			return d.run(signals, nil)
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&at, "now", "", "let the policy's clock begin at this `time`: a rehearsal")
	return c
}

// defaultConfig is where the configuration is looked for.
const defaultConfig = "/etc/mailreeve/mailreeve.yaml"

// configFlag gives a command its -c.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", defaultConfig, "configuration `file`")
}

// daemonized is the running program: an engine, its logs and its configuration.
type daemonized struct {
	path   string
	errors zapcore.WriteSyncer // where the operators' log goes

	// gone, where given, is asked at SIGHUP whether that was the terminal's end.
	gone func() bool

	level  zap.AtomicLevel
	log    *zap.Logger
	config *config.Config
	began  *config.Config // at the start, of which some things stay in force
	events *events.Log
	engine *proxy.Engine
	kept   *kept
	lists  lists
	policy *inForce
	watch  *watching
	ledger *ledgered // nil: the configuration has no outreach
	room   room      // that was told last
	at     string    // where the policy's clock begins, in a rehearsal

	heard func(coming) // where given, hears what the policy begins by itself
}

// heed takes signals from now on. It is called before anything is opened or
// written, so that what is begun also comes to its end.
func heed() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	return signals, func() { signal.Stop(signals) }
}

// run serves until a signal ends it. also, where given, hears every event, and
// is told when the listeners are open.
func (d *daemonized) run(signals <-chan os.Signal, also *screen) error {
	defer d.close()
	if err := d.start(also); err != nil {
		return err
	}
	if also != nil {
		also.ready()
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
	d.serve(signals)
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	d.drain(signals)
	return nil
}

// start opens everything. Whatever comes of it, close ends what it began.
func (d *daemonized) start(also *screen) error {
	c, problems, err := load(d.path, lenient)
	if err != nil {
		return err
	}
	d.began = c
	d.level = zap.NewAtomicLevelAt(zap.InfoLevel)
	d.log = operatorsLog(c.Log, d.level, d.errors)
	d.say(c, problems)
	if d.events, err = events.Open(c.Events.File, c.Events.Keep); err != nil {
		return withHint(err, "events.file in %s says where it goes: a file that the program's user may write", d.path)
	}
	d.expire()
	d.engine = &proxy.Engine{Log: d.log}
	if d.kept, err = newKept(c, d.engine, d.log); err != nil {
		return err
	}
	d.policy = &inForce{log: d.log, set: d.engine.SetHold, heard: d.heard}
	d.kept.metrics.registry.MustRegister(d.policy)
	p, err := c.Enforced()
	if err != nil {
		return err
	}
	if d.at != "" {
		file, _ := c.LoadPolicy()
		now, err := moment("now", d.at, zone(file))
		if err != nil {
			return err
		}
		d.policy.shift = time.Until(now)
	}
	d.policy.put(p, c.Hold) // before the first client
	if c.Outreach != nil {
		d.ledger = newLedgered(c, p, d.policy.held(), d.policy.now, d.log)
		d.kept.metrics.registry.MustRegister(d.ledger)
	}
	d.engine.Events = recorders{d.events, d.kept.metrics, d.ledger, also}
	if _, err := d.apply(c); err != nil {
		return err
	}
	socket := ""
	if c.State != "" {
		socket = watchSocket(c.State)
	}
	if d.watch, err = newWatching(socket, &d.engine.Watch, d.log); err != nil { // customers are served all the same
		d.log.Warn("logins cannot be watched as they happen", zap.Error(err))
	}
	d.policy.say()
	return nil
}

// close ends what runs in the background, when there are no sessions any more.
func (d *daemonized) close() {
	if d.watch != nil {
		d.watch.end()
	}
	if d.ledger != nil {
		d.ledger.end()
	}
	if d.kept != nil {
		d.kept.end()
	}
	if d.events != nil {
		d.events.Close()
	}
}

// serve does what signals say until one of them ends it, and looks after the
// lists of names meanwhile.
func (d *daemonized) serve(signals <-chan os.Signal) {
	look, second, litter, hour := time.NewTicker(lookEvery), time.NewTicker(time.Second), time.NewTicker(tidyEvery), time.NewTicker(expireEvery)
	defer look.Stop()
	defer second.Stop()
	defer litter.Stop()
	defer hour.Stop()
	d.policy.tick()
	var memory tidy
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP || d.gone != nil && d.gone() {
				return
			}
			d.reload()
		case <-look.C:
			if d.lists.changed(d.config) {
				d.rereadLists()
			}
		case <-second.C:
			d.policy.tick()
			if d.ledger != nil {
				d.ledger.guard(d.config.Hold, d.policy.held(), d.policy.shift)
			}
		case <-litter.C:
			memory.look()
		case <-hour.C:
			d.expire()
		}
	}
}

// expireEvery is how often it is looked whether events are to be deleted by now.
const expireEvery = time.Hour

// expire deletes old events, whether or not there are new ones.
func (d *daemonized) expire() {
	if err := d.events.Expire(); err != nil {
		d.log.Error("old events could not be put away", zap.Error(err))
	}
}

// apply puts a configuration in force, all of it or nothing.
func (d *daemonized) apply(c *config.Config) (*proxy.Settings, error) {
	s, err := settings(c, d.kept.keeper.Get)
	if err != nil {
		return nil, err
	}
	room := findRoom(c)
	s.Connections, _ = room.sessions()
	s.Tickets = d.kept.tickets.Bind
	if d.policy.shift != 0 {
		s.Now = d.policy.now
	}
	if d.ledger != nil {
		s.Ledger = d.ledger.account
	}
	seen := look(c)
	next, err := d.kept.prepare(c, d.config)
	if err != nil {
		return nil, err
	}
	if err := d.engine.Apply(s); err != nil {
		next.undo()
		return nil, listenHint(err)
	}
	before := d.config
	d.config, d.lists = c, lists{inForce: seen, last: seen}
	d.sayRoom(room)
	d.sayListening(s, before)
	next.commit()
	d.policy.put(s.Policy, c.Hold)
	if d.ledger != nil {
		d.ledger.use(s.Policy)
	}
	return s, nil
}

// say tells what is wrong with a configuration that comes into force all the
// same, at its own log level.
func (d *daemonized) say(c *config.Config, problems config.Problems) {
	if level, err := zapcore.ParseLevel(string(c.Log.Level)); err == nil {
		d.level.SetLevel(level)
	}
	for _, p := range problems {
		d.log.Warn(p.String())
	}
}

// reload reads the configuration anew: parse, check, swap. A bad one changes nothing.
func (d *daemonized) reload() {
	daemon.SdNotify(false, daemon.SdNotifyReloading)
	defer daemon.SdNotify(false, daemon.SdNotifyReady)
	if err := d.events.Reopen(); err != nil {
		d.log.Error("the event log could not be opened anew", zap.Error(err))
	}
	c, problems, err := load(d.path, lenient)
	if err == nil {
		_, err = d.apply(c)
	}
	if err != nil {
		d.sayWrong(err)
		return
	}
	if c.Events != d.began.Events || c.Log.Format != d.began.Log.Format || !reflect.DeepEqual(c.Outreach, d.began.Outreach) {
		d.log.Warn("events, log.format and outreach take effect at the next start")
	}
	if d.kept.issuer != nil {
		d.kept.issuer.Retry() // what failed is mended now, perhaps, and not in six hours
	}
	d.say(c, problems)
	d.policy.say()
	d.log.Info("the new configuration is in force", zap.String("file", d.path))
}

// sayWrong tells what is wrong with a new configuration, a line for each
// problem, as the check does.
func (d *daemonized) sayWrong(err error) {
	fields := []zap.Field{zap.String("file", d.path)}
	var problems config.Problems
	var h *hinted
	if errors.As(err, &problems) {
		wrong := 0
		for _, p := range problems {
			if p.Severity == config.Warning {
				d.log.Warn(p.String())
				continue
			}
			d.log.Error(p.String())
			wrong++
		}
		fields = append(fields, zap.Int("problems", wrong))
	} else {
		fields = append(fields, zap.Error(err))
	}
	if errors.As(err, &h) {
		fields = append(fields, zap.String("hint", h.hint))
	}
	d.log.Error("the new configuration is not in force; the old one still is", fields...)
}

// lookEvery is how often the lists of names are looked at, as certificate files are.
const lookEvery = 10 * time.Second

// lists knows the files of names by size and time of change. A list that has
// changed is read when it was the same twice, for it may be in the writing.
type lists struct {
	inForce, last map[string]stamp
}

// stamp is what a file looks like from outside.
type stamp struct {
	size int64
	time time.Time
}

// look looks at the files of old names and aliases. One that is not there has no stamp.
func look(c *config.Config) map[string]stamp {
	now := map[string]stamp{}
	for _, b := range c.Brands {
		for _, file := range []string{b.LegacyFile, b.Aliases} {
			if info, err := os.Stat(file); file != "" && err == nil {
				now[file] = stamp{info.Size(), info.ModTime()}
			}
		}
	}
	return now
}

// changed says whether it is time to read the lists anew.
func (l *lists) changed(c *config.Config) bool {
	now := look(c)
	settled := maps.Equal(now, l.last)
	l.last = now
	if !settled || maps.Equal(now, l.inForce) {
		return false
	}
	l.inForce = now // if they cannot be used, that is said once
	return true
}

// rereadLists puts changed lists of names in force, and nothing else of the
// configuration, whatever its file says by now.
func (d *daemonized) rereadLists() {
	for _, p := range forgiven(d.config, d.config.Check(time.Time{})) {
		if p.File != d.path {
			d.log.Warn(p.String())
		}
	}
	seen := d.lists
	s, err := d.apply(d.config)
	d.lists = seen
	if err != nil {
		d.log.Error("the new list of names is not in force; the old one still is", zap.Error(err))
		return
	}
	names := 0
	for _, b := range s.Brands {
		names += len(b.Legacy)
	}
	d.log.Info("the new list of names is in force", zap.Int("names", names))
}

// drain ends the engine; one more signal cuts what is left.
func (d *daemonized) drain(signals <-chan os.Signal) {
	d.log.Info("draining: no new sessions", zap.Int("sessions", d.engine.Sessions()),
		zap.Duration("goodbye", d.config.Drain.Goodbye), zap.Duration("deadline", d.config.Drain.Deadline))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var web sync.WaitGroup
		web.Go(d.kept.closeSockets)
		d.engine.Shutdown(d.config.Drain.Goodbye, d.config.Drain.Deadline)
		web.Wait()
	}()
	for {
		select {
		case <-done:
			d.log.Info("drained")
			return
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			d.log.Warn("cutting the sessions that are left", zap.Int("sessions", d.engine.Sessions()))
			d.engine.Shutdown(0, 0)
			<-done
			return
		}
	}
}

// sayListening names the sockets that are new, and those that were closed.
func (d *daemonized) sayListening(s *proxy.Settings, before *config.Config) {
	old, now := map[string]config.Listener{}, map[string]bool{}
	if before != nil {
		for _, l := range before.Listeners {
			old[l.Address.String()] = l
		}
	}
	for _, l := range s.Listeners {
		now[l.Address] = true
		if was := old[l.Address]; string(was.Name) == l.Name && fronts[was.Protocol] == l.Front && (was.TLS == config.Implicit) == l.Implicit {
			continue
		}
		tls := "starttls"
		if l.Implicit {
			tls = "implicit"
		}
		d.log.Info("listening", zap.String("listener", l.Name), zap.Stringer("address", d.engine.Addr(l.Name)),
			zap.String("protocol", l.Front.Name), zap.String("tls", tls))
	}
	for address, l := range old {
		if !now[address] {
			d.log.Info("no longer listening", zap.String("listener", string(l.Name)), zap.String("address", address))
		}
	}
}

// recorders are the places that an event goes to.
type recorders struct {
	log   *events.Log
	count *metrics
	books *ledgered // nil: there is none
	also  *screen
}

// Record tells the screen too, whatever became of the file.
func (r recorders) Record(e *events.Session) error {
	if r.also != nil {
		r.also.show(e)
	}
	r.count.Record(e)
	if r.books != nil {
		r.books.Record(e)
	}
	err := r.log.Record(e)
	if err != nil {
		r.count.eventFailed()
	}
	return err
}

// operatorsLog is for people, or for machines.
func operatorsLog(c config.Log, level zap.AtomicLevel, out zapcore.WriteSyncer) *zap.Logger {
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.RFC3339TimeEncoder
	conf.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(conf)
	if c.Format == config.FormatConsole {
		encoder = zapcore.NewConsoleEncoder(conf)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(out), level)
	// A dead backend says the same for every login: of lines that are equal but
	// for their fields, fifty a second and then every hundredth.
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 50, 100))
}

// listenHint says what to do about a socket that cannot be opened.
func listenHint(err error) error {
	var l *proxy.ListenError
	switch {
	case !errors.As(err, &l):
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		return withHint(err, "another program has %s; `ss -ltnp` names it", l.Address)
	case errors.Is(err, syscall.EACCES):
		return withHint(err, "ports below 1024 want root, or `setcap cap_net_bind_service=+ep %s`", executable())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return withHint(err, "`ip address` lists the addresses of this machine")
	}
	return err
}

func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "mailreeve"
	}
	return path
}
