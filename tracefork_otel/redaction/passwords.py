"""Passwords that have no form of their own: known by what stands round them, wherever that is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from .keys import without_keys

SECRET = "secret"
"""The group of a pattern that is replaced, where it has one; the rest of what it matches stays."""

_END = r"(?=$|[\s\"'`;|&)\\])"
_SPACE = r"(?:\s|\\[nrt]){1,8}"
"""Also as JSON within a text writes it."""
_WORD = r"[^\s\\]{1,255}"
_NUMBERS = r"(?:\d{1,5}|[\d.]{0,15}:[\d.:]{1,20}(?:/(?:tcp|udp))?|\d{1,5}-\d{1,5})"
"""A port, ports that are mapped, a range: options of a container that is named by what it runs."""
_NAMED = r"(?!REDACTED|redacted-|[$<{%*]|\\?[\"'`])"
"""What stands for a password and is none: a variable, a place to be filled in, stars."""

ASKING = ("curl", "wget", "http", "https", "xh", "lftp")
"""Programs that ask a server as `user:password`."""
TAKING = {
    **dict.fromkeys(
        (
            *("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlshow", "mysqlsh"),
            *("mariadb", "mariadb-dump", "mariadb-admin", "sshpass", "mongo", "mongosh", "mongodump"),
            *("mongorestore", "cqlsh", "7z"),
        ),
        "-p",
    ),
    **dict.fromkeys(("sqlcmd", "bcp", "mosquitto_pub", "mosquitto_sub", "zip", "unzip"), "-P"),
    **dict.fromkeys(("ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami"), "-w"),
    **dict.fromkeys(("redis-cli",), "-a"),
}
"""Programs, and the option by which each takes a password, as a word of its own or joined to it."""
_PROMPTING = ("mysql", "mariadb", "7z")
"""How those begin that ask for it at the option alone: the next word is another thing, as in prose."""
_WIDE = r"[\w.-]"


def _whole(name: str, before: str = r"\w") -> str:
    """Return what matches the name that is no end of a longer one; it begins as text, which is found fast."""
    return rf"{re.escape(name)}(?<!{before}{re.escape(name)})"


def _begun(name: str) -> str:
    """Return what matches a command from its name to before an option; no two such matches overlap."""
    first, rest = name[0], re.escape(name[1:])
    return (
        rf"{_whole(name, _WIDE)}(?:\.exe)?\s"
        # A backslash carries a command on to the next line.
        rf"(?:[^\n\\|;{first}]|\\[\s\S]|{first}(?!{rest}\s)){{0,400}}?(?<=\s)"
    )


def _taken(name: str, option: str) -> str:
    between = r"(?:=?[\"']?|\s[\"'])" if name.startswith(_PROMPTING) else r"[ =]?[\"']?"
    return (
        rf"{_begun(name)}{option}{between}"
        rf"{_NAMED}(?!{_NUMBERS}{_END})(?P<secret>[^\s\"'`;|&<>\\-][^\s\"'`;|&<>\\]{{0,255}})"
    )


_BESIDE = (
    r"server|host|data source|database|initial catalog|uid|user|user id|username|port|accountname"
    r"|endpoint|endpointsuffix|entitypath|sharedaccesskeyname|driver|encrypt|trusted_connection"
)
"""What else a connection's text says."""
_PASSWORD = r"(?i:password|pwd|accountkey|sharedaccesskey)="
PAIRS = ("assword=", "ASSWORD=", "Pwd=", "pwd=", "PWD=", "Key=", "key=")
PAIR_AFTER = rf";(?:\s|\\+[nrt])?{_PASSWORD}"
_PAIR_BEFORE = rf";(?:\s|\\+[nrt])?(?i:{_BESIDE})\s?="
KEYWORDS = r"(?:host|hostaddr|user|port|dbname|sslmode)="


class Form(NamedTuple):
    """What a password stands in, in time that is bounded at each place."""

    anchors: tuple[str, ...]
    """Texts of which one stands in it."""
    pattern: str
    sign: str = ""
    """A pattern that is found in each text with such a form, also as JSON writes it, and fast."""

    def signed(self) -> re.Pattern[str] | None:
        """Return the sign, if it has one."""
        return compiled(self.sign) if self.sign else None

    def may_stand_in(self, text: str) -> bool:
        """Return whether all is there without which it is not."""
        sign = self.signed()
        return any(one in text for one in self.anchors) and (sign is None or sign.search(text) is not None)


