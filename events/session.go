// Package events is the record of what happened: one JSON object a session, a
// line each, written when the session ends.
//
// The struct [Session] is the schema, version 1, for the writer and the reader
// alike; a golden test holds its bytes. Fields are only ever added within a
// version; a field is left out where its fact never became known. The table of
// `mailreeve help events` is made from the struct's own tags.
//
// What is not in it, on purpose: passwords, tokens and SASL responses; and the
// user name of a login that the backend did not confirm, since people type
// passwords into name fields. The backend's own log has it, with the client's
// address and, where it takes them, this record's id.
//
// # Roads not taken
//
// The operators' log is zap's. Events are encoded by encoding/json instead of
// zap's encoder: one set of tags then serves writing, reading back and the
// documentation, and an event has no level, caller or sampling to switch off.
package events

import (
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// Version is the schema's version, in every event's field "v".
const Version = 1

// Session is one event.
type Session struct {
	V    int       `json:"v" doc:"version of the schema: 1"`
	Kind string    `json:"event" doc:"session"`
	Time time.Time `json:"time" doc:"when the session began, UTC"`
	ID   string    `json:"id" doc:"session id; refusals carry it, so that a customer can read it out"`

	Listener  string     `json:"listener" doc:"name of the listener"`
	Protocol  string     `json:"protocol" doc:"imap, pop3 or submission"`
	Port      int        `json:"port" doc:"port that the client reached"`
	IP        netip.Addr `json:"ip,omitzero" doc:"the client's address"`
	Via       netip.Addr `json:"via,omitzero" doc:"the balancer that sent the address by PROXY protocol"`
	Entry     string     `json:"entry,omitempty" doc:"plain, starttls or implicit"`
	WrongPort bool       `json:"wrong_port,omitempty" doc:"implicit TLS on a STARTTLS port, or plaintext on a TLS port"`

	TLS         string `json:"tls,omitempty" doc:"none, or the version: 1.0 to 1.3; also of a client refused because it offers no better"`
	Cipher      string `json:"cipher,omitempty" doc:"cipher suite"`
	CipherClass string `json:"cipher_class,omitempty" doc:"modern (forward secrecy and AEAD) or legacy"`
	Resumed     bool   `json:"resumed,omitempty" doc:"the TLS session was resumed"`
	ALPN        string `json:"alpn,omitempty" doc:"application protocol agreed on"`
	Alert       string `json:"alert,omitempty" doc:"TLS alert by which the client ended it, in the handshake or later (RFC 8446 section 6)"`
	SNI         string `json:"sni,omitempty" doc:"server name that the client asked for"`
	Host        string `json:"host,omitempty" doc:"what that name is: canonical, other_service, legacy, unknown or absent"`
	Brand       string `json:"brand" doc:"brand of that name, or of the listener"`

	Client   string            `json:"client,omitempty" doc:"software: name and version from IMAP ID, or the EHLO argument"`
	ClientID map[string]string `json:"client_id,omitempty" doc:"the fields of IMAP ID"`
	Hello    string            `json:"hello,omitempty" doc:"argument of EHLO or HELO"`

	Mechanism string `json:"mechanism,omitempty" doc:"SASL mechanism last used, or USERPASS"`
	UserForm  string `json:"user_form,omitempty" doc:"bare or address: the form of the name as it was typed"`
	Account   string `json:"account,omitempty" doc:"user name, once the backend has confirmed the login"`
	Domain    string `json:"domain,omitempty" doc:"domain of that account"`
	Ledger    string `json:"ledger,omitempty" doc:"what was known of the account over time when policy was asked: clean, open, fixed or exempt"`
	Verified  bool   `json:"verified,omitempty" doc:"the backend confirmed the login"`
	Exposed   bool   `json:"exposed,omitempty" doc:"a password crossed the network in clear"`
	Attempts  int    `json:"attempts,omitempty" doc:"logins tried"`
	Refused   string `json:"refused,omitempty" doc:"why the last login was refused: policy, policy_for_now, login_needed, mechanism, credential, no_access or unavailable"`

	Action string   `json:"action" doc:"what policy did: pass, observe, notify, warn, tempfail, deny or refuse"`
	By     []string `json:"by,omitempty" doc:"all requirements violated"`
	Policy string   `json:"policy" doc:"name and hash of the policy in force"`

	// What explains the action, together with the facts above.
	Decided   time.Time `json:"decided,omitzero" doc:"when policy was asked for it, by the clock of policy, UTC"`
	Rule      string    `json:"rule,omitempty" doc:"the requirement that decided: of those violated the most severe"`
	Stage     time.Time `json:"stage,omitzero" doc:"since when its stage is in force, for this account, UTC; left out where that is since ever"`
	Bucket    *int      `json:"bucket,omitempty" doc:"where the account's draw for its share lies, 0 to 99999, once the backend has confirmed the login"`
	Exception string    `json:"exception,omitempty" doc:"the exception that made it milder"`
	Hold      *Hold     `json:"hold,omitempty" doc:"the hold in force then: cap, reason, owner, since and until"`
	Told      bool      `json:"told,omitempty" doc:"the warning was shown beside the login"`

	Backend  string  `json:"backend,omitempty" doc:"address of the backend last tried"`
	BytesIn  int64   `json:"bytes_in" doc:"bytes from the client, without TLS"`
	BytesOut int64   `json:"bytes_out" doc:"bytes to the client, without TLS"`
	Seconds  float64 `json:"seconds" doc:"from accept to close"`

	End      string `json:"end" doc:"who ended it (C client, B backend, P proxy by policy or protocol, L proxy by a limit, D proxy shutting down, E proxy by an error) and in which phase (A accept, S sniffing, T TLS, D dialogue, L login at the backend, R relay)"`
	Reason   string `json:"reason" doc:"the ending in a stable word"`
	Sentence string `json:"sentence" doc:"the ending in a sentence"`
}

// Hold is what capped policy at run time.
type Hold struct {
	Cap    string    `json:"cap"`
	Reason string    `json:"reason,omitempty"`
	Owner  string    `json:"owner,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
}

// Field is one line of the schema's documentation.
type Field struct {
	Name, Type, Doc string
}

// Fields lists the schema in the order of an event.
func Fields() []Field {
	t := reflect.TypeFor[Session]()
	fields := make([]Field, t.NumField())
	for i := range fields {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[i] = Field{Name: name, Type: jsonType(f.Type), Doc: f.Tag.Get("doc")}
	}
	return fields
}

// jsonType names what a Go type becomes in JSON.
func jsonType(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Hold]():
		return "object"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64, t.Kind() == reflect.Float64:
		return "number"
	}
	return "string"
}
