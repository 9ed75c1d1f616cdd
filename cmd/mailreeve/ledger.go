package main

// The ledger of the running program: it reads the events, answers policy from memory,
// and watches what the beginning of a stage does. Sessions never wait for it.

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"mailreeve/config"
	"mailreeve/events"
	"mailreeve/outreach"
	"mailreeve/policy"
)

const (
	// numbersEvery is how often all accounts are looked at anew, and numbersRest how many times
	// as long as that takes it rests at least: a large ledger shall not keep a core busy.
	numbersEvery = 5 * time.Minute
	numbersRest  = 20

	// ledgerAgain is when a ledger that could not be opened is tried again.
	ledgerAgain = time.Minute
)

// ledgered is the ledger of a running program.
type ledgered struct {
	log    *zap.Logger
	config *config.Config // at the start; Outreach is there
	now    func() time.Time
	watch  *outreach.Watch

	policy   atomic.Pointer[policy.Policy]
	snapshot atomic.Pointer[outreach.Snapshot]
	read     atomic.Int64 // when the ledger last had all events, in seconds
	alarms   prometheus.Counter
	wanted   chan struct{} // numbers, now: there is another policy

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// newLedgered begins to keep the ledger of a configuration that has outreach. last is the
// hold that was put last, or nil.
func newLedgered(c *config.Config, p *policy.Policy, last *policy.Hold, now func() time.Time, log *zap.Logger) *ledgered {
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledgered{log: log, config: c, now: now, watch: outreach.NewWatch(p, last, now()), cancel: cancel, wanted: make(chan struct{}, 1),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{Name: "mailreeve_guard_alarms_total",
			Help: "Beginnings of stages that would refuse, or did refuse, more accounts than allowed or foreseen."})}
	l.policy.Store(p)
	l.running.Go(func() { l.keep(ctx) })
	return l
}

// end stops keeping it, and returns when nothing runs any more.
func (l *ledgered) end() {
	l.cancel()
	l.running.Wait()
}

// account is what the ledger knows of an account, for policy. It is asked in each login.
func (l *ledgered) account(name string) string { return l.snapshot.Load().Ledger(name) }

