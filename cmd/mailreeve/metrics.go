package main

// Numbers for Prometheus. They say how much, the event log says who: no account, no
// address and no client's name is ever a label. A label has a word of the house (action,
// end, mechanism, alert, TLS version) or one of the configuration (listener, requirement,
// canonical name), so that no stranger can make the numbers grow.

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"mailreeve/certs"
	"mailreeve/events"
	"mailreeve/policy"
)

// metrics counts what the events tell, and asks at each scrape for what has a state. It
// has a registry of its own: what a library may put into the global one is not ours to say.
type metrics struct {
	registry *prometheus.Registry

	sessions, refused, alerts, attempts, verified *prometheus.CounterVec

	bytesIn, bytesOut, eventFailures prometheus.Counter
}

// newMetrics makes the numbers; sessions and statuses are asked at each scrape.
func newMetrics(sessions func() int, statuses func() []certs.Status) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		sessions: counters("mailreeve_sessions_total", "Sessions that have ended. action is what policy did; end is who ended it and in which phase, as in the events.",
			"protocol", "listener", "tls", "action", "end"),
		refused: counters("mailreeve_refused_total", "Sessions whose verdict was a refusal, once for each requirement they violate.",
			"protocol", "requirement"),
		alerts: counters("mailreeve_client_alerts_total", "Sessions that the client ended with a TLS alert, such as unknown_ca or bad_certificate: programs that stumble over a certificate.",
			"alert"),
		attempts: counters("mailreeve_login_attempts_total", "Logins tried, by the mechanism that the session used last.",
			"protocol", "mechanism"),
		verified: counters("mailreeve_logins_verified_total", "Sessions whose login the backend confirmed, by mechanism.",
			"protocol", "mechanism"),
		eventFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "mailreeve_event_failures_total",
			Help: "Events that could not be written whole, or not at all: customers who may not be told."}),
	}
	bytes := counters("mailreeve_bytes_total", "Bytes from clients (in) and to them (out), without TLS, of sessions that have ended.", "direction")
	m.bytesIn, m.bytesOut = bytes.WithLabelValues("in"), bytes.WithLabelValues("out")
	m.registry.MustRegister(
		m.sessions, m.refused, m.alerts, m.attempts, m.verified, m.eventFailures, bytes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailreeve_sessions", Help: "Sessions that there are now."},
			func() float64 { return float64(sessions()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailreeve_build_info", Help: "1, for its labels.",
			ConstLabels: prometheus.Labels{"version": versionOf(), "goversion": runtime.Version()}},
			func() float64 { return 1 }),
		&certificates{statuses: statuses},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
	)
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Record counts one event. It may be called by many sessions at once.
func (m *metrics) Record(e *events.Session) {
	tls := e.TLS
	if tls == "" {
		tls = "unknown" // ended before it was clear
	}
	m.sessions.WithLabelValues(e.Protocol, e.Listener, tls, e.Action, e.End).Inc()
	if refusing(e.Action) {
		for _, requirement := range e.By {
			m.refused.WithLabelValues(e.Protocol, requirement).Inc()
		}
	}
	switch {
	case strings.HasPrefix(e.Alert, "alert_"):
		m.alerts.WithLabelValues("other").Inc() // a number that a stranger made up
	case e.Alert != "":
		m.alerts.WithLabelValues(e.Alert).Inc()
	}
	if e.Attempts > 0 {
		m.attempts.WithLabelValues(e.Protocol, e.Mechanism).Add(float64(e.Attempts))
	}
	if e.Verified {
		m.verified.WithLabelValues(e.Protocol, e.Mechanism).Inc()
	}
	m.bytesIn.Add(float64(e.BytesIn))
	m.bytesOut.Add(float64(e.BytesOut))
}

// refusing says whether an event's action kept the customer out.
func refusing(action string) bool {
	for a := policy.TempFail; a <= policy.Refuse; a++ {
		if a.String() == action {
			return true
		}
	}
	return false
}

// eventFailed counts an event whose recording failed.
func (m *metrics) eventFailed() { m.eventFailures.Inc() }

