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
// account.go has the words, findings.go what is wrong with an account. ledger.go and
// its like keep it (SQLite, or PostgreSQL for a fleet), intake.go fills it. report.go
// and impact.go count, plan.go and what follows it send notices.
package outreach
