package main

// What is in force of the policy by the clock: stages begin by themselves, a hold
// comes and goes by its file. Both are said in the log at their moment.

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"mailreeve/policy"
)

// inForce watches a policy and the hold.
type inForce struct {
	log *zap.Logger
	set func(*policy.Hold) // puts a hold in force, or with nil lifts it

	heard func(coming) // where given, hears what begins by itself

	// shift is how far the policy's clock is from the true one, in a rehearsal.
	shift time.Duration

	mu     sync.Mutex // guards the following: the numbers are asked for at any time
	policy *policy.Policy
	hold   *policy.Hold // with the times as the policy's clock has them
	ended  bool         // the hold, which was said
	path   string       // of the hold
	seen   string       // what stood there
	coming []coming     // in order
	told   time.Time    // when the rehearsal was last called one
}

// coming is something that happens by itself.
type coming struct {
	at   time.Time
	text string
}

// now is the policy's clock.
func (w *inForce) now() time.Time { return time.Now().Add(w.shift) }

// held is the hold that was put last, with the times as the policy's clock has them; nil where
// there is none.
func (w *inForce) held() *policy.Hold {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hold
}

// put has a policy watched, which came into force, and the hold looked for in a file.
func (w *inForce) put(p *policy.Policy, hold string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policy, w.coming = p, comingOf(p, w.now())
	if hold != w.path {
		w.path, w.seen = hold, ""
	}
	w.lookForHold()
}

// comingOf lists what happens after an instant, with both ends of every trial outage.
func comingOf(p *policy.Policy, now time.Time) (all []coming) {
	add := func(at time.Time, text string) {
		if at.After(now) {
			all = append(all, coming{at, text})
		}
	}
	for _, t := range p.Calendar() {
		if t.Kind != policy.BrownoutRuns {
			add(t.At, t.Text)
			continue
		}
		for _, window := range t.Windows {
			add(window.From, fmt.Sprintf("%s: a brownout begins, %v until %s", t.Requirement, t.Do, window.Until.Format("15:04 MST")))
			add(window.Until, t.Requirement+": a brownout is over")
		}
	}
	slices.SortStableFunc(all, func(a, b coming) int { return a.at.Compare(b.at) })
	return all
}

// tick is called every second.
func (w *inForce) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for len(w.coming) > 0 && !now.Before(w.coming[0].at) {
		w.log.Info("the policy's clock: "+w.coming[0].text, zap.Stringer("policy", w.policy), zap.Time("since", w.coming[0].at))
		if w.heard != nil {
			w.heard(w.coming[0])
		}
		w.coming = w.coming[1:]
	}
	w.lookForHold()
	if w.hold != nil && !w.ended && !now.Before(w.hold.Until) {
		w.ended = true
		w.log.Warn("the hold has ended: the policy is in force as it stands", holdFields(w.hold)...)
	}
	if w.shift != 0 && time.Since(w.told) >= time.Minute {
		w.told = time.Now()
		w.log.Warn("a rehearsal: the policy lives at another date, and customers meet what it says then", zap.Time("now", now))
	}
}

// lookForHold reads the hold's file and puts it in force if it has changed. A file
// that is no hold changes nothing: whoever wrote it meant to soften something.
func (w *inForce) lookForHold() {
	hold, text, err := readHold(w.path)
	if text == w.seen {
		return
	}
	w.seen = text
	if err != nil {
		w.log.Error("the hold cannot be read; what was in force stays so", zap.Error(err), zap.Bool("hold", w.hold != nil))
		return
	}
	before := w.hold
	if hold != nil {
		hold.Since, hold.Until = hold.Since.Add(w.shift), hold.Until.Add(w.shift)
	}
	w.hold, w.ended = hold, false
	w.set(hold)
	switch {
	case hold == nil && before != nil:
		w.log.Warn("the hold is lifted: the policy is in force as it stands", holdFields(before)...)
	case hold == nil:
	case !w.now().Before(hold.Until):
		w.ended = true
		w.log.Info("there is a hold that has ended", holdFields(hold)...)
	default:
		w.log.Warn("a hold is in force: nothing meets more than "+hold.Cap.String(), holdFields(hold)...)
	}
}

func holdFields(h *policy.Hold) []zap.Field {
	return []zap.Field{zap.Stringer("cap", h.Cap), zap.String("owner", h.Owner), zap.String("reason", h.Reason),
		zap.Time("since", h.Since), zap.Time("until", h.Until)}
}

// say tells which policy is in force, what it does now and what comes next.
func (w *inForce) say() {
	w.mu.Lock()
	defer w.mu.Unlock()
	fields := []zap.Field{zap.Stringer("policy", w.policy), zap.String("stages", stagesOf(w.policy, w.now()))}
	if len(w.coming) > 0 {
		fields = append(fields, zap.String("next", w.coming[0].text), zap.Time("at", w.coming[0].at))
	}
	w.log.Info("policy in force", fields...)
}

// stagesOf says what each requirement does by date.
func stagesOf(p *policy.Policy, now time.Time) string {
	var all []string
	for _, r := range p.Explain(&policy.Facts{}, now).Steps {
		does := "not yet"
		if r.Stage != nil {
			does = r.Stage.Do.String()
		}
		all = append(all, r.ID+" "+does)
	}
	return strings.Join(all, ", ")
}

var (
	policyStage = prometheus.NewDesc("mailreeve_policy_stage",
		"Number of the stage that a requirement is in by date; 0 before the first.", []string{"requirement", "do"}, nil)
	policyNext = prometheus.NewDesc("mailreeve_policy_next_timestamp_seconds",
		"When the next stage of a requirement begins.", []string{"requirement"}, nil)
	policyHold = prometheus.NewDesc("mailreeve_policy_hold",
		"1 while a hold makes everything milder.", nil, nil)
)

// Describe is a part of prometheus.Collector.
func (w *inForce) Describe(descs chan<- *prometheus.Desc) {
	descs <- policyStage
	descs <- policyNext
	descs <- policyHold
}

// Collect is a part of prometheus.Collector. A policy has at most 64 requirements.
func (w *inForce) Collect(out chan<- prometheus.Metric) {
	w.mu.Lock()
	p, hold, now := w.policy, w.hold, w.now()
	w.mu.Unlock()
	if p == nil {
		return
	}
	for _, r := range p.Explain(&policy.Facts{}, now).Steps {
		number, do := 0, policy.Pass
		if r.Stage != nil {
			number, do = r.Stage.Number, r.Stage.Do
		}
		out <- prometheus.MustNewConstMetric(policyStage, prometheus.GaugeValue, float64(number), r.ID, do.String())
		if r.Next != nil {
			out <- prometheus.MustNewConstMetric(policyNext, prometheus.GaugeValue, float64(r.Next.From.Unix()), r.ID)
		}
	}
	held := 0.0
	if hold != nil && !now.Before(hold.Since) && now.Before(hold.Until) {
		held = 1
	}
	out <- prometheus.MustNewConstMetric(policyHold, prometheus.GaugeValue, held)
}
