"""Archives are hostile: each is refused with the entry's name and the rule, none gets out, none crashes the unpacker; and honest ones give the
tree that the directory would have."""
import gzip
import os
import pathlib
import pwd
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from archive_site import (BUILD, FORMATS, GOOD, compress, directory, entry, hard, header, link, pack, padded, pax, tar, unpack, zeros_compressed,  # noqa: E402
                          zip_entry, zip_of, zip_raw)

L, F = stat.S_IFLNK | 0o777, None


@pytest.fixture(scope="module")
def place():
    """A directory that whoever unpacks can reach, with something in it that must stay as it is."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="sbarc", dir="/var/tmp"))
    top.chmod(0o755)
    (top / "canary").write_text("alive")
    yield top
    shutil.rmtree(top)


@pytest.fixture
def cache(place):
    at = place / "work" / "cache"
    at.parent.mkdir()
    at.parent.chmod(0o777)
    yield at
    shutil.rmtree(at.parent, ignore_errors=True)


def files_of(place):
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if "work" not in p.relative_to(place).parts[:1])


# --- names: what they are, the words that name them, the rule

NAMES = [
    ("../evil", r"leads out"), ("../../../../tmp/evil", r"leads out"), ("a/../../evil", r"leads out"), ("a/..", r"leads out"), ("./../evil", r"leads out"),
    ("a/b/../../../evil", r"leads out"), ("a/../b", r"leads out"), ("..\\evil", r"leads out"), ("a\\..\\..\\evil", r"leads out"), ("a/..\\evil", r"leads out"),
    ("/etc/passwd", r"absolute"), ("//etc/passwd", r"absolute"), ("///evil", r"absolute"), ("\\windows\\evil", r"absolute"), ("\\\\host\\share\\evil", r"absolute"),
    ("C:\\evil", r"drive"), ("C:/evil", r"drive"), ("z:evil", r"drive"),
    ("a\nb", r"control"), ("a\x1b[31mred", r"control"), ("a\x7fb", r"control"), ("a\tb", r"control"), ("a\rb", r"control"), ("\x01", r"control"),
    (b"a\xff", r"UTF-8"), (b"a\xc0\xafb", r"UTF-8"), (b"\xed\xa0\x80", r"UTF-8"), (b"caf\xe9.txt", r"UTF-8"), (b"\xf8\x88\x80\x80\x80", r"UTF-8"), (b"a\xe2\x82", r"UTF-8"),
    ("d/" * 129 + "f", r"directories deep"), ("x" * 256, r"part of 256 bytes"), ("d/" + "y" * 300, r"part of 300"), ("/".join(["p" * 200] * 21), r"name of 42\d\d bytes"),
    (".GIT/config", r"'\.git'"), (".Git/hooks/post-checkout", r"'\.git'"), ("a/b/.gIT/x", r"'\.git'"), ("git~1/config", r"'\.git'"), ("a/GIT~1", r"'\.git'"),
    (".git /config", r"'\.git'"), (".git./config", r"'\.git'"), (".git. . /config", r"'\.git'"), (".git::$INDEX_ALLOCATION/config", r"'\.git'"), (".git:x", r"'\.git'"),
    (".g\u200cit/config", r"'\.git'"), ("\u200e.git/config", r"'\.git'"), (".git\u200d/config", r"'\.git'"), (".\ufeffgit/config", r"'\.git'"), (".gi\u206at/x", r"'\.git'"),
    ("a\\.GIT\\config", r"'\.git'"), (".G\u202eit/config", r"'\.git'"),
]

LINKS = [
    ("up", tar(GOOD, link("evil", "../x")), "evil", "leads out"), ("far up", tar(GOOD, link("evil", "../../../../etc")), "evil", "leads out"),
    ("absolute", tar(GOOD, link("evil", "/etc/passwd")), "evil", "leads out: to an absolute"), ("root", tar(GOOD, link("evil", "/")), "evil", "leads out"),
    ("through a directory", tar(GOOD, link("evil", "d/../../x")), "evil", "leads out"), ("from below", tar(GOOD, link("d/evil", "../../x")), "d/evil", "leads out"),
    ("dotted", tar(GOOD, link("evil", "./.././x")), "evil", "leads out"), ("backslashes", tar(GOOD, link("evil", "..\\..\\x")), "evil", "leads out"),
    ("drive", tar(GOOD, link("evil", "C:\\x")), "evil", "leads out"), ("network", tar(GOOD, link("evil", "\\\\host\\x")), "evil", "leads out"),
    ("through a link", tar(GOOD, link("d/top", ".."), link("evil", "d/top/../x")), "evil", "leads out"),
    ("through a later link", tar(link("evil", "d/top/../x"), link("d/top", ".."), GOOD), "evil", "leads out"),
    ("through three", tar(GOOD, link("a/1", ".."), link("b/2", "../a/1/a"), link("evil", "b/2/1/../x")), "evil", "leads out"),
    ("through a chain", tar(GOOD, link("l0", "."), *[link(f"l{i}", f"l{i - 1}") for i in range(1, 30)], link("evil", "l29/../x")), "evil", "leads out"),
    ("out of the top", tar(entry("p/good.txt"), link("p/evil", "../q")), "p/evil|evil", "leads out"),
    ("empty", tar(GOOD, link("evil", "")), "evil", "link to nothing|damaged"), ("long", tar(GOOD, link("evil", "d/" * 2100)), "evil", "at most 4095"),
    ("control", tar(GOOD, link("evil", "a\nb")), "evil", "control character in its target"), ("not text", tar(GOOD, link("evil", b"a\xff")), "evil", "not UTF-8"),
    ("as .gitmodules", tar(GOOD, link(".gitmodules", "good.txt")), ".gitmodules", "git reads"), ("as .GITMODULES", tar(GOOD, link(".GitModules", "good.txt")), ".GitModules", "git reads"),
    ("zip up", zip_of(("good.txt", b"x", F), ("evil", b"../x", L)), "evil", "leads out"), ("zip absolute", zip_of(("good.txt", b"x", F), ("evil", b"/etc/passwd", L)), "evil", "leads out"),
    ("zip from below", zip_of(("good.txt", b"x", F), ("d/evil", b"../../x", L)), "d/evil", "leads out"), ("zip control", zip_of(("good.txt", b"x", F), ("evil", b"a\x01b", L)), "evil", "control"),
    ("file below a link", tar(GOOD, link("d", "."), entry("d/evil")), "d/evil", "lies below 'd', which is a link"),
    ("file below a link out", tar(GOOD, link("d", "/tmp"), entry("d/evil")), "d", "leads out"),
    ("link after its file", tar(GOOD, entry("d/evil"), link("d", ".")), "d|d/evil", "lies below 'd'|something else"),
    ("zip below a link", zip_of(("d", b".", L), ("d/evil", b"x", F)), "d/evil", "lies below 'd'"),
    ("directory below a link", tar(GOOD, link("d", "."), directory("d/e/")), "d/e", "lies below"), ("link below a link", tar(GOOD, link("d", "."), link("d/evil", "x")), "d/evil", "lies below"),
    ("hard up", tar(GOOD, hard("evil", "../x")), "evil", "hard link that leads out"), ("hard absolute", tar(GOOD, hard("evil", "/etc/shadow")), "evil", "hard link"),
    ("hard to nothing", tar(GOOD, hard("evil", "missing")), "evil", "no file that came before"), ("hard to a later one", tar(GOOD, hard("evil", "zz"), entry("zz")), "evil", "no file that came before"),
    ("hard to itself", tar(GOOD, hard("evil", "evil")), "evil", "no file that came before"), ("hard to a directory", tar(GOOD, directory("d/"), hard("evil", "d")), "evil", "no file"),
    ("hard to .git", tar(GOOD, entry(".git/config"), hard("evil", ".git/config")), "evil", "not taken"), ("hard to .GIT", tar(GOOD, hard("evil", ".GIT/config")), "evil", "hard link"),
    ("hard to a link", tar(entry("g/good"), link("g/d/l", "../good"), hard("evil", "g/d/l")), "evil", "leads out"),
    ("hard through a link", tar(GOOD, link("d", "."), hard("evil", "d/good.txt")), "evil", "no file"), ("hard dot-dot inside", tar(GOOD, hard("evil", "a/../good.txt")), "evil", "hard link"),
]

TYPES = [
    ("character device", tar(GOOD, header(b"evil", 0, b"3", devmajor=1, devminor=3)), "evil", "character device"),
    ("block device", tar(GOOD, header(b"evil", 0, b"4", devmajor=8)), "evil", "block device"), ("pipe", tar(GOOD, header(b"evil", 0, b"6")), "evil", "named pipe"),
    ("device called as a directory", tar(GOOD, header(b"evil/", 0, b"3")), "evil/", "character device"),
    ("zip character device", zip_of(("g", b"x", F), ("evil", b"", stat.S_IFCHR | 0o666)), "evil", "character device"), ("zip block device", zip_of(("g", b"x", F), ("evil", b"", stat.S_IFBLK | 0o666)), "evil", "block device"),
    ("zip pipe", zip_of(("g", b"x", F), ("evil", b"", stat.S_IFIFO | 0o666)), "evil", "named pipe"), ("zip socket", zip_of(("g", b"x", F), ("evil", b"", stat.S_IFSOCK | 0o666)), "evil", "socket"),
    ("pax device name", tar(GOOD, pax([(b"path", b"../evil")]) + header(b"harmless", 1) + padded(b"x")), "../evil", "leads out"),
    ("pax link", tar(GOOD, pax([(b"linkpath", b"/etc/passwd")]) + header(b"evil", 0, b"2", link=b"good.txt")), "evil", "leads out"),
    ("the top as a file", tar(GOOD, entry(".")), ".", "top directory"), ("the top as a link", tar(GOOD, link("./", "x")), "./", "top directory|empty"),
]

NULS = [
    ("zip NUL in a name", zip_raw(zip_entry("good.txt", b"x"), zip_entry(b"evil\0.txt", b"x")), "evil", "NUL"), ("zip NUL after dots", zip_raw(zip_entry(b"evil\0/../../x", b"x")), "evil", "NUL|leads out"),
    ("zip NUL behind a prefix", b"#!/bin/sh\n" + zip_raw(zip_entry(b"evil\0", b"x")), "evil", "NUL"),
]

TWICE = [
    ("the same", tar(entry("a"), entry("b"), entry("a")), "a", "twice"), ("dotted", tar(entry("a"), entry("b"), entry("./a")), "a", "twice"), ("slashes", tar(entry("d/a"), entry("b"), entry("d//a")), "d/a", "twice"),
    ("file and directory", tar(GOOD, entry("a"), directory("a/")), "a", "directory and as something else"), ("directory and file", tar(GOOD, directory("a/"), entry("a")), "a", "directory and as something else"),
    ("below a file", tar(GOOD, entry("a"), entry("a/b")), "a/b", "lies below 'a', which is a file"), ("file above", tar(GOOD, entry("a/b/c"), entry("a")), "a/b/c", "lies below 'a'"),
    ("link and file", tar(GOOD, link("a", "good.txt"), entry("a")), "a", "twice"), ("file and hard link", tar(GOOD, entry("a"), hard("a", "good.txt")), "a", "twice"),
    ("zip the same", zip_of(("a", b"1", F), ("b", b"2", F), ("a", b"3", F)), "a", "twice"), ("zip below a file", zip_of(("a", b"1", F), ("a/b", b"2", F)), "a/b", "lies below"),
    ("zip file and directory", zip_of(("a", b"1", F), ("a/", b"", stat.S_IFDIR | 0o755)), "a", "directory and as something else"),
    ("two spellings of one name", zip_of(("cafe\u0301", b"1", F), ("caf\u00e9", b"2", F)), "caf", "twice"),
]


def overlapping_zip(n):
    """Many names of one piece of data: the zip that unpacks to more than it holds."""
    data = b"\0" * (1 << 20)
    packed = zipfile_deflate(data)
    local, _ = zip_entry("f0", packed, size=len(data), method=8, crc=crc(data))
    entries = [(local if i == 0 else b"", zip_entry(f"f{i}", packed, size=len(data), method=8, crc=crc(data))[1]) for i in range(n)]
    return zip_raw(*entries, offsets=[0] * n)


def zipfile_deflate(data):
    import zlib
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    return c.compress(data) + c.flush()


def crc(data):
    import zlib
    return zlib.crc32(data)


def sparse_tar():
    """GNU's old sparse header: 8 GiB of nothing."""
    block = bytearray(header(b"evil", 512, b"S", magic=b"ustar  \0"))
    block[386:410] = b"00000000000\0" + b"00000001000\0"
    block[483:495] = b"\x80\0\0\0\0\0\0\2\0\0\0\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x" * 512 + tar()


