"""A mail program made of Python's own modules: told what to do by a JSON object on its standard input."""

import imaplib
import json
import poplib
import smtplib
import ssl
import sys

task = json.load(sys.stdin)
user, password, mechanism = task["user"], task["password"], task["mechanism"]
where = {"host": task["host"], "port": task["port"]}
starttls, implicit = task["entry"] == "starttls", task["entry"] == "implicit"
tls = ssl.create_default_context(cafile=task["ca"])


def imap():
    box = imaplib.IMAP4_SSL(**where, ssl_context=tls) if implicit else imaplib.IMAP4(**where)
    if starttls:
        box.starttls(tls)
    if mechanism == "CRAM-MD5":
        box.login_cram_md5(user, password)
    elif mechanism == "PLAIN":
        box.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
    else:
        box.login(user, password)
    box.select()
    match task["action"]:
        case "list":
            print(box.search(None, "ALL"))
        case "fetch":
            for number in box.search(None, "ALL")[1][0].split():
                print(box.fetch(number, "(RFC822)")[1][0][1].decode())
        case "append":
            print(box.append("INBOX", None, None, task["message"].encode()))
        case "delete":
            for number in box.search(None, "ALL")[1][0].split():
                box.store(number, "+FLAGS", r"(\Deleted)")
            print(box.expunge())
    print(box.logout())


def pop3():
    box = poplib.POP3_SSL(**where, context=tls) if implicit else poplib.POP3(**where)
    box.encoding = "UTF-8"
    if starttls:
        box.stls(tls)
    if mechanism == "APOP":
        box.apop(user, password)
    else:
        box.user(user)
        box.pass_(password)
    for number in range(1, box.stat()[0] + 1):
        match task["action"]:
            case "list":
                print(box.list(number))
            case "fetch":
                print(b"\r\n".join(box.retr(number)[1]).decode())
            case "delete":
                print(box.dele(number))
    print(box.quit())


def submission():
    out = smtplib.SMTP_SSL(**where, context=tls) if implicit else smtplib.SMTP(**where)
    if starttls:
        out.starttls(context=tls)
    out.ehlo()
    if mechanism:
        out.user, out.password = user, password
        out.auth(mechanism, getattr(out, "auth_" + mechanism.lower().replace("-", "_")))
    else:
        out.login(user, password)
    sender, *recipients = task["addresses"]
    print(out.sendmail(sender, recipients, task["message"].encode()))
    print(out.quit())


{"imap": imap, "pop3": pop3, "submission": submission}[task["protocol"]]()
