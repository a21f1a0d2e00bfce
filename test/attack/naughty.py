"""Strings that were never meant for the field they are put into, and what of them must not reach a terminal."""
import re

# What would act on a terminal, or turn the reading order of a line.
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

STRINGS = {
    "escape colour": "\x1b[31mred\x1b[0m", "escape clear": "\x1b[2J\x1b[H", "escape title": "\x1b]0;owned\x07", "escape link": "\x1b]8;;http://evil/\x1b\\click\x1b]8;;\x1b\\",
    "escape clipboard": "\x1b]52;c;cm0gLXJm\x07", "escape dcs": "\x1bP$qm\x1b\\", "escape apc": "\x1b_Gf=100;AAAA\x1b\\", "escape report": "\x1b[6n\x1b[c\x1b[5n", "escape charset": "\x1b(0lqqk",
    "escape alternate screen": "\x1b[?1049h\x1b[?25l", "escape insert": "\x1b[20h\x1b[4h", "escape lone": "a\x1b", "c1 csi": "\x9b31mred", "c1 osc": "\x9d0;owned\x9c", "c1 all": "".join(map(chr, range(0x80, 0xa0))),
    "carriage return": "visible\rhidden", "backspace": "a\b\b\bb", "bell": "\a" * 20, "vertical": "a\x0bb\x0cc", "delete": "a\x7fb", "shift out": "\x0elqk\x0f", "newlines": "one\ntwo\r\nthree\n", "tabs": "a\tb\tc",
    "controls": "".join(map(chr, range(1, 0x20))), "bidi override": "\u202etxt.exe\u202c", "bidi isolate": "a\u2066b\u2069c\u2067d", "bidi marks": "\u200ea\u200fb\u061cc", "arabic": "\u0645\u0631\u062d\u0628\u0627 abc",
    "line separators": "a\u2028b\u2029c", "zero width": "a\u200bb\u200cc\u200dd\ufeffe", "combining": "Z\u0351\u036b\u0343\u036a\u0302" * 30, "emoji family": "\U0001f468\u200d\U0001f469\u200d\U0001f467", "flags": "\U0001f1e9\U0001f1ea",
    "wide": "\uff21\uff22\u4f60\u597d", "astral": "\U0001d54f\U00020000\U0010ffff", "noncharacter": "\ufffe\uffff\U0001fffe", "private": "\ue000\uf8ff", "tag characters": "\U000e0041\U000e0042", "soft hyphen": "a\u00adb",
    "nothing": "", "space": " ", "spaces": "   a   ", "no-break space": "\u00a0", "dot": ".", "dots": "..", "dot path": "../../../../etc/passwd", "encoded path": "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "absolute path": "/etc/shadow",
    "backslashes": "..\\..\\windows\\system32", "home": "~root/.ssh/id_rsa", "null device": "/dev/null", "option": "--help", "option with value": "--upload-pack=touch /tmp/owned", "dash": "-", "long name": "n" * 300,
    "percent n": "%n%n%n%n%s%s%s%x", "percent star": "%*.*s%99999999d", "braces": "{0}{{}}${HOME}$(id)`id`", "shell": "; rm -rf / #", "shell newline": "a\nrm -rf /\n", "quotes": "'\"`\\", "ampersand": "a && b || c > d < e | f &",
    "sql": "'; DROP TABLE tasks; --", "sql or": "\" OR \"\"=\"", "sql like": "%_%", "fts": "\"a\" AND NEAR(b c) OR * NOT ^d", "html": "<script>alert(1)</script>", "html image": "<img src=x onerror=alert(1)>", "html entity": "&lt;b&gt;&#0;&amp;",
    "svg": "<svg/onload=alert(1)>", "javascript": "javascript:alert(1)", "template": "{{7*7}}<%= 7*7 %>", "xml": "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;", "yaml": "a: &x [*x]\n- !!python/object:os.system", "json": "\",\"admin\":true,\"x\":\"",
    "header split": "a\r\nSet-Cookie: x=y\r\n\r\n<html>", "log forge": "ok\n2026-01-01T00:00:00.000Z error program=signalbox forged", "sse forge": "x\n\nevent: task.done\ndata: {}\n\n", "number": "1e309", "negative": "-1", "zero": "0", "hex": "0xffffffff",
    "true": "true", "null": "null", "undefined": "undefined", "nan": "NaN", "reserved name": "CON", "git ref": "refs/heads/../../x", "git expression": "HEAD@{1}^{/x}", "id like": "01jzzzzzzzzzzzzzzzzzzzzzzz", "equals": "a=b=c",
    "long": "\u00e9" * 20000, "long words": "word " * 4000, "long line of escapes": "\x1b[31m" * 3000,
}


def acts(text):
    """What in a text would act on a terminal; a line's end and a tab do not count."""
    return sorted({hex(ord(c)) for c in ACTS.findall(text)})


def acts_on_terminal(output):
    """The same of what a terminal was sent, where colours, cursor and line clearing of our own are no surprise."""
    text = output.decode("utf-8", errors="surrogateescape") if isinstance(output, bytes) else output
    text = re.sub("\x1b\\[[0-9;]*m|\x1b\\[\\?25[lh]|\x1b\\[[0-9]*[KAG]", "", text.replace("\r\n", "\n")).replace("\r", "")
    return acts(text)
