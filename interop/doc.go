// Package interop tests Mailreeve between the servers and the mail programs that are in
// use: Debian's Dovecot and Postfix behind it, curl, mbsync, fetchmail, neomutt and others
// in front of it; with Debian's pebble as the authority that gives it certificates, and with
// testssl.sh and sslscan as those who judge its TLS.
//
// [StartServers] starts the servers, once per test binary, in a directory of their own on
// loopback ports of their own. They read nothing below /etc/dovecot and /etc/postfix, and
// end with the tests. [Rig.StartCA] starts a pebble for one test. [Clients] are the mail
// programs. Which side of a test is which is one parameter, the [Endpoint]: a client is given
// the server's own, or the proxy's. Host names are told to the programs; none is looked up.
//
// The tests of this package that need no proxy write down what the real servers expect from
// one: TestDovecot*, TestPostfix*. TestExample* play the stories of deploy/examples. The
// package is for tests, and bench starts its servers by it; nothing in the program imports it.
//
// The script install installs the Debian packages listed in packages.txt. Postfix wants
// root, so the tests do. Where a program is missing the tests are skipped, except if the
// environment variable CI is set: then they fail.
package interop