BOMBS = [
    ("gz of zeros", lambda: zeros_many("gz"), r"f\d+", "times its size|more than"),
    ("xz of zeros", lambda: zeros_many("xz"), r"f\d+", "times its size|more than"), ("zst of zeros", lambda: zeros_many("zst"), r"f\d+", "times its size|more than"),
    ("one large file", lambda: zeros_compressed(header(b"evil", 70 << 20), 70 << 20, "gz"), "evil", r"limits\.archive_file"),
    ("zip of zeros", lambda: zip_of(*[(f"f{i}", b"\0" * (10 << 20), F) for i in range(9)]), r"f\d", "times its size"),
    ("sparse", sparse_tar, "evil", r"limits\.archive_file|limits\.archive_bytes"),
    ("a size beyond all", lambda: tar(GOOD, header(b"evil", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7)), "evil|good.txt", "limits|damaged"),
    ("a negative size", lambda: tar(GOOD, header(b"evil", b"\xff" * 12)), "evil|good.txt", "damaged|how long|limits"),
    ("zip beyond 4 GiB", lambda: zip_raw(zip_entry("evil", b"x", size=0xfffffff0)), "evil", "limits|damaged"),
    ("too many files", lambda: tar(*[entry(f"f{i}", b"") for i in range(2100)]), r"f20\d\d", r"limits\.archive_files"),
    ("too many directories", lambda: tar(*[directory(f"d{i}/") for i in range(8100)]), r"d8\d\d\d", r"limits\.archive_files"),
    ("too much left out", lambda: tar(*[entry(f".git/{i}", b"") for i in range(8100)]), r"\.git/8\d\d\d", r"limits\.archive_files"),
    ("large and left out", lambda: zeros_compressed(header(b".git/pack", 70 << 20), 70 << 20, "gz"), r"\.git/pack", "limits"),
    ("hard links of one large file", lambda: tar(entry("big", os.urandom(9 << 20)), *[hard(f"h{i}", "big") for i in range(20)]), r"h\d+", r"limits\.archive_bytes"),
    ("links that take long to follow", lambda: compress(tar(*[link(f"l{i}", "a/../" * 700 + f"l{(i + 1) % 1500}") for i in range(1500)]), "gz"), r"l\d+", "too long to follow"),
    ("compressed twice", lambda: compress(compress(tar(GOOD), "gz"), "gz"), "", "more than once"), ("compressed in two ways", lambda: compress(compress(tar(GOOD), "xz"), "gz"), "", "more than once"),
]