TEXTS = (
    # In the address of a server.
    Form(("://",), rf"://[^\s/?#@:\"'`<>\\]{{0,128}}:{_NAMED}(?P<secret>[^\s/?#@\"'`<>\\\[\]]{{1,512}})@"),
    # In a connection's text: its pairs stand between semicolons, or one space apart.
    Form(
        PAIRS,
        rf"(?i:\b(?:{_BESIDE})\s?=)[^\n\"'`(){{}}=]{{1,256}}(?:=[^\n\"'`(){{}}=]{{1,256}}){{0,8}}?;\s?{_PASSWORD}"
        rf"{_NAMED}(?P<secret>[^\s;\"'`<>(){{}}\\]{{1,512}})",
        PAIR_AFTER,
    ),
    Form(
        PAIRS,
        rf"\b{_PASSWORD}{_NAMED}(?P<secret>[^\s;\"'`<>(){{}}\\]{{1,512}})(?=;\s?(?i:{_BESIDE})\s?=)",
        _PAIR_BEFORE,
    ),
    Form(
        (" password=",),
        rf"{KEYWORDS}[^\s\"'`,]{{1,128}} password={_NAMED}(?P<secret>[^\s\"'`<>(){{}},]{{1,256}})",
    ),
    Form(
        ("password=",),
        rf"{_whole('password=')}{_NAMED}(?P<secret>[^\s\"'`<>(){{}},]{{1,256}})(?= {KEYWORDS})",
    ),
    # In a .netrc.
    *(
        Form(
            (begun,),
            rf"{_whole(begun)}{machine}{_SPACE}login{_SPACE}{_WORD}{_SPACE}"
            rf"(?:account{_SPACE}{_WORD}{_SPACE})?password{_SPACE}{_NAMED}(?P<secret>[^\s\"'`\\]{{1,255}})",
        )
        for begun, machine in (("machine", _SPACE + _WORD), ("default", ""))
    ),
)
"""Those that stand in any text."""
PROGRAMS = (
    *(
        Form(
            (name,),
            rf"{_begun(name)}(?:-[sSkLfi]*u|--user|-U|--proxy-user|-a|--auth)"
            rf"[ =]?[\"']?[^\s:\"'`/<>|;]{{1,128}}:(?!//){_NAMED}(?P<secret>[^\s\"'`|;<>\\]{{1,255}})",
        )
        for name in ASKING
    ),
    *(Form((name,), _taken(name, option)) for name, option in TAKING.items()),
)
"""Those of what is given to a program."""
FORMS = (*TEXTS, *PROGRAMS)

_PASSWORD_AT = re.compile(_NAMED + ".", re.DOTALL)
_IS_NUMBERS = re.compile(rf"\d+|{_NUMBERS}").fullmatch
_OPTIONS = ("-u", "--user", "-U", "--proxy-user", "-a", "--auth")
"""Options of `ASKING` that are followed by `user:password`."""
_TOLD = 512
"""Characters of the longest text whose outcome is kept."""


def without_secrets(text: str, instead: str) -> str:
    """Return the text with the passwords in it replaced, and what has the form of a known kind of key."""
    text = without_keys(text, instead)
    return _told(text, instead) if len(text) <= _TOLD else _without(text, instead)


def _without(text: str, instead: str) -> str:
    for form in FORMS:
        if form.may_stand_in(text):
            text = compiled(form.pattern).sub(lambda found: within(found, instead), text)
    return text


_told = lru_cache(1024)(_without)


def within(found: re.Match[str], instead: str) -> str:
    """Return what was found with its secret replaced."""
    start, end = found.span(SECRET)
    return found.string[found.start() : start] + instead + found.string[end : found.end()]


def given(before: Sequence[str], word: str) -> str:
    """Return what of a command line's word is a password that a program is given so; empty where none is."""
    programs = {_program(one) for one in before}
    asking = not programs.isdisjoint(ASKING)
    for name in programs & TAKING.keys():
        option = TAKING[name]
        joined = word.startswith(option)
        if joined or (before[-1] == option and not word.startswith("-")):
            password = word[len(option) :].removeprefix("=") if joined else word
            return password if _PASSWORD_AT.match(password) and not _IS_NUMBERS(password) else ""
    option, _, value = ("", "", word) if before and before[-1] in _OPTIONS else word.partition("=")
    if option and option not in _OPTIONS:
        joined = asking and word.startswith("-u")
        value = word[2:] if joined else ""
    user, _, password = value.partition(":")
    if not user or not _PASSWORD_AT.match(password) or "/" in user or "://" in value or password == user:
        return ""
    # Else a user's and a group's number or name, a place in a folder of another machine.
    return password if asking or not (password.isdigit() or password[0] in "/.~") else ""


def _program(word: str) -> str:
    return re.split(r"[/\\]", word)[-1].removesuffix(".exe")


@cache
def compiled(form: str) -> re.Pattern[str]:
    """Return the form, compiled when it is first met."""
    return re.compile(form)
