# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""Which files make the clients of a host trust a registry's CA, and what becomes of those that are there.

Formats: PEM (RFC 7468) and X.509 (RFC 5280) of the certificates; ``certs.d`` of Docker
(https://docs.docker.com/engine/security/certificates/) and of Podman, Buildah, skopeo (containers-certs.d(5));
containerd's ``hosts.toml`` (https://github.com/containerd/containerd/blob/main/docs/hosts.md).

The decisions are made here without touching the host; the module reads, asks, and applies.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping, Sequence

DOCKER_DIRECTORY = "/etc/docker/certs.d"
CONTAINERD_DIRECTORY = "/etc/containerd/certs.d"
CONTAINERS_DIRECTORY = "/etc/containers/certs.d"
MARK = "# Managed by wharf.registry.ca_trust"

_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)\s*-----END \1-----", re.DOTALL)
_HOST = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])$")


class TrustRefused(ValueError):
    """A certificate, a registry's name or a file cannot be used; the message says which and why."""


# -------------------------------------------------------------------------------------------------------- certificates


@dataclass(frozen=True)
class Certificate:
    """What must be known of a CA's certificate: its PEM text, who it is and how long it lasts."""

    pem: str
    fingerprint: str
    subject: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    is_ca: bool

    @property
    def name(self) -> str:
        """A file name that is the certificate's alone."""
        return f"wharf-{self.fingerprint[:16]}"

    def report(self, now: datetime.datetime) -> dict[str, Any]:
        """Return the facts that the module reports."""
        return {
            "subject": self.subject,
            "fingerprint": self.fingerprint,
            "not_after": self.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "days_left": (self.not_after - now).days,
        }


