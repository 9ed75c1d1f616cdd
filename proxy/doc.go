// Package proxy is the engine: it listens, sniffs, runs the session, asks
// policy, logs in at the backend, relays, limits and drains. It knows no
// protocol's words; those are in a [Front], one record a protocol.
//
// # The life of a session
//
//	accept     limits per address and in total; PROXY header from listed networks
//	sniff      TLS or not? a first byte of 0x16 is a TLS record
//	tls        the handshake; name, version, cipher and ALPN become facts
//	dialogue   the front talks until the client wants STARTTLS or a login
//	decide     policy turns facts into a verdict
//	login      at the backend, with the client's credential and address
//	relay      raw bytes both ways, until one side ends it
//	end        one event
//
// # Decisions
//
// Policy is asked by one method of the session, under the hold of the engine and
// by a clock of its own (Settings.Now), which rehearsals set to another date.
// [Engine.SetHold] counts from the next decision on, and so does a stage that
// begins, in the sessions that are there too. What is offered follows the mildest
// verdict that is still possible, so that the exception of one account leaves it
// a way in. In clear, and in TLS that is refused for its age, a denial does not
// depend on the credential and no backend is asked; else the backend confirms
// the credential first. A warning is shown once a day to each account and
// program; who was warned is forgotten at a restart, not by new settings.
//
// # Contracts
//
// A [Wire] owns a connection and every byte read ahead from it; whatever the
// dialogue did not use goes first into the relay. A [Dialogue] turns bytes
// into [Request]s and refusals into bytes and decides nothing; the engine
// decides and knows no words. A [Peer] speaks as a client on the backend's
// wire.
//
// A dialogue works in its session's goroutine, a peer in that or in the one that
// asks a backend what it offers. Both may block: the engine bounds them by
// deadlines on the connection, and a shutdown moves these or closes it. Neither
// closes it itself: the session closes the client's, who dialled the backend
// closes that one's, and the relay closes both.
//
// After the login a session leaves its goroutine, and lets go of all but its event
// and its relay. In that nothing blocks: a [port] answers that there is nothing
// to read, and takes what cannot be sent yet; it wakes the relay when that changes.
// So nothing in the relay, a front's Watch included, may wait for anything.
//
// # Standards
//
// Done: TLS 1.2 and 1.3 (RFC 9325), server names (RFC 6066 section 3), alerts of
// clients (RFC 8446 section 6), tickets bound to front and name, ALPN (RFC
// 7301), cleartext considered obsolete (RFC 8314), PROXY protocol 1 and 2
// (haproxy.org's proxy-protocol.txt), SASL PLAIN (RFC 4616), LOGIN, OAUTHBEARER
// (RFC 7628), XOAUTH2. TLS 1.0 and 1.1 against RFC 8996, where a listener has
// them switched on and policy does not refuse them: old devices are counted and
// told before they are turned away.
//
// Mechanisms whose secret the proxy never sees pass challenge by challenge, where
// policy lets them: CRAM-MD5 (RFC 2195), DIGEST-MD5 (RFC 2831), NTLM ([MS-NLMP]),
// SCRAM (RFC 5802, RFC 7677), APOP (RFC 1939). The account is read out of the
// exchange, before the proof of the password is passed on (whose.go, passage.go).
// What cannot pass is listed there with the reason. The name in such an exchange
// is part of the proof: a brand that rewrites names cannot rewrite that one.
//
// # Departures from the design
//
// A front logs in by a [Peer] of five steps in place of one function Login: the
// engine puts TLS between two of them, and asks what a backend offers without a
// login. That is asked because a dialogue must announce no more and no less than
// the backend bears; the answer is kept for a minute.
//
// [Dialogue.Upgrade] takes a new [Advert] in place of a wire: the wire stays and
// is made secure inside, but in TLS there is more to offer. [Advert].Quiet is
// there for clients that ask in clear what is offered and then begin TLS: an
// alert in between would warn of what they do not do.
//
// A [Master] wants a backend that checks the customer's own credential first,
// since the one it logs in at would let anybody in.
//
// # Roads not taken
//
// A list of TLS configurations by server name: names are told apart in the hello,
// by policy, and what differs is four kinds of configuration a listener.
//
// Library servers (go-imap, go-smtp) before the login: they swallow bytes read
// ahead, announce their own capabilities and answer the interesting cases
// before we hear of them. go-smtp's client on a lent wire for the backend:
// it cannot list a server's extensions, and ours must be exact. go-sasl: it has
// neither LOGIN for servers nor XOAUTH2, and PLAIN is one split at NUL.
// Goroutines that copy after the login, and Go's own poller for their sockets: see
// parking.
// splice(2) and the kernel's TLS: most bytes must be encrypted or decrypted, and
// the kernel that can do it is not everywhere.
// Parsing after the login: the raw relay keeps every extension of the backend.
package proxy