// certificates tells the state of certificates at each scrape. Canonical names, of which
// the configuration has a few, are told one by one; all others, of which there may be tens
// of thousands, are only counted.
type certificates struct {
	statuses func() []certs.Status
}

var (
	certificateExpiry = prometheus.NewDesc("mailreeve_certificate_expiry_timestamp_seconds",
		"When the certificate of a canonical name ends; of several with one kind of key, the one that lasts longest.", []string{"name", "key_type", "source"}, nil)
	certificateTrouble = prometheus.NewDesc("mailreeve_certificate_trouble",
		"1 where a certificate of a canonical name is missing, expired or not renewed in time; `mailreeve certs list` says why.", []string{"name"}, nil)
	certificateFailures = prometheus.NewDesc("mailreeve_certificate_failures",
		"Attempts in vain to renew a certificate of a canonical name, since the last one that was not.", []string{"name"}, nil)
	otherCertificates = prometheus.NewDesc("mailreeve_other_certificates",
		"Certificates of names that are not canonical.", []string{"source"}, nil)
	otherTroubles = prometheus.NewDesc("mailreeve_other_certificates_in_trouble",
		"Those of them that are expired or not renewed in time.", nil, nil)
)

// Describe is a part of prometheus.Collector.
func (c *certificates) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{certificateExpiry, certificateTrouble, certificateFailures, otherCertificates, otherTroubles} {
		descs <- d
	}
}

// Collect is a part of prometheus.Collector. One name may have several statuses, and
// Prometheus takes each name but once.
func (c *certificates) Collect(out chan<- prometheus.Metric) {
	type kind struct{ name, keyType, source string }
	expiry := map[kind]time.Time{}
	trouble, failures, others, troubles := map[string]float64{}, map[string]float64{}, map[string]float64{}, 0.0
	now := time.Now()
	for _, s := range c.statuses() {
		wrong := 0.0
		if s.Trouble(now) != nil {
			wrong = 1
		}
		if !s.Canonical {
			troubles += wrong
			if !s.NotAfter.IsZero() {
				others[s.Source]++
			}
			continue
		}
		trouble[s.Name] = max(trouble[s.Name], wrong)
		failures[s.Name] = max(failures[s.Name], float64(s.Failures))
		k := kind{s.Name, s.KeyType.String(), s.Source}
		if s.NotAfter.After(expiry[k]) {
			expiry[k] = s.NotAfter
		}
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for k, at := range expiry {
		gauge(certificateExpiry, float64(at.Unix()), k.name, k.keyType, k.source)
	}
	for name, wrong := range trouble {
		gauge(certificateTrouble, wrong, name)
		gauge(certificateFailures, failures[name], name)
	}
	for source, n := range others {
		gauge(otherCertificates, n, source)
	}
	gauge(otherTroubles, troubles)
}

// handler answers GET /metrics, and nothing else. It compresses nothing: who scrapes is
// near, and the memory of a compressor would be most of what this costs. The format is
// that of Prometheus alone: in OpenMetrics, where a counter's name is what stands before
// _total, mailreeve_sessions and mailreeve_sessions_total would be one.
func (m *metrics) handler() http.Handler {
	numbers := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		DisableCompression: true, MaxRequestsInFlight: 4,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		case r.URL.Path != "/metrics":
			http.Error(w, "the numbers are at /metrics", http.StatusNotFound)
		default:
			numbers.ServeHTTP(w, r)
		}
	})
}

// server is the handler with a patience fit for a scraper nearby. Whoever starts it also
// shuts it down.
func (m *metrics) server(log *zap.Logger) *http.Server {
	complaints, _ := zap.NewStdLogAt(log, zap.DebugLevel)
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	return &http.Server{
		Handler: m.handler(), ErrorLog: complaints, Protocols: only1,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout:   30 * time.Second, // some thousand lines, and a machine that is busy
		IdleTimeout:    2 * time.Minute,  // Prometheus asks every minute or more often
		MaxHeaderBytes: 8 << 10,
	}
}