// use takes another policy, which has come into force.
func (l *ledgered) use(p *policy.Policy) {
	if l.policy.Swap(p).String() == p.String() {
		return
	}
	l.watch.Use(p, l.now())
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

// Record hears of a session that has ended.
func (l *ledgered) Record(e *events.Session) { l.watch.Heard(e) }

// keep opens the ledger, and reads events and makes numbers until the end.
func (l *ledgered) keep(ctx context.Context) {
	for ctx.Err() == nil {
		ledger, err := openLedger(ctx, l.config, "run", l.now)
		if err == nil {
			err = l.follow(ctx, ledger)
			ledger.Close()
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, outreach.ErrEnded) {
			l.log.Warn("the campaign is over: the ledger is kept no longer", zap.String("campaign", string(l.config.Outreach.Campaign)))
			return
		}
		l.log.Error("the ledger cannot be used; customers are served all the same, and it is tried again in a minute", zap.Error(err))
		pause(ctx, ledgerAgain)
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// follow reads events as they come, and makes numbers now and then. It returns when the ledger fails.
func (l *ledgered) follow(ctx context.Context, ledger *outreach.Ledger) error {
	in, err := newIntake(l.config, ledger, "")
	if err != nil {
		return err
	}
	f := in.Follower(l.config.Events.File)
	var next time.Time // numbers
	today := outreach.Day(0)
	look := time.NewTicker(eventsEvery)
	defer look.Stop()
	for {
		if l.config.Outreach.Follow {
			tally, err := f.Look(ctx)
			if err != nil {
				return err
			}
			l.read.Store(time.Now().Unix())
			if tally.Unknown > 0 {
				l.log.Warn("lines of the event log are no events", zap.Int("lines", tally.Unknown))
			}
		}
		if d := outreach.DayOf(l.now(), l.config.Outreach.Timezone.Location()); d != today {
			if today != 0 { // opening it has looked
				if _, err := ledger.Expire(ctx); err != nil {
					return err
				}
			}
			today = d
		}
		if began := time.Now(); !began.Before(next) {
			if err := l.number(ctx, ledger); err != nil {
				return err
			}
			next = time.Now().Add(max(numbersEvery, numbersRest*time.Since(began)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wanted:
			next = time.Time{}
		case <-look.C:
		}
	}
}

// number makes the numbers that policy and the guard ask for.
func (l *ledgered) number(ctx context.Context, ledger *outreach.Ledger) error {
	p, now, zone := l.policy.Load(), l.now(), l.config.Outreach.Timezone.Location()
	s, err := outreach.MakeSnapshot(ledger.Accounts(ctx, 0), p, now, zone)
	if err != nil {
		return err
	}
	forecasts, err := outreach.Forecasts(ledger.Accounts(ctx, 0), p, now, zone)
	if err != nil {
		return err
	}
	if l.snapshot.Swap(s) == nil {
		l.log.Info("the ledger is read", zap.Any("accounts", s.Counts()))
	}
	l.watch.Foresee(forecasts)
	return nil
}

// guard says what the watch has to say, and puts its hold into a file. in is the hold in
// force, or nil; shift is how far the policy's clock is from the true one.
func (l *ledgered) guard(path string, in *policy.Hold, shift time.Duration) {
	now := l.now()
	for _, a := range l.watch.Tick(now) {
		l.alarms.Inc()
		fields := []zap.Field{zap.String("requirement", a.Requirement), zap.Time("stage", a.At), zap.String("reason", a.Reason)}
		switch {
		case a.Hold == nil:
			l.log.Error("the beginning of a stage is not as foreseen; it has no guard, so nothing is held back", fields...)
		case path == "":
			l.log.Error("a guard wants a hold, and there is no place for one: set state, or hold", fields...)
		case in != nil && in.Cap <= a.Hold.Cap && now.Before(in.Until):
			l.log.Error("a guard wants a hold; the one in force is as mild", fields...)
		default:
			hold := *a.Hold
			hold.Since, hold.Until = hold.Since.Add(-shift).Truncate(time.Second), hold.Until.Add(-shift).Truncate(time.Second)
			if err := writeHold(path, &hold); err != nil {
				l.log.Error("a guard's hold could not be written", append(fields, zap.Error(err))...)
				continue
			}
			l.log.Error("a guard puts a hold: `mailreeve policy lift` takes it back", append(fields, zap.Stringer("cap", hold.Cap), zap.Time("until", hold.Until))...)
		}
	}
}

var (
	ledgerAccounts = prometheus.NewDesc("mailreeve_ledger_accounts",
		"Accounts in the ledger, by what policy is told of them.", []string{"ledger"}, nil)
	ledgerRead = prometheus.NewDesc("mailreeve_ledger_read_timestamp_seconds",
		"When the ledger last had all events.", nil, nil)
)

// Describe is a part of prometheus.Collector.
func (l *ledgered) Describe(descs chan<- *prometheus.Desc) {
	descs <- ledgerAccounts
	descs <- ledgerRead
	l.alarms.Describe(descs)
}

// Collect is a part of prometheus.Collector.
func (l *ledgered) Collect(out chan<- prometheus.Metric) {
	l.alarms.Collect(out)
	if read := l.read.Load(); read > 0 {
		out <- prometheus.MustNewConstMetric(ledgerRead, prometheus.GaugeValue, float64(read))
	}
	if s := l.snapshot.Load(); s != nil {
		for fact, n := range s.Counts() {
			out <- prometheus.MustNewConstMetric(ledgerAccounts, prometheus.GaugeValue, float64(n), fact)
		}
	}
}