def zeros_many(kind):
    parts = b"".join(entry(f"f{i}", b"\0" * (4 << 20)) for i in range(24))
    return compress(tar(parts), kind)


PLAIN = tar(GOOD, entry("a/b.c", b"int x;\n" * 500), entry("z.bin", random.Random(7).randbytes(40000)))
ZIPPED = zip_of(("good.txt", b"good\n", F), ("a/b.c", b"int x;\n" * 500, F), ("z.bin", random.Random(7).randbytes(40000), F))


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0xff]) + data[at + 1:]


def xz_with_dictionary():
    """A filter that wants 4 GiB of dictionary."""
    import lzma
    return lzma.compress(PLAIN, format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])


DAMAGED = (
    [(f"tar cut at {n}", PLAIN[:n]) for n in (1, 100, 511, 512, 513, 600, 1024, 1536, 2000, len(PLAIN) - 41000, len(PLAIN) - 1500, len(PLAIN) - 1024)]
    + [(f"{k} cut by {n}", compress(PLAIN, k)[:-n]) for k in ("gz", "xz", "zst") for n in (1, 9, 500, 20000)]
    + [(f"zip cut by {n}", ZIPPED[:-n]) for n in (1, 22, 60, 150, 5000, 40000)]
    + [("tar: checksum", tar(header(b"evil", 1, checksum=b"123456\0 ") + padded(b"x"))), ("tar: size in letters", tar(GOOD, header(b"evil", b"zzzzzzzzzzz\0") + padded(b"x")))]
    + [("tar: second header is noise", GOOD + os.urandom(512) + tar()), ("tar: pax header cut", header(b"pax", 2000, b"x") + padded(b"20 path=a\n"))]
    + [("gz: flipped", flip(compress(PLAIN, "gz"), 3000)), ("gz: checksum", flip(compress(PLAIN, "gz"), -6)), ("xz: flipped", flip(compress(PLAIN, "xz"), 3000)), ("zst: flipped", flip(compress(PLAIN, "zst"), 3000))]
    + [("zip: data flipped", flip(ZIPPED, 3000)), ("zip: crc", zip_raw(zip_entry("evil", b"x", crc=1))), ("zip: encrypted", zip_raw(zip_entry("evil", b"x" * 20, flags=1)))]
    + [("zip: unknown method", zip_raw(zip_entry("evil", b"x" * 20, method=99))), ("zip: size lies", zip_raw(zip_entry("evil", b"x" * 20, size=500))), ("zip: longer than told", zip_raw(zip_entry("evil", zipfile_deflate(b"y" * 900), size=10, method=8)))]
    + [("zip: offset beyond", zip_raw(zip_entry("evil", b"x"), offsets=[99999]))]
    + [("empty", b""), ("noise", random.Random(1).randbytes(5000)), ("text", b"#!/bin/sh\necho hello\n" * 50), ("zeros", b"\0" * 10240), ("only the end of a zip", b"PK\5\6" + b"\0" * 18)]
    + [("7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 100), ("rar", b"Rar!\x1a\x07\x00" + b"\0" * 100), ("cpio", b"070701" + b"0" * 104), ("ar", b"!<arch>\n" + b"\0" * 60), ("bz2", compress(PLAIN, "bz2"))]
    + [("no tar in it", gzip.compress(b"hello\n" * 200)), ("iso", b"\0" * 32768 + b"\1CD001\1" + b"\0" * 2041), ("lha", b"\x20\x99-lh5-" + b"\0" * 60), ("mtree", b"#mtree\n./a type=file\n"), ("cab", b"MSCF" + b"\0" * 60)]
    + [("directories only", tar(directory("a/"), directory("a/b/"))), ("only .git", tar(entry(".git/config"), entry(".git/HEAD")))]
)


def check_refused(place, cache, data, name, rule):
    before = files_of(place)
    got = unpack(data, cache)
    assert got.result is None and got.error, got.result
    assert got.status == 1 and "ended with status" not in got.error["text"], got.error
    assert got.error["code"] in ("invalid", "too_large") and got.error["hint"] or "more than once" in got.error["text"] or "no files" in got.error["text"], got.error
    import re
    words = got.error["text"]
    if name:
        assert re.search(rf"entry '[^']*({name})", words), words
    assert re.search(rule, words), words
    assert not re.search(r"[\x00-\x1f\x7f]", words), "what came from the archive is shown as text"
    assert files_of(place) == before and (place / "canary").read_text() == "alive"
    return got


def shown(name):
    """How a name stands in an error: what cannot be printed is escaped."""
    import re
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    plain = re.match(r"[ -~]*", text).group()[:100]
    return re.escape(plain.split("\\")[0])


@pytest.mark.parametrize("name,rule", NAMES, ids=[repr(n)[:40] for n, _ in NAMES])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_hostile_name_is_refused_with_the_name(place, cache, kind, name, rule):
    raw = name.encode() if isinstance(name, str) else name
    data = tar(GOOD, entry(raw)) if kind == "tar" else zip_raw(zip_entry("good.txt", b"x"), zip_entry(raw, b"evil", flags=0x800 if isinstance(name, str) else 0))
    check_refused(place, cache, data, shown(name), rule)


@pytest.mark.parametrize("data,name,rule", [c[1:] for c in LINKS + TYPES + NULS + TWICE], ids=[c[0] for c in LINKS + TYPES + NULS + TWICE])
def test_hostile_links_types_and_doubles_are_refused_with_the_name(place, cache, data, name, rule):
    check_refused(place, cache, data, f"({name})", rule)


@pytest.mark.parametrize("make,name,rule", [c[1:] for c in BOMBS], ids=[c[0] for c in BOMBS])
def test_a_bomb_is_refused_at_the_limit(place, cache, make, name, rule):
    got = check_refused(place, cache, make(), name, rule)
    used = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    assert used < 110 << 20, "what was unpacked before the limit stays within it"
    assert got.error["code"] == "too_large" or "damaged" in got.error["text"] or "more than once" in got.error["text"] or "how long" in got.error["text"]


@pytest.mark.parametrize("data", [c[1] for c in DAMAGED], ids=[c[0] for c in DAMAGED])
def test_a_damaged_archive_is_refused_and_says_so(place, cache, data):
    check_refused(place, cache, data, "", r"damaged|cut short|no archive|longer than|encrypted|no files|limits|how long|more than once|no valid text")


def test_a_zip_whose_names_share_their_data_gives_what_it_holds_once(place, cache):
    got = unpack(overlapping_zip(90), cache)
    assert got.error or got.result["bytes"] <= 1 << 20


def test_gzip_in_members_and_with_padding_is_whole(place, cache):
    data = tar(GOOD, entry("b", os.urandom(3000)))
    once = unpack(compress(data, "gz"), cache)
    assert unpack(compress(data[:700], "gz") + compress(data[700:], "gz"), cache).tree == once.tree
    assert unpack(compress(data, "gz") + b"\0" * 512, cache).tree == once.tree
    assert unpack(compress(data + b"\0" * 9000, "gz")[:-4], cache).error


def test_many_mutations_crash_nothing(place, cache):
    rng = random.Random(int(os.environ.get("SEED", "4711")))
    sources = [PLAIN, ZIPPED, compress(PLAIN, "gz"), compress(PLAIN, "xz"), compress(PLAIN, "zst"), LINKS[12][1], zip_of(("l", b"a", L), ("a", b"x", F))]
    before = files_of(place)
    for i in range(120):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.choice((1, 2, 8, 64))):
            at = rng.randrange(len(data))
            data[at] = rng.choice((rng.randrange(256), 0, 0xff, 0x2f, data[at] ^ (1 << rng.randrange(8))))
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)):]
        got = unpack(bytes(data), cache)
        assert got.result or got.error["code"] in ("invalid", "too_large"), (i, got.error)
        assert not got.error or "ended with status" not in got.error["text"], (i, got.error)
    assert files_of(place) == before


