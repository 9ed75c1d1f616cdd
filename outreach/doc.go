// Package outreach knows what each account does over time, and tells the right
// customers what to change: the ledger, the findings in it, reports, and notices.
//
// # Facts, not verdicts
//
// The ledger keeps, by account and day, how often a login was confirmed in which
// [Shape]: the facts of it that policies ask about, without address and time of day. What that
// violates is computed when somebody asks, from the policy of that moment. So a
// requirement that is written tomorrow sees the past months, "who breaks if this were
// enforced today" needs no raw log, and the census may begin before there is a policy.
//
// # Privacy
//
// There is no IP address in the ledger and no time finer than the day. Only logins
// that the backend confirmed enter it: robots and typing errors must never cause a
// mail to somebody innocent. It belongs to a campaign with a purpose and an end, 90
// days after which accounts are deleted and counts remain.
//
// # Where it lies
//
// account.go has the words, findings.go what is wrong with an account. db.go and ledger.go
// keep it (SQLite, or PostgreSQL for a fleet), the intake files fill it, privacy.go empties
// it. report.go and impact.go count; snapshot.go and guard.go answer policy. plan.go says who
// is told when, notice.go, markup.go and compose.go write, lint.go reads that over, outbox.go
// and send.go see that each leaves once, and bounce.go hears of those that return.
// support.go is what the support desk sees.
// # Roads not taken
//
// A reader of events by hand was an eighth of encoding/json's work, and half of that of an
// import. encoding/json takes 25 microseconds of a processor for an event, all in all: a provider with
// a million mailboxes has some 700 in a second. So there is one reading of them.
package outreach
