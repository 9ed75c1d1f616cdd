package main

// The daemon: start, reload on SIGHUP, drain on SIGTERM.

import (
	"errors"
	"os"
	"os/signal"
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
	var path string
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the proxy in front of your servers",
		Long: `Run the proxy with a configuration file, until SIGTERM or SIGINT.

SIGHUP reads the file and the certificates anew: sessions go on, and a file with
an error leaves the old configuration in force and says so. Only events and
log.format wait for the next start. It opens the event log anew too, for logrotate.

SIGTERM and SIGINT drain: no new sessions, a goodbye in their protocol to those
that are idle, spread over drain.goodbye; what is left is cut at drain.deadline.
A second signal cuts at once.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := &daemonized{path: path, errors: zapcore.AddSync(c.ErrOrStderr())}
			return d.run(nil)
		},
	}
	configFlag(c, &path)
	return c
}

// configFlag gives a command its -c.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "/etc/mailreeve/mailreeve.yaml", "configuration `file`")
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
}

// run serves until a signal ends it. also, where given, hears every event, and
// is told when the listeners are open.
func (d *daemonized) run(also *screen) error {
	// Before anything is open, so that a signal finds its way from the start.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	c, s, problems, err := load(d.path, lenient)
	if err != nil {
		return err
	}
	d.began = c
	d.level = zap.NewAtomicLevelAt(zap.InfoLevel)
	d.log = operatorsLog(c.Log, d.level, d.errors)
	d.adopt(c, problems)
	if d.events, err = events.Open(c.Events.File, c.Events.Keep); err != nil {
		return withHint(err, "events.file in %s says where it goes: a file that the program's user may write", d.path)
	}
	defer d.events.Close()
	d.engine = &proxy.Engine{Log: d.log, Events: recorders{d.events, also}}
	if err := d.engine.Apply(s); err != nil {
		return listenHint(err)
	}
	d.sayListening(s, nil)
	d.log.Info("policy in force", zap.Stringer("policy", s.Policy))
	d.warnOfFiles(s)
	if also != nil {
		also.ready()
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
	for sig := range signals {
		if sig != syscall.SIGHUP || d.gone != nil && d.gone() {
			break
		}
		d.reload()
	}
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	d.drain(signals)
	return nil
}

// adopt takes over what of a configuration is not the engine's.
func (d *daemonized) adopt(c *config.Config, problems config.Problems) {
	d.config = c
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
	c, s, problems, err := load(d.path, lenient)
	if err == nil {
		err = listenHint(d.engine.Apply(s))
	}
	if err != nil {
		d.sayWrong(err)
		return
	}
	if c.Events != d.began.Events || c.Log.Format != d.began.Log.Format {
		d.log.Warn("events and log.format take effect at the next start")
	}
	before := d.config
	d.adopt(c, problems)
	d.sayListening(s, before)
	d.warnOfFiles(s)
	d.log.Info("the new configuration is in force", zap.String("file", d.path))
}

// sayWrong tells what is wrong with a new configuration, a line for each
// problem, as the check does.
func (d *daemonized) sayWrong(err error) {
	fields := []zap.Field{zap.String("file", d.path)}
	var problems config.Problems
	var h *hinted
	if errors.As(err, &problems) {
		for _, p := range problems {
			d.log.Error(p.String())
		}
		fields = append(fields, zap.Int("problems", len(problems)))
	} else {
		fields = append(fields, zap.Error(err))
	}
	if errors.As(err, &h) {
		fields = append(fields, zap.String("hint", h.hint))
	}
	d.log.Error("the new configuration is not in force; the old one still is", fields...)
}

// drain ends the engine; one more signal cuts what is left.
func (d *daemonized) drain(signals <-chan os.Signal) {
	d.log.Info("draining: no new sessions", zap.Int("sessions", d.engine.Sessions()),
		zap.Duration("goodbye", d.config.Drain.Goodbye), zap.Duration("deadline", d.config.Drain.Deadline))
	done := make(chan struct{})
	go func() {
		d.engine.Shutdown(d.config.Drain.Goodbye, d.config.Drain.Deadline)
		close(done)
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

// warnOfFiles warns where the system would stop before the configured limit does.
func (d *daemonized) warnOfFiles(s *proxy.Settings) {
	// Go has raised the soft limit to the hard one already.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && uint64(files.Cur) < uint64(2*s.Connections+100) {
		d.log.Warn("the limit of open files does not bear limits.connections: a session needs two; raise LimitNOFILE of the service, or lower limits.connections",
			zap.Uint64("files", uint64(files.Cur)), zap.Int("connections", s.Connections))
	}
}

// recorders are the places that an event goes to.
type recorders struct {
	log  *events.Log
	also *screen
}

// Record tells the screen too, whatever became of the file.
func (r recorders) Record(e *events.Session) error {
	if r.also != nil {
		r.also.show(e)
	}
	return r.log.Record(e)
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
