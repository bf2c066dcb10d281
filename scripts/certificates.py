"""An authority and the certificates that it issues, made by openssl, for the measuring scripts.

ECDSA with P-256. End entities are not authorities themselves (CA:FALSE), which rustls demands.
"""

import subprocess
from pathlib import Path

DAYS = 30
EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:{name}
"""


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"openssl {words[0]} failed: {done.stderr.strip()}")


class Authority:
    """Issues certificates for one name into a folder of its own."""

    def __init__(self, folder, name="bench.test"):
        self.folder, self.name = Path(folder), name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        self.extensions = self.folder / "extensions"
        self.extensions.write_text(EXTENSIONS.format(name=name))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.key, "-out", self.ca, "-days", DAYS, "-subj", "/CN=measuring")

    def issue(self, file):
        """Makes FILE.pem, FILE.key and FILE.both; the paths of the first two."""
        path = lambda kind: self.folder / f"{file}.{kind}"
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", path("key"), "-out", path("csr"), "-subj", f"/CN={self.name}")
        openssl("x509", "-req", "-in", path("csr"), "-CA", self.ca, "-CAkey", self.key,
                "-CAcreateserial", "-days", DAYS, "-extfile", self.extensions,
                "-out", path("pem"))
        # HAProxy wants both in one file.
        path("both").write_text(path("pem").read_text() + path("key").read_text())
        return path("pem"), path("key")
