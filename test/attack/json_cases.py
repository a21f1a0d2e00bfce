"""JSON texts by class: y must be taken, n must be refused, i may be either (RFC 8259 leaves it open). Made here, rule by rule."""
import itertools

VALUES = [b"0", b"-1", b"1.5", b'"s"', b"true", b"false", b"null", b"[]", b"{}", b"[1,\"a\",null]", b'{"k":[{}]}']
SPACES = [b" ", b"\t", b"\n", b"\r", b"\r\n", b" \t\n\r "]


def numbers():
    whole, fraction, exponent = [b"0", b"-0", b"7", b"-7", b"10", b"9007199254740993"], [b"", b".0", b".5", b".25e0"], [b"", b"e1", b"E1", b"e+1", b"e-1", b"E-0", b"e00"]
    for w, f, e in itertools.product(whole, fraction, exponent):
        if not (b"e" in f and e):
            yield "y", w + f + e
    for good in (b"9223372036854775807", b"-9223372036854775808", b"0.000000000000000000000000000000000001", b"1e308", b"-1e-308"):
        yield "y", good
    for bad in (b"01", b"-01", b"00", b"+1", b"1.", b"-1.", b".1", b"-.1", b".", b"-", b"--1", b"- 1", b"1 2", b"1e", b"1e+", b"1e-", b"1E", b"1.e1", b".e1", b"1e1.5",
                b"1e1e1", b"0x1", b"0b1", b"0o7", b"1_000", b"1,000", b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"-inf", b"1f", b"1L", b"1n", b"\xef\xbc\x91",
                b"1.2.3", b"1..2", b"-foo", b"1a", b"\xd9\xa1", b"1\x00", b"&1", b"(1)", b"1-", b"1+1", b"+", b"+Infinity", b"e1", b"-e1", b"0e", b"0.e1"):
        yield "n", bad
    for odd in (b"9223372036854775808", b"-9223372036854775809", b"123456789012345678901234567890", b"1e400", b"-1e400", b"1e-400", b"1" + b"0" * 400, b"0." + b"1" * 5000,
                b"1e" + b"9" * 100, b"1e-" + b"9" * 100, b"-0.0e-0"):
        yield "i", odd


def strings():
    for c in b'"\\/bfnrt':
        yield "y", b'"a\\' + bytes([c]) + b'z"'
    for c in range(256):
        if c not in b'"\\/bfnrtu':
            yield "n", b'"a\\' + bytes([c]) + b'z"'
    for c in range(0x20):
        yield "n", b'"a' + bytes([c]) + b'z"'
    for good in (b"", b" ", b"\\u0041", b"\\u00e9", b"\\uD83D\\uDE00", b"\\ud83d\\ude00x", b"\\u2028\\u2029", b"\\u001f", b"\\uFFFE", b"\\uFFFF", b"\x7f", b"\xc3\xa9", b"\xe2\x82\xac",
                 b"\xf0\x9f\x98\x80", b"\xf4\x8f\xbf\xbf", b"\xef\xbf\xbf", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\\\\u0041", b"\xef\xbb\xbf", b"x" * 100000, b"\\u0022", b"\\u005C", b"\\\"", b"\\\\"):
        yield "y", b'"' + good + b'"'
    for bad in (b"\\u", b"\\u1", b"\\u12", b"\\u123", b"\\u12G4", b"\\u 041", b"\\u-041", b"\\u+041", b"\\U0041", b"\\u00e", b"\\", b"\\\\\\",
                b"\\ud83d", b"\\ude00", b"\\ude00\\ud83d", b"\\ud83d\\ud83d", b"\\ud83dx", b"\\ud83d\\n", b"\\ud83d\\u0041", b"x\\udfffy", b"\\uDB", b"\\ud83d\\u",
                b"\x80", b"\xbf", b"\xc3", b"\xc3(", b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xe2\x82", b"\xe2(\xa1", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80",
                b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\xff\xfe", b"a\xe9b"):
        yield "n", b'"' + bad + b'"'
    for bad in (b'"', b"'a'", b"`a`", b'"a', b'a"', b'"a\'', b"a", b'"a" "b"', b'""a', b"\xe2\x80\x9ca\xe2\x80\x9d", b'\\"a\\"', b'"a\x00"'):
        yield "n", bad
    yield "i", b'"\\u0000"'


def structures():
    for v in VALUES:
        yield "y", b"[" + v + b"]"
        yield "y", b"[" + v + b"," + v + b"]"
        yield "y", b'{"a":' + v + b',"b":' + v + b"}"
        for bad in (b"[%s,]", b"[,%s]", b"[%s", b"%s]", b"[%s}", b"{%s}", b"{%s:1}" if not v.startswith(b'"') else b"{%s}", b'{"a":%s', b'{"a":%s,}', b'{"a"%s}', b'{"a":%s:1}', b'{,"a":%s}', b'{"a"::%s}', b'["a":%s]', b"[%s]]",
                    b'{"a":%s "b":1}', b"[%s %s]", b"%s %s", b"(%s)", b"%s;", b"%s,", b",%s", b":%s", b"%s//", b"%s#", b"/**/%s", b"%s/**/", b"<%s>", b"=%s"):
            yield "n", bad.replace(b"%s", v)
    for s in SPACES:
        yield "y", s.join([b"", b"{", b'"a"', b":", b"[", b"1", b",", b"2", b"]", b"}", b""])
    for s in (b"\x0b", b"\x0c", b"\x00", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xe3\x80\x80", b"\xef\xbb\xbf", b"\x1a", b"\\n"):
        yield "n", s.join([b"", b"[", b"1", b"]"])
        yield "n", b"[1" + s + b"]"
    for good in (b'{"a":1,"a":2}', b'{"":0}', b'{"\\u0061":1,"a":2}', b'{"a":{"a":{"a":1}}}', b"[[[[[[]]]]]]", b'{"\xc3\xa9":1}', b'{"%s":1}' % (b"k" * 5000)):
        yield "y", good
    for bad in (b"", b" ", b"\n", b"[", b"{", b"]", b"}", b"[]]", b"{}}", b"[[]", b"{]", b"[}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,"b"', b"{1:1}", b"{a:1}", b"{'a':1}", b"{null:1}", b"{[]:1}",
                b"tru", b"truee", b"True", b"TRUE", b"fals", b"nul", b"nulll", b"NULL", b"None", b"undefined", b"t", b"[tru]", b"[nul", b"*", b"$", b"@", b"%", b"<null>", b"\xff", b"\xfe\xff\x00[\x00]", b"\xff\xfe[\x00]\x00",
                b"\xef\xbb\xbf{}", b"{}\x00", b"\x00{}", b"{\x00}", b'{"a\x00b":1}', b"[1\n,1", b"[\"a\",\n4\n,1,", b"{\"a\":/*x*/1}", b"[1]\n[2]", b"{}{}", b"[]x", b"\"a\":1"):
        yield "n", bad
    for depth in (2, 32, 60):
        yield "y", b"[" * depth + b"]" * depth
        yield "y", b'{"a":' * depth + b"1" + b"}" * depth
    for depth in (66, 100, 500, 2000, 100000):
        yield "n", b"[" * depth + b"]" * depth
        yield "n", b'{"a":' * depth + b"1" + b"}" * depth
        yield "n", b"[" * depth
        yield "n", b'{"a":' * depth
        yield "n", b'[{"":' * (depth // 2)


def all_cases():
    for name, make in (("number", numbers), ("string", strings), ("structure", structures)):
        for kind, text in make():
            yield name, kind, text
