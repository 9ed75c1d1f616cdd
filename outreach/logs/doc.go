// Package logs reads what Dovecot and Postfix wrote in their own logs, before there was
// a proxy: who logged in, and how. So the census of a provider's customers can begin
// with the logs of last month.
//
// A [Parser] takes lines one by one, in their order, and makes an [events.Session] of a
// login that succeeded. It guesses nothing. A fact that the log does not have stays
// empty, which policy takes for unknown; a line that looks like a login and is not
// understood to its last byte is Unknown, so that somebody can look at it.
//
// # Forms
//
// The stamp of a line is that of syslog (RFC 3164 section 4.1.2, without a year), of
// RFC 3339, of journalctl -o short-iso, or Dovecot's own. Dovecot 2.3 and 2.4 are known
// in their default form and with another login_log_format_elements of key=value;
// Postfix from 3.5 to 3.12 has one form. Older ones differ little, and are read as far as they do
// not.
//
// # What a log cannot say
//
// Dovecot writes PLAIN for the LOGIN command of IMAP and for USER and PASS of POP3, too. By
// default it says that there was TLS, and not which version: TLS and CipherClass then
// stay empty. Put %k (2.3) or %{ssl_security} (2.4) into login_log_format_elements to know.
// Both servers write the name after their own rules were applied: UserForm is that of
// the logged name, except where Dovecot logs %{orig_user} (2.4: %{original_user}) as orig_user.
//
// Postfix logs TLS with smtpd_tls_loglevel = 1 alone, so that no TLS counts as none only
// after the same service has logged TLS. A login is logged with each message; one
// connection makes one session here, and one without a message makes none. The port is that which the
// service's syslog_name stands for; of a plain postfix/smtpd it is known only where the same host
// has named the others.
//
// The program is known where it sends an IMAP ID before the login and Dovecot 2.3 lists
// that by imap_id_log. An ID behind the login comes after the session was told, and
// 2.4 writes neither. From the server's own address come webmail and its like: what the
// customer's connection to those was, nobody knows.
//
// # Names as weapons
//
// Who may choose his user name freely can write half a log line into it. So elements must
// be closed, none may come twice, their order is that of the lines before, and none may
// be new directly behind the name. What is left: in a log whose order is not told by
// [Options].Elements, the first line of a form sets it.
// A name with < or >, with what stands between elements, with bytes that the server
// replaced by ?, or one that was cut off, makes the line Unknown.
// Dovecot's default auth_username_chars has none of these.
package logs
