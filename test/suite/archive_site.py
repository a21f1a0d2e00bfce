"""Archives for the tests: honest ones of a directory in every format, and hostile ones made byte by byte."""
import bz2
import gzip
import io
import json
import lzma
import os
import pathlib
import stat
import struct
import subprocess
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build")).resolve()
LIMITS = {"files": 2000, "bytes": 100 << 20, "file_bytes": 60 << 20, "ratio": 100}
FORMATS = ["zip", "tar", "tar.gz", "tar.zst", "tar.xz"]


# --- unpacking, as the server does it

class Unpacked:
    def __init__(self, done):
        self.status = done.returncode
        lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
        self.stderr = done.stderr.decode(errors="replace")
        self.result, self.error = (lines[-1].get(k) if lines else None for k in ("result", "error"))

    @property
    def tree(self):
        assert self.result, self.error or self.stderr
        return self.result["tree"]


def unpack(archive, cache, program=BUILD / "signalbox", keep_top=False, identity=None, **limits):
    """`signalbox fetch` with an archive, given as bytes or as a path."""
    path = archive
    if isinstance(archive, bytes):
        path = cache.parent / "archive"
        path.write_bytes(archive)
    fd = os.open(path, os.O_RDONLY)
    ids = {"uid": os.getuid() or 64913, "gid": os.getgid() or 64913}
    job = {"kind": "archive", "fd": fd, "limits": {**LIMITS, **limits, "keep_top": keep_top}, "cache": str(cache), **ids}
    try:
        return Unpacked(subprocess.run([program, "fetch"], input=json.dumps(job).encode(), capture_output=True, pass_fds=[fd], timeout=300,
                                       env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, **(identity or {})))
    finally:
        os.close(fd)


# --- honest archives

def pack(directory, kind, prefix=""):
    """The directory's files by the tools that people have; `prefix` is a directory around them."""
    where, what = (directory.parent, directory.name) if prefix else (directory, ".")
    out = directory.parent / f"packed.{kind}"
    out.unlink(missing_ok=True)
    flags = {"tar": [], "tar.gz": ["-z"], "tar.xz": ["-J"], "tar.zst": ["--zstd"]}
    argv = ["zip", "-qry", str(out), what] if kind == "zip" else ["tar", "-c", *flags[kind], "-f", str(out), what]
    subprocess.run(argv, cwd=where, check=True, capture_output=True)
    return out


# --- hostile ones: tar

def header(name, size=0, type=b"0", mode=0o644, link=b"", magic=b"ustar\x0000", checksum=None, devmajor=0, devminor=0):
    """One ustar header, with whatever is wanted in it."""
    def number(value, n):
        return b"%0*o\0" % (n - 1, value) if isinstance(value, int) else value.ljust(n, b"\0")[:n]
    block = bytearray(512)
    for at, field in ((0, name[:100]), (100, number(mode, 8)), (108, number(0, 8)), (116, number(0, 8)), (124, number(size, 12)), (136, number(0, 12)),
                      (148, b" " * 8), (156, type), (157, link[:100]), (257, magic), (329, number(devmajor, 8)), (337, number(devminor, 8))):
        block[at:at + len(field)] = field
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def padded(data):
    return data + b"\0" * (-len(data) % 512)


def pax(records):
    """A pax header for the entry that follows it."""
    body = b""
    for key, value in records:
        line = b" " + key + b"=" + value + b"\n"
        n = len(line) + 1
        while len(b"%d" % n) + len(line) != n:
            n += 1
        body += b"%d" % n + line
    return header(b"pax", len(body), b"x") + padded(body)


def long_name(name, type=b"L"):
    return header(b"././@LongLink", len(name) + 1, type) + padded(name + b"\0")


def entry(name, data=b"x", **more):
    """An entry with a name of any length and any bytes."""
    name = name.encode() if isinstance(name, str) else name
    front = long_name(name) if len(name) > 100 else b""
    return front + header(name, len(data), **more) + padded(data)


def link(name, target, type=b"2"):
    target = target.encode() if isinstance(target, str) else target
    name = name.encode() if isinstance(name, str) else name
    front = long_name(target, b"K") if len(target) > 100 else b""
    return front + header(name, 0, type, link=target)


def hard(name, target):
    return link(name, target, b"1")


def directory(name):
    return header(name.encode(), 0, b"5", mode=0o755)


END = b"\0" * 1024
GOOD = entry("good.txt", b"good\n")


def tar(*parts):
    return b"".join(parts) + END


# --- hostile ones: zip

def zip_of(*files, method=zipfile.ZIP_DEFLATED):
    """files: (name, data, unix mode or None). Names may be bytes, which stand in the zip as they are."""
    out, raw = io.BytesIO(), {}
    with zipfile.ZipFile(out, "w", method) as z:
        for i, (name, data, mode) in enumerate(files):
            shown = name
            if isinstance(name, bytes):
                shown = f"\x00RAW{i}".replace("\0", "@").ljust(len(name), "@")
                raw[shown.encode()] = name
            info = zipfile.ZipInfo("x")
            info.filename = shown  # zipfile mends some names: ours must stay as they are
            info.compress_type = method
            info.create_system = 3
            info.external_attr = (mode if mode is not None else stat.S_IFREG | 0o644) << 16
            with warnings_off():
                z.writestr(info, data)
    data = out.getvalue()
    for shown, name in raw.items():
        data = data.replace(shown, name)
    return data


class warnings_off:
    def __enter__(self):
        import warnings
        self.catch = warnings.catch_warnings()
        self.catch.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *rest):
        self.catch.__exit__(*rest)


def compress(data, kind):
    if kind == "gz":
        return gzip.compress(data, 6)
    if kind == "xz":
        return lzma.compress(data)
    if kind == "bz2":
        return bz2.compress(data)
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def zeros_tar(name, size):
    """A tar whose one file is all zeros, made without holding it."""
    return lambda kind: zeros_compressed(header(name.encode(), size), size, kind)


def zeros_compressed(head, size, kind):
    argv = {"gz": ["gzip", "-1"], "xz": ["xz", "-0"], "zst": ["zstd", "-q", "-c"]}[kind]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    import threading

    def feed():
        child.stdin.write(head)
        block = b"\0" * (1 << 20)
        for _ in range(size >> 20):
            child.stdin.write(block)
        child.stdin.write(END)
        child.stdin.close()
    feeder = threading.Thread(target=feed)
    feeder.start()
    out = child.stdout.read()
    feeder.join()
    assert child.wait() == 0
    return out


def zip_entry(name, data, size=None, compressed_size=None, method=0, crc=None, flags=0, external=0o100644 << 16, system=3):
    """A local header with its data, and the central directory's record, told whatever is wanted."""
    import zlib
    name = name.encode() if isinstance(name, str) else name
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    compressed_size = len(data) if compressed_size is None else compressed_size
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, flags, method, 0, 0, crc, compressed_size, size, len(name), 0) + name + data

    def central(offset):
        return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", system << 8 | 20, 20, flags, method, 0, 0, crc, compressed_size, size, len(name), 0, 0, 0, 0,
                           external, offset) + name
    return local, central


def zip_raw(*entries, offsets=None, count=None):
    body, directory_ = b"", b""
    for i, (local, central) in enumerate(entries):
        at = len(body) if offsets is None else offsets[i]
        body += local
        directory_ += central(at)
    n = len(entries) if count is None else count
    return body + directory_ + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, n, n, len(directory_), len(body), 0)