# --- the walls

def test_the_unpacker_has_no_network_no_rights_and_nothing_of_ours(place, cache):
    """Looked at while it works: a large archive that takes its time."""
    archive = place / "work" / "slow.tar.xz"
    noise = random.Random(3).randbytes(1 << 20)
    archive.write_bytes(compress(tar(*[entry(f"f{i}", noise[i:] + noise[:i]) for i in range(40)]), "xz"))
    fd = os.open(archive, os.O_RDONLY)
    os.environ["SECRET_OF_OURS"] = "do-not-show"
    seen = {}
    try:
        import json
        import threading
        out = {}
        job = {"kind": "archive", "fd": fd, "limits": {"files": 100, "bytes": 1 << 30, "file_bytes": 1 << 30, "ratio": 100}, "cache": str(cache),
               "uid": os.getuid() or 64913, "gid": os.getgid() or 64913}
        child = subprocess.Popen([BUILD / "signalbox", "fetch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd], env={"PATH": os.environ["PATH"]})
        worker = threading.Thread(target=lambda: out.update(text=child.communicate(json.dumps(job).encode())[0]))
        worker.start()
        while worker.is_alive() and "unpack" not in seen:
            for pid in descendants_of(child.pid):
                look(pid, seen)
        parent_net = net_of(child.pid)
        worker.join()
    finally:
        del os.environ["SECRET_OF_OURS"]
        os.close(fd)
    assert b'"result"' in out["text"], out
    if b"__asan_init" in (BUILD / "signalbox-unpack").read_bytes():
        pytest.skip("a build with sanitizers has no filter")
    facts = seen["unpack"]
    ours = os.readlink("/proc/self/ns/net")
    assert facts["Seccomp"] == "2" and facts["NoNewPrivs"] == "1" and int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0, facts
    assert facts["uid"] != "0" or os.getuid() != 0, facts
    assert facts["environ"] in (b"", None) and facts["net"] not in (ours, parent_net) and parent_net != ours, (facts, parent_net, ours)


def descendants_of(pid):
    found, todo = [], [pid]
    while todo:
        try:
            kids = [int(k) for t in os.listdir(f"/proc/{todo[-1]}/task") for k in open(f"/proc/{todo[-1]}/task/{t}/children").read().split()]
        except OSError:
            kids = []
        todo.pop()
        found += kids
        todo += kids
    return found


def net_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def look(pid, seen):
    try:
        if os.path.basename(open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[0]) != b"signalbox-unpack":
            return
        facts = {k: v.split()[0] for k, v in (line.split(":", 1) for line in open(f"/proc/{pid}/status").read().splitlines()) if v.split()}
        if facts.get("Seccomp") != "2":
            return  # it has not closed its walls yet
        facts["uid"] = facts["Uid"]
        facts["net"] = os.readlink(f"/proc/{pid}/ns/net")
        try:
            facts["environ"] = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            facts["environ"] = None
        seen["unpack"] = facts
    except (OSError, ValueError):
        pass


def test_without_walls_nothing_is_read(place, cache):
    """Started by hand, with no archive, it says what it is and does nothing."""
    done = subprocess.run([BUILD / "signalbox-unpack"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 1 and done.stdout == b""


# --- honest archives

def make_project(at, extra=""):
    script = """
        mkdir -p src/deep/er bin empty 'with space'
        printf 'hello\\n' > README; printf 'HELLO\\n' > readme
        printf '#!/bin/sh\\necho hi\\n' > bin/run; chmod 755 bin/run; printf 'x' > src/deep/er/no-newline; : > src/nothing
        printf 'a\\r\\nb\\r\\n' > src/dos.txt; printf '*.txt text=auto\\n' > .gitattributes; head -c 70000 /dev/urandom > src/blob.bin
        ln -s src/deep link; ln -s ../README src/up; ln -s missing dangling; ln README 'with space/hard'; printf 'ü\\n' > 'src/grüße.md'; printf 'q' > 'with space/quo"te\\\\back'
        printf 'build/\\n*.log\\n' > .gitignore
        """ + extra
    at.mkdir(parents=True)
    subprocess.run(["bash", "-euc", script], cwd=at, check=True)


def git(where, *args):
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
           "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    done = subprocess.run(["git", "-c", "safe.directory=*", *args], cwd=where, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("around", [False, True], ids=["from inside", "one directory around"])
def test_the_files_of_a_repository_give_its_tree(place, cache, kind, around):
    project = place / "work" / "project"
    make_project(project)
    git(project, "init", "-q")
    git(project, "add", "-A")
    tree = git(project, "write-tree")
    subprocess.run(["bash", "-euc", "mkdir build; echo o > build/o; echo l > a.log"], cwd=project, check=True)  # ignored: no part of the source
    got = unpack(pack(project, kind, "project" if around else ""), cache)
    assert got.tree == tree, got.result
    assert got.result["top"] == ("project" if around else None)
    assert any("were left out" in w for w in got.result["warnings"]), "that .git is not taken is told"


PACKERS = {
    "zip through a pipe": "rm link dangling src/up; zip -qr - . | cat > ../out", "zip stored": "zip -0qry ../out.zip . && mv ../out.zip ../out", "zip by names": "find . -type f -o -type l | zip -qy ../out.zip -@ && mv ../out.zip ../out",
    "ustar": "tar --format=ustar -cf ../out .", "gnu": "tar --format=gnu -cf ../out .", "pax": "tar --format=posix -cf ../out .", "oldgnu": "tar --format=oldgnu -cf ../out .",
    "pax with names and times": "tar --format=posix --xattrs --acls --numeric-owner -cf ../out .", "sparse": "truncate -s 3M src/holes; echo x >> src/holes; tar -S -cf ../out .",
    "sparse pax": "truncate -s 3M src/holes; echo x >> src/holes; tar --format=posix -S -cf ../out .", "tar appended": "tar -cf ../out README; tar -rf ../out --exclude=./README .",
    "gz in blocks": "tar -b 128 -czf ../out .", "long names": "d=$(printf 'n%.0s' $(seq 150)); mkdir -p $d/$d; echo x > $d/$d/$d; tar -cf ../out .", "dereferenced owners": "tar --owner=nobody:65534 --group=x:1 -cf ../out .",
    "python tar": "python3 -c \"import tarfile; t = tarfile.open('../out', 'w:gz'); t.add('.'); t.close()\"",
    "python zip": "python3 -c \"import zipfile, os; z = zipfile.ZipFile('../out', 'w'); [z.write(os.path.join(d, f)) for d, _, fs in os.walk('.') for f in fs if '.git' not in d]; z.close()\"",
}


@pytest.mark.parametrize("how", PACKERS, ids=list(PACKERS))
def test_whoever_packed_it_the_tree_is_the_directorys(place, cache, how):
    project = place / "work" / "project"
    make_project(project, "rm link dangling src/up\n" if "python zip" in how else "")
    env = {**os.environ, "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-euc", PACKERS[how]], cwd=project, check=True, env=env)
    git(project, "init", "-q")
    git(project, "add", "-A")
    assert unpack(place / "work" / "out", cache).tree == git(project, "write-tree")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_git_archive_makes_gives_the_tree_it_was_made_of(place, cache, kind):
    project = place / "work" / "project"
    make_project(project, "mkdir build; echo kept > build/kept; rm 'with space/hard' .gitattributes\n")
    git(project, "init", "-q")
    git(project, "add", "-A", "-f")  # also what .gitignore names: it was committed, so it is meant
    git(project, "commit", "-qm", "1")
    git(project, "archive", "--format", kind, "--prefix", "project-main/", "-o", str(place / "work" / f"a.{kind}"), "HEAD")
    got = unpack(place / "work" / f"a.{kind}", cache)
    assert got.tree == git(project, "rev-parse", "HEAD^{tree}"), got.result
    assert got.result["top"] == "project-main"


def test_a_single_directory_stays_when_that_is_asked(place, cache):
    data = tar(entry("src/a.c"), entry("src/b/c.c"))
    taken, kept = unpack(data, cache), unpack(data, cache, keep_top=True)
    assert taken.result["top"] == "src" and kept.result["top"] is None and taken.tree != kept.tree
    both = tar(entry("src/a.c"), entry("top.txt"))
    assert unpack(both, cache).result["top"] is None


def test_executable_bits_come_from_unix_and_nothing_comes_from_dos(place, cache):
    unix = unpack(zip_of(("run", b"#!/bin/sh\n", stat.S_IFREG | 0o755), ("text", b"x", stat.S_IFREG | 0o644)), cache)
    dos = unpack(zip_raw(zip_entry("run", b"#!/bin/sh\n", external=0x20, system=0), zip_entry("dir\\text", b"x", external=0x20, system=0)), cache)
    store = git_of(unix)
    assert ls_tree(store, unix.tree) == ["100755 run", "100644 text"]
    assert ls_tree(git_of(dos), dos.tree) == ["100644 dir/text", "100644 run"]


def git_of(got):
    return got.result["store"]


def ls_tree(store, tree):
    out = git(store, "ls-tree", "-r", "--format=%(objectmode) %(path)", tree)
    return out.splitlines()


def test_names_that_differ_by_case_are_two_files(place, cache):
    got = unpack(tar(entry("README"), entry("readme"), entry("Src/a"), entry("src/a")), cache)
    assert len(ls_tree(git_of(got), got.tree)) == 4


def test_links_that_stay_inside_are_kept(place, cache):
    got = unpack(tar(GOOD, entry("d/e/f"), link("l", "d/e/../../good.txt"), link("d/up", ".."), link("d/round", "up/d/up/good.txt"), link("loop", "loop"), link("gone", "no/such"),
                     link("l2", "d/up/d/e"), hard("h", "good.txt"), hard("h2", "h")), cache)
    modes = dict(line.split(" ", 1)[::-1] for line in ls_tree(git_of(got), got.tree))
    assert modes["l"] == modes["d/up"] == modes["loop"] == modes["gone"] == "120000" and modes["h"] == modes["h2"] == "100644"


def test_what_is_no_part_of_a_source_is_left_out_and_told(place, cache):
    data = tar(GOOD, entry(".git/HEAD"), entry("sub/.git/config"), entry("sub/y"), entry("mod/.git"), entry(".codex/tasks/T-1.json"), entry("a/.codex/tasks/x"),
               entry("__MACOSX/._good.txt"), entry(".gitignore"), entry(".github/y"), entry(".codex/config.toml"))
    got = unpack(data, cache)
    assert sorted(ls_tree(git_of(got), got.tree)) == ["100644 .codex/config.toml", "100644 .github/y", "100644 .gitignore", "100644 good.txt", "100644 sub/y"]
    assert any("6 entries" in w or "7 entries" in w and ".git/HEAD" in w for w in got.result["warnings"]), got.result["warnings"]


def test_the_same_bytes_are_unpacked_once(place, cache):
    data = compress(tar(GOOD, *[entry(f"f{i}") for i in range(1500)]), "gz")
    first = unpack(data, cache)
    stamp = max(p.stat().st_mtime_ns for p in pathlib.Path(git_of(first)).rglob("*.pack"))
    again = unpack(data, cache)
    assert again.result == first.result
    assert max(p.stat().st_mtime_ns for p in pathlib.Path(git_of(first)).rglob("*.pack")) == stamp


def test_an_attempt_that_was_killed_is_made_anew(place, cache):
    data = compress(tar(GOOD, *[entry(f"f{i}", os.urandom(2000)) for i in range(300)]), "gz")
    whole = unpack(data, cache)
    store = pathlib.Path(git_of(whole)).parent
    (store / "result.json").unlink()
    for pack_file in store.rglob("*.pack"):
        pack_file.chmod(0o600)
        pack_file.write_bytes(pack_file.read_bytes()[:100])
    assert unpack(data, cache).tree == whole.tree


def test_many_at_once_of_one_archive_agree(place, cache):
    import concurrent.futures
    archive = place / "work" / "one.tar"
    archive.write_bytes(tar(GOOD, *[entry(f"f{i}", os.urandom(500)) for i in range(400)]))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: unpack(archive, cache), range(6)))
    assert len({r.tree for r in results}) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user")
def test_an_ordinary_user_unpacks_too(place, cache):
    user = pwd.getpwnam("nobody")
    cache.mkdir()
    os.chown(cache, user.pw_uid, user.pw_gid)
    (place / "work" / "u.tar").write_bytes(tar(GOOD, link("l", "good.txt")))
    import json
    fd = os.open(place / "work" / "u.tar", os.O_RDONLY)
    job = {"kind": "archive", "fd": fd, "limits": {"files": 10, "bytes": 1 << 20, "file_bytes": 1 << 20, "ratio": 10}, "cache": str(cache), "uid": user.pw_uid, "gid": user.pw_gid}
    done = subprocess.run([BUILD / "signalbox", "fetch"], input=json.dumps(job).encode(), capture_output=True, pass_fds=[fd], user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    os.close(fd)
    assert b'"result"' in done.stdout, done.stdout + done.stderr


def test_a_large_archive_is_no_matter_of_minutes(place, cache):
    """Not a benchmark: that nothing grows with the square of the entries."""
    begun = time.monotonic()
    got = unpack(compress(tar(*[entry(f"d{i % 500}/f{i}", b"x") for i in range(40000)]), "gz"), cache, files=50000, ratio=10000)
    assert got.result["files"] == 40000 and time.monotonic() - begun < 120