def read_certificates(texts: Iterable[str], source: str = "certificates") -> list[Certificate]:
    """Return the certificates in PEM texts, each once, in their order.

    :raises TrustRefused: for a text without a certificate, with a private key, or with a certificate that cannot be read.
    """
    found: dict[str, Certificate] = {}
    for position, text in enumerate(texts, start=1):
        blocks = _PEM_BLOCK.findall(text)
        if any(label.endswith("PRIVATE KEY") for label, _body in blocks):
            raise TrustRefused(
                f"{source}: entry {position} holds a private key, which has no place on clients; give the CA's certificate only"
            )
        bodies = [body for label, body in blocks if label in ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE")]
        if not bodies:
            raise TrustRefused(f"{source}: entry {position} holds no certificate; it must have a part from -----BEGIN CERTIFICATE----- on")
        for body in bodies:
            try:
                certificate = read_der(base64.b64decode("".join(body.split()), validate=True))
            except (binascii.Error, ValueError, IndexError) as error:
                raise TrustRefused(f"{source}: entry {position} holds a certificate that cannot be read ({error})") from None
            found.setdefault(certificate.fingerprint, certificate)
    return list(found.values())


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element in *data*."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("it is cut short")
        yield tag, data[position : position + length]
        position += length


def read_der(der: bytes) -> Certificate:
    """Return what must be known of a certificate in DER (RFC 5280 §4.1).

    :raises ValueError: if it is no certificate.
    """
    (tag, outer), *rest = _elements(der)
    if tag != 0x30 or rest:
        raise ValueError("it is no X.509 certificate")
    (_tag, body), *_signature = _elements(outer)
    fields = list(_elements(body))
    if fields and fields[0][0] == 0xA0:
        fields = fields[1:]
    if len(fields) < 6:
        raise ValueError("it is no X.509 certificate")
    validity = [_time(kind, value) for kind, value in _elements(fields[3][1])]
    extensions = next((value for kind, value in fields if kind == 0xA3), b"")
    encoded = base64.b64encode(der).decode()
    lines = "\n".join(encoded[start : start + 64] for start in range(0, len(encoded), 64))
    return Certificate(
        pem=f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n",
        fingerprint=hashlib.sha256(der).hexdigest(),
        subject=_subject(fields[4][1]),
        not_before=validity[0],
        not_after=validity[1],
        is_ca=_is_ca(extensions),
    )


def _time(kind: int, value: bytes) -> datetime.datetime:
    text = value.decode("ascii")
    if kind == 0x17:  # UTCTime: RFC 5280 §4.1.2.5.1 puts 50..99 into the 20th century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc)


def _subject(name: bytes) -> str:
    """Return the common name, else the organisation, else whatever text is there."""
    found: dict[bytes, str] = {}
    for _set, relative in _elements(name):
        for _sequence, attribute in _elements(relative):
            (_oid_tag, oid), (value_tag, value), *_rest = _elements(attribute)
            encoding = {0x1E: "utf-16-be", 0x14: "latin-1"}.get(value_tag, "utf-8")
            found[oid] = value.decode(encoding, errors="replace")
    for oid in (b"\x55\x04\x03", b"\x55\x04\x0a"):
        if oid in found:
            return found[oid]
    return ", ".join(found.values()) or "(no subject)"


def _is_ca(extensions: bytes) -> bool:
    for _outer, sequence in _elements(extensions):
        for _tag, extension in _elements(sequence):
            parts = list(_elements(extension))
            if parts and parts[0][1] == b"\x55\x1d\x13":  # basicConstraints
                for _constraints, content in _elements(parts[-1][1]):
                    return any(kind == 0x01 and value != b"\x00" for kind, value in _elements(content))
    return False


# ---------------------------------------------------------------------------------------------------------- registries


@dataclass(frozen=True)
class Registry:
    """A registry as clients name it."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port, always with the port."""
        return f"{self.host}:{self.port}"

    @property
    def names(self) -> list[str]:
        """The names under which clients look for its certificates: for port 443 with and without the port."""
        return [self.host, self.address] if self.port == 443 else [self.address]


def read_registry(text: str) -> Registry:
    """Return the registry of a name such as ``registry.example.com`` or ``registry.example.com:5000``.

    :raises TrustRefused: for anything else, for example an address with a scheme or a path.
    """
    host, port = text, "443"
    match = re.match(r"^(.+):([0-9]+)$", text)
    if match and (not match.group(1).count(":") or match.group(1).endswith("]")):
        host, port = match.groups()
    if not _HOST.match(host) or not 1 <= int(port) <= 65535:
        raise TrustRefused(f"registries: {text!r} is no name of a registry; write host or host:port, for example registry.example.com:5000")
    return Registry(host.lower(), int(port))


# --------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Wanted:
    """A file that should be there, and what to do if a stranger's file stands in its place.

    ``aside`` names another place that does as well; without one the stranger's file stays and ``advice`` says what to
    put into it.
    """

    client: str
    path: str
    content: str
    aside: str = ""
    advice: str = ""


def wanted_files(
    certificates: Sequence[Certificate], registries: Sequence[Registry], clients: Sequence[str], anchors: str, suffix: str, bundle: str
) -> list[Wanted]:
    """Return the files that make *clients* trust *certificates* for *registries*.

    :param clients: among ``system``, ``docker``, ``containerd``, ``containers`` (Podman, Buildah, skopeo).
    :param anchors: the system store's directory for additional CAs; *suffix* is what its files must end with.
    :param bundle: a file with all the certificates and nothing else; empty for none.
    """
    if not certificates:
        return []
    every = "".join(certificate.pem for certificate in certificates)
    files = []
    if "system" in clients:
        files += [Wanted("system", f"{anchors}/{certificate.name}{suffix}", certificate.pem) for certificate in certificates]
    if bundle:
        files.append(Wanted("bundle", bundle, every, advice="name another path in the option bundle"))
    for registry in registries:
        for name in registry.names:
            for client, directory in (("docker", DOCKER_DIRECTORY), ("containers", CONTAINERS_DIRECTORY)):
                if client in clients:
                    files.append(Wanted(client, f"{directory}/{name}/ca.crt", every, aside=f"{directory}/{name}/wharf-ca.crt"))
            if "containerd" in clients:
                place = f"{CONTAINERD_DIRECTORY}/{name}"
                files.append(Wanted("containerd", f"{place}/wharf-ca.crt", every))
                files.append(
                    Wanted("containerd", f"{place}/hosts.toml", hosts_toml(name), advice=f'add ca = ["{place}/wharf-ca.crt"] to its hosts')
                )
    return files


def hosts_toml(name: str) -> str:
    """Return containerd's description of a registry that is served under its own name with our CA."""
    return (
        f"{MARK}\n"
        f'server = "https://{name}"\n\n'
        f'[host."https://{name}"]\n'
        '  capabilities = ["pull", "resolve", "push"]\n'
        f'  ca = ["{CONTAINERD_DIRECTORY}/{name}/wharf-ca.crt"]\n'
    )


@dataclass
class FilePlan:
    """What to write, what to remove, what our record of files then is, and what stays as others left it."""

    write: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    record: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    system_changed: bool = False


def digest(content: str) -> str:
    """Return what the record keeps of a file."""
    return hashlib.sha256(content.encode()).hexdigest()


def plan_files(wanted: Sequence[Wanted], current: Mapping[str, str | None], record: Mapping[str, str]) -> FilePlan:
    """Decide about each file.

    :param current: content of every path in *wanted* (``aside`` too) and *record*; None if there is no such file.
    :param record: what earlier runs put there: path to :func:`digest`.
    """
    plan = FilePlan()
    for file in wanted:
        path = file.path
        there = current.get(path)
        if there is not None and path not in record and there != file.content and file.aside:
            path = file.aside
            there = current.get(path)
        if there == file.content:
            if path in record:
                plan.record[path] = record[path]
            continue  # else it was there before us, and stays after us
        foreign = there is not None and (path not in record or (file.advice and record[path] != digest(there)))
        if foreign and file.advice:
            plan.warnings.append(f"{path} was not written by this module, or was changed since, and stays as it is; {file.advice}")
            if path in record:
                plan.record[path] = record[path]
            continue
        plan.write[path] = file.content
        plan.record[path] = digest(file.content)
        plan.system_changed = plan.system_changed or file.client == "system"
    for path, known in record.items():
        if path in plan.record or path in plan.write:
            continue
        there = current.get(path)
        if there is None:
            continue
        if digest(there) != known and path.endswith("/hosts.toml"):
            plan.warnings.append(f"{path} was changed since this module wrote it and stays; remove it by hand if nobody needs it")
            continue
        plan.remove.append(path)
    return plan


# ---------------------------------------------------------------------------------------------------------- containerd

_CRI_TABLES = {
    "1": "plugins.cri.registry",
    "2": 'plugins."io.containerd.grpc.v1.cri".registry',
    "3": "plugins.'io.containerd.cri.v1.images'.registry",
}


def cri_disabled(config: str) -> bool:
    """Say whether containerd's configuration switches its CRI plugin off, as it is beside Docker."""
    match = re.search(r"^\s*disabled_plugins\s*=\s*\[(.*?)\]", config, re.MULTILINE | re.DOTALL)
    return match is not None and re.search(r"""["'](io\.containerd\.grpc\.v1\.)?cri["']""", match.group(1)) is not None


def set_config_path(config: str) -> tuple[str, str] | None:
    """Return which part of containerd's configuration becomes what, so that CRI reads ``hosts.toml`` files.

    An empty first part means that the second one is appended. None means that nothing has to change.

    :raises TrustRefused: if the configuration already says something that excludes it.
    """
    found = re.search(r"^\s*version\s*=\s*([0-9]+)", config, re.MULTILINE)
    version = found.group(1) if found else "1"
    table = _CRI_TABLES.get(version, _CRI_TABLES["3"])
    plain = table.replace('"', "").replace("'", "")
    section = None
    for match in re.finditer(r"^[ \t]*\[([^\[\]\n]+)\][ \t]*(?:#.*)?$", config, re.MULTILINE):
        name = match.group(1).replace('"', "").replace("'", "").replace(" ", "")
        if name.startswith((f"{plain}.mirrors", f"{plain}.configs")):
            raise TrustRefused(
                f"containerd: config.toml has [{match.group(1)}], which cannot be together with config_path; "
                f"move its content to {CONTAINERD_DIRECTORY}, or set containerd_cri to never"
            )
        if name == plain:
            section = match
    line = f'config_path = "{CONTAINERD_DIRECTORY}"'
    if section is None:
        return "", f"\n{MARK}\n[{table}]\n  {line}\n"
    rest = config[section.end() :]
    following = re.search(r"^[ \t]*\[", rest, re.MULTILINE)
    inside = rest[: following.start()] if following else rest
    setting = re.search(r"""^([ \t]*)config_path\s*=\s*["']([^"'\n]*)["'].*$""", inside, re.MULTILINE)
    header = section.group(0)
    if setting is None:
        return header, f"{header}\n  {line}"
    value = setting.group(2)
    if CONTAINERD_DIRECTORY in value.split(":"):
        return None
    if value:
        raise TrustRefused(f"containerd: config_path is {value}; put the registry there yourself, or set containerd_cri to never")
    return header + inside[: setting.end()], header + inside[: setting.start()] + f"{setting.group(1)}{line}"


# ---------------------------------------------------------------------------------------------------------------- Java


def keystore_fingerprints(listing: str) -> dict[str, str]:
    """Return alias by SHA-256 fingerprint (lower-case hex) from the output of ``keytool -list``."""
    found = {}
    alias = ""
    for line in listing.splitlines():
        entry = re.match(r"^([^,]+), .*(trustedCertEntry|PrivateKeyEntry)", line)
        if entry:
            alias = entry.group(1).strip()
        print_ = re.search(r"\(SHA-?256\):\s*([0-9A-F:]{95})", line)
        if print_ and alias:
            found[print_.group(1).replace(":", "").lower()] = alias
    return found


# ---------------------------------------------------------------------------------------------------------- handshakes


def judge(output: str) -> str:
    """Return what a client's complaint about an image that does not exist says of TLS: trusted, untrusted, unreachable, unknown."""
    text = output.lower()
    if re.search(
        r"x509|certificate verify failed|certificate_verify|unknown authority|self.signed certificate|pkix|tls: failed to verify"
        r"|ssl certificate problem|unable to get (?:local )?issuer|no subject alternative|no name matching",
        text,
    ):
        return "untrusted"
    if re.search(
        r"server gave http response|wrong version number|first record does not look like a tls|connection refused|no such host", text
    ):
        return "unreachable"
    if re.search(
        r"timed? ?out|timeout|deadline|no route|network is unreachable|name resolution|connection reset|\beof\b|resolve host", text
    ):
        return "unreachable"
    if re.search(
        r"unauthorized|authentication required|denied|no basic auth|not found|manifest unknown|name unknown|does not exist|\b40[134]\b"
        r"|filenotfoundexception|crlexception",
        text,
    ):
        return "trusted"
    return "unknown"
