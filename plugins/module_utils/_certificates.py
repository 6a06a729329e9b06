# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""X.509 certificates: a small CA, certificates signed by it, self-signed ones, and when they are issued again.

The profile is RFC 5280: section 4.1.2.2 (serial numbers), 4.2.1.1 and 4.2.1.2 (key identifiers), 4.2.1.3 (key usage),
4.2.1.6 (subject alternative names), 4.2.1.9 (basic constraints), 4.2.1.12 (extended key usage); names of servers as in
RFC 9525. Keys are written as unencrypted PKCS #8 (RFC 5958) in PEM (RFC 7468), unless a passphrase protects a CA's key.

A certificate and its key are two files, and no system call replaces two files at once. A new key is therefore first put
beside the old one (:func:`staged_path`), then the certificate is replaced, then the key is renamed over the old one. A
process that is killed in between leaves whole files, and :func:`manage` completes the pair with its next run.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _files

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.backends import default_backend
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

CLOCK_SKEW = datetime.timedelta(hours=1)
MAXIMUM_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1
MINIMUM_RSA_BITS = 2048
MAXIMUM_DAYS = 36500
DEFAULT_DAYS = {"ca": 3650, "server": 365, "client": 365}

_LABEL = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(?<!-)$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class CertificateRefused(ValueError):
    """What is asked for, or what was found, cannot be used; nothing has been changed."""


class CryptographyMissing(RuntimeError):
    """The Python library cryptography is not there."""


# --------------------------------------------------------------------------------------------------------------- names


def parse_name(text: str, option: str = "subject_alt_names") -> tuple[str, str]:
    """Return ``("IP", address)`` or ``("DNS", name)`` in the one spelling that names are compared in.

    The kind is recognised; the prefixes ``IP:`` and ``DNS:`` are accepted and then binding. International names become
    their ASCII form. Underscores are accepted as Go and OpenSSL accept them, a wildcard as leftmost label only.

    :raises CertificateRefused: if the text is neither.
    """
    kind, colon, rest = text.strip().partition(":")
    kind = kind.upper() if colon else ""
    if kind not in ("DNS", "IP"):
        kind, rest = "", text.strip()
    if kind != "DNS" and "%" not in rest:  # a zone is no part of a name
        try:
            return "IP", str(ipaddress.ip_address(rest))
        except ValueError:
            pass
    if kind != "IP":
        name = _normal_dns_name(rest)
        if name is not None:
            return "DNS", name
    wanted = {"IP": "no IP address", "DNS": "no DNS name"}.get(kind, "neither a DNS name nor an IP address")
    raise CertificateRefused(
        f"{option}: {text!r} is {wanted}; examples that work: registry.example.com, *.example.com, 192.0.2.10, 2001:db8::10"
    )


def _normal_dns_name(text: str) -> str | None:
    name = text[:-1] if text.endswith(".") else text
    wildcard = name.startswith("*.")
    if wildcard:
        name = name[2:]
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    name = name.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if labels[-1].isdigit():  # 10.0.0.256 is a broken address, not a name
        return None
    return f"*.{name}" if wildcard else name


def wanted_names(common_name: str, subject_alt_names: Sequence[str] | None, usage: str) -> list[tuple[str, str]]:
    """Return the subject alternative names of the certificate: those given, and for a server its common name.

    :raises CertificateRefused: for a name that is none, and for a server whose common name is none.
    """
    names = [parse_name(name) for name in subject_alt_names or ()]
    if usage == "server":
        names.insert(0, parse_name(common_name, "common_name"))
    elif usage == "client" and not names:
        with contextlib.suppress(CertificateRefused):
            names.append(parse_name(common_name, "common_name"))
    return list(dict.fromkeys(names))


def show_names(names: Sequence[tuple[str, str]]) -> list[str]:
    """Return names as OpenSSL writes them: ``DNS:registry.example.com``."""
    return [f"{kind}:{value}" for kind, value in names]


# ------------------------------------------------------------------------------------------------------------- request


@dataclass(frozen=True)
class Request:
    """Everything that ``selfsigned_cert`` is asked for; both attributes must carry a mode."""

    path: str
    privatekey_path: str
    common_name: str
    attributes: _files.Attributes
    privatekey_attributes: _files.Attributes
    subject_alt_names: Sequence[str] | None = None
    usage: str = "server"
    ca_path: str | None = None
    ca_privatekey_path: str | None = None
    ca_privatekey_passphrase: str | None = field(default=None, repr=False)
    key_type: str = "rsa"
    key_size: int = 4096
    curve: str = "secp256r1"
    valid_days: int | None = None
    renew_before_days: int = 30
    new_key_on_renewal: bool = False
    fullchain_path: str | None = None
    force: bool = False
    backup: bool = False
    unknown_attributes: Sequence[str] = ()
    privatekey_unknown_attributes: Sequence[str] = ()

    @property
    def days(self) -> int:
        """How long the certificate is to be valid."""
        return DEFAULT_DAYS[self.usage] if self.valid_days is None else self.valid_days

    @property
    def own_passphrase(self) -> bytes | None:
        """The passphrase of the key at ``privatekey_path``: only a self-signed CA's key has one."""
        if self.usage == "ca" and self.ca_path is None and self.ca_privatekey_passphrase:
            return self.ca_privatekey_passphrase.encode("utf-8")
        return None


def check_request(request: Request) -> list[tuple[str, str]]:
    """Refuse what can be seen to be wrong without looking at any file, and return the names wanted.

    :raises CertificateRefused: with the option's name, what is wrong and an example.
    """
    if not request.common_name.strip() or _CONTROL.search(request.common_name):
        raise CertificateRefused("common_name: is empty or has control characters; an example that works: registry.example.com")
    if len(request.common_name) > MAXIMUM_COMMON_NAME:
        raise CertificateRefused(
            f"common_name: is {len(request.common_name)} characters long, X.509 allows {MAXIMUM_COMMON_NAME};"
            " choose a shorter one and put the long name into subject_alt_names"
        )
    if request.key_type == "rsa" and not MINIMUM_RSA_BITS <= request.key_size <= 16384:
        raise CertificateRefused(f"key_size: {request.key_size} is no size for RSA here; at least {MINIMUM_RSA_BITS}, for example 4096")
    if not 1 <= request.days <= MAXIMUM_DAYS:
        raise CertificateRefused(f"valid_days: {request.days} is not between 1 and {MAXIMUM_DAYS}; an example that works: 365")
    if request.renew_before_days < 0:
        raise CertificateRefused(f"renew_before_days: {request.renew_before_days} is negative; an example that works: 30")
    if request.renew_before_days >= request.days:
        raise CertificateRefused(
            f"renew_before_days: {request.renew_before_days} is not less than valid_days ({request.days}), so each run would issue the"
            f" certificate again; an example that works: {request.days // 3}"
        )
    if (request.ca_path is None) != (request.ca_privatekey_path is None):
        raise CertificateRefused("ca_path and ca_privatekey_path: give both, or none for a self-signed certificate")
    if request.ca_privatekey_passphrase and request.ca_path is None and request.usage != "ca":
        raise CertificateRefused("ca_privatekey_passphrase: there is no CA key; give ca_path and ca_privatekey_path too, or leave it out")
    written = {"path": request.path, "privatekey_path": request.privatekey_path, "fullchain_path": request.fullchain_path}
    read = {"ca_path": request.ca_path, "ca_privatekey_path": request.ca_privatekey_path}
    for option, path in {**written, **read}.items():
        for other, other_path in {**read, **written}.items():
            same = path is not None and other_path is not None and os.path.realpath(path) == os.path.realpath(other_path)
            if option < other and same and (option, other) != ("fullchain_path", "path"):
                raise CertificateRefused(f"{option} and {other}: both are {path}; give each file a path of its own")
    return wanted_names(request.common_name, request.subject_alt_names, request.usage)


# ---------------------------------------------------------------------------------------------------------------- keys


def make_key(key_type: str, key_size: int, curve: str) -> Any:
    """Return a new private key: ``rsa`` with *key_size* bits, ``ecdsa`` on *curve*, or ``ed25519``."""
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=key_size, backend=default_backend())
    if key_type == "ecdsa":
        curves: dict[str, Any] = {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}
        return ec.generate_private_key(curves[curve](), default_backend())
    return ed25519.Ed25519PrivateKey.generate()


def describe_key(public_key: Any) -> str:
    """Return kind and size of a key: ``rsa 4096``, ``ecdsa secp256r1``, ``ed25519``; its class for other kinds."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"rsa {public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"ecdsa {public_key.curve.name}"
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return "ed25519"
    return type(public_key).__name__.strip("_")


def _wanted_key(request: Request) -> str:
    return {"rsa": f"rsa {request.key_size}", "ecdsa": f"ecdsa {request.curve}"}.get(request.key_type, "ed25519")


def dump_key(key: Any, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PKCS #8 in PEM."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    result: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return result


def load_key(content: bytes, passphrase: bytes | None = None) -> Any:
    """Return the private key of a PEM file.

    :raises TypeError: if a passphrase is missing, or given for a key that needs none.
    :raises ValueError: if the content is no key or the passphrase is wrong.
    """
    try:
        return serialization.load_pem_private_key(content, passphrase, default_backend())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _public_bytes(public_key: Any) -> bytes:
    result: bytes = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return result


def belongs_to(certificate: Any, key: Any) -> bool:
    """Say whether *key* is the private key of *certificate*."""
    return _public_bytes(certificate.public_key()) == _public_bytes(key.public_key())


# -------------------------------------------------------------------------------------------------------- certificates


def load_certificates(content: bytes) -> list[Any]:
    """Return all certificates of a PEM file, in its order.

    :raises ValueError: if there is none, or one that cannot be read.
    """
    blocks = _PEM.findall(content)
    if not blocks:
        raise ValueError("there is no certificate in PEM form")
    certificates = [x509.load_pem_x509_certificate(block, default_backend()) for block in blocks]
    for certificate in certificates:
        _public_bytes(certificate.public_key())  # some faults show only here
        list(certificate.extensions)
    return certificates


def dump_certificates(certificates: Sequence[Any]) -> bytes:
    """Return certificates in PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def not_before(certificate: Any) -> datetime.datetime:
    """Return the beginning of the validity, in UTC (cryptography before 42 has it without a zone only)."""
    return _aware(certificate, "not_valid_before")


def not_after(certificate: Any) -> datetime.datetime:
    """Return the end of the validity, in UTC."""
    return _aware(certificate, "not_valid_after")


def _aware(certificate: Any, attribute: str) -> datetime.datetime:
    value: datetime.datetime
    try:
        value = getattr(certificate, f"{attribute}_utc")
    except AttributeError:
        value = getattr(certificate, attribute).replace(tzinfo=datetime.timezone.utc)
    return value


def _extension(certificate: Any, kind: Any) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def names_of(certificate: Any) -> list[tuple[str, str]]:
    """Return the subject alternative names of a certificate; kinds that we never write come as ``OTHER``."""
    names = []
    for name in _extension(certificate, x509.SubjectAlternativeName) or ():
        if isinstance(name, x509.DNSName):
            names.append(("DNS", name.value.lower()))
        elif isinstance(name, x509.IPAddress):
            names.append(("IP", str(name.value)))
        else:
            names.append(("OTHER", str(name.value)))
    return names


def common_name_of(certificate: Any) -> str | None:
    """Return the last common name of the subject, None if there is none."""
    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[-1].value) if attributes else None


def is_ca(certificate: Any) -> bool:
    """Say whether a certificate may sign others (RFC 5280, 4.2.1.9 and 4.2.1.3)."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def signed_by(certificate: Any, issuer: Any) -> bool:
    """Say whether *issuer* (a certificate) signed *certificate*: by name and by signature."""
    if certificate.issuer != issuer.subject:
        return False
    if hasattr(certificate, "verify_directly_issued_by"):  # cryptography 40
        try:
            certificate.verify_directly_issued_by(issuer)
            return True
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
    key = issuer.public_key()
    arguments: list[Any] = [certificate.signature, certificate.tbs_certificate_bytes]
    if isinstance(key, rsa.RSAPublicKey):
        arguments += [padding.PKCS1v15(), certificate.signature_hash_algorithm]
    elif isinstance(key, ec.EllipticCurvePublicKey):
        arguments += [ec.ECDSA(certificate.signature_hash_algorithm)]
    try:
        key.verify(*arguments)
        return True
    except (InvalidSignature, TypeError, ValueError):
        return False


def _has_usage(certificate: Any, usage: str) -> bool:
    """Say whether a certificate can be used as asked. No extended key usage means any (RFC 5280, 4.2.1.12)."""
    if usage == "ca":
        return is_ca(certificate)
    if is_ca(certificate):
        return False
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    return extended is None or wanted in list(extended)


@dataclass(frozen=True)
class Authority:
    """A CA ready to sign: its certificate, its private key, and the certificates that lead from it to the root."""

    certificate: Any
    key: Any = field(repr=False)
    chain: Sequence[Any] = ()


def load_authority(
    certificate_path: str,
    privatekey_path: str,
    passphrase: str | None,
    *,
    for_ca: bool,
    now: datetime.datetime,
) -> Authority:
    """Return the CA of two files. Of several certificates in the file the one that belongs to the key signs.

    :param for_ca: whether it is to sign another CA, which its path length may forbid.
    :raises CertificateRefused: if a file is missing or broken, the key is encrypted and the passphrase missing or wrong,
        the key is not that certificate's, the certificate is no CA, or not valid now.
    """
    content = _files.read_if_there(certificate_path)
    key_content = _files.read_if_there(privatekey_path)
    if content is None:
        raise CertificateRefused(f"ca_path: {certificate_path} does not exist; make the CA first with usage: ca")
    if key_content is None:
        raise CertificateRefused(f"ca_privatekey_path: {privatekey_path} does not exist; give the private key of {certificate_path}")
    try:
        certificates = load_certificates(content)
    except ValueError as error:
        raise CertificateRefused(f"ca_path: {certificate_path} cannot be read: {error}; give a certificate in PEM form") from error
    key = _load_protected_key(key_content, privatekey_path, "ca_privatekey_path", passphrase.encode("utf-8") if passphrase else None)
    matching = [certificate for certificate in certificates if belongs_to(certificate, key)]
    if not matching:
        raise CertificateRefused(
            f"ca_privatekey_path: {privatekey_path} is not the private key of {certificate_path}; give the two files of one CA"
        )
    certificate = max(matching, key=not_after)
    if not is_ca(certificate):
        raise CertificateRefused(f"ca_path: {certificate_path} is no CA certificate; make one with usage: ca")
    constraints = _extension(certificate, x509.BasicConstraints)
    if for_ca and constraints.path_length == 0:
        raise CertificateRefused(
            f"ca_path: {certificate_path} may not sign another CA (its path length is 0); leave ca_path out for usage: ca"
        )
    if not_after(certificate) <= now:
        raise CertificateRefused(
            f"ca_path: {certificate_path} expired at {_stamp(not_after(certificate))}; make a new CA and roll over to it"
        )
    if not_before(certificate) > now:
        raise CertificateRefused(f"ca_path: {certificate_path} is not valid before {_stamp(not_before(certificate))}; set the clock right")
    return Authority(certificate, key, _chain(certificate, certificates))


def _load_protected_key(content: bytes, path: str, option: str, passphrase: bytes | None) -> Any:
    try:
        return load_key(content, passphrase)
    except TypeError as error:
        if passphrase is None:
            raise CertificateRefused(f"{option}: {path} is encrypted; give its passphrase with ca_privatekey_passphrase") from error
        raise CertificateRefused(f"ca_privatekey_passphrase: {path} is not encrypted; leave the passphrase out") from error
    except ValueError as error:
        if passphrase is not None:
            raise CertificateRefused(f"ca_privatekey_passphrase: it does not open {path}; give the passphrase of that key") from error
        raise CertificateRefused(
            f"{option}: {path} cannot be read as a private key in PEM form; give the key of the certificate"
        ) from error


def _chain(certificate: Any, candidates: Sequence[Any]) -> list[Any]:
    """Return *certificate* and those of *candidates* that lead from it to its root, in this order."""
    chain = [certificate]
    while not signed_by(chain[-1], chain[-1]):
        issuers = [candidate for candidate in candidates if candidate not in chain and signed_by(chain[-1], candidate)]
        if not issuers:
            break
        chain.append(issuers[0])
    return chain


def issue(
    *,
    common_name: str,
    names: Sequence[tuple[str, str]],
    usage: str,
    key: Any,
    days: int,
    authority: Authority | None,
    now: datetime.datetime,
) -> Any:
    """Return a new certificate for *key*, signed by *authority* or, without one, by itself.

    It begins an hour in the past for clients whose clocks are behind, and ends with its CA at the latest.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer = subject if authority is None else authority.certificate.subject
    begin, end = _validity(days, authority, now)
    public_key = key.public_key()
    subject_identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=usage == "ca", path_length=0 if usage == "ca" else None), critical=True)
        .add_extension(_key_usage(usage, public_key), critical=True)
        .add_extension(subject_identifier, critical=False)
        .add_extension(_authority_identifier(authority, subject_identifier), critical=False)
    )
    if usage != "ca":
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if names:
        general = [x509.DNSName(value) if kind == "DNS" else x509.IPAddress(ipaddress.ip_address(value)) for kind, value in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    signing_key = key if authority is None else authority.key
    return builder.sign(signing_key, _digest_for(signing_key), default_backend())


def _validity(days: int, authority: Authority | None, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    begin = (now - CLOCK_SKEW).replace(microsecond=0)
    end = (now + datetime.timedelta(days=days)).replace(microsecond=0)
    if authority is not None:
        begin = max(begin, not_before(authority.certificate))
        end = min(end, not_after(authority.certificate))
    return begin, end


def _key_usage(usage: str, public_key: Any) -> Any:
    is_authority = usage == "ca"
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        # Only RSA can encrypt a session key (TLS 1.2 without forward secrecy); other keys must not claim to.
        key_encipherment=usage == "server" and isinstance(public_key, rsa.RSAPublicKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(authority: Authority | None, own: Any) -> Any:
    identifier = own
    if authority is not None:
        identifier = _extension(authority.certificate, x509.SubjectKeyIdentifier)
        if identifier is None:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier(key_identifier=identifier.digest, authority_cert_issuer=None, authority_cert_serial_number=None)


def _digest_for(key: Any) -> Any:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}.get(key.curve.name, hashes.SHA256)()
    return hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None


# -------------------------------------------------------------------------------------------------------------- manage


@dataclass
class Outcome:
    """What was done, or would be. *certificate* is None where a check run cannot know it yet."""

    changed: bool
    reasons: list[str]
    certificate: dict[str, Any]
    before: str
    after: str
    warnings: list[str] = field(default_factory=list)
    backup_file: str | None = None
    privatekey_backup_file: str | None = None


@dataclass
class _Found:
    """What is at the paths of a request."""

    certificate: Any = None
    certificate_fault: str | None = None
    key: Any = field(default=None, repr=False)
    key_fault: str | None = None
    staged_key: Any = field(default=None, repr=False)  # the second half of an interrupted run, to be completed


@dataclass
class _Decision:
    reasons: list[str]
    new_key: bool
    warnings: list[str]


def staged_path(privatekey_path: str) -> str:
    """Return where a new private key waits until its certificate is in place."""
    directory, name = os.path.split(privatekey_path)
    return os.path.join(directory, f".{name}.next")


def describe_certificate(certificate: Any, now: datetime.datetime) -> dict[str, Any]:
    """Return what a certificate says, in the form that the module returns it."""
    return {
        "serial": f"{certificate.serial_number:X}",
        "fingerprint": ":".join(f"{byte:02X}" for byte in certificate.fingerprint(hashes.SHA256())),
        "not_before": _stamp(not_before(certificate)),
        "not_after": _stamp(not_after(certificate)),
        "days_left": (not_after(certificate) - now).days,
        "subject": certificate.subject.rfc4514_string(),
        "subject_alt_names": show_names(names_of(certificate)),
        "issuer": certificate.issuer.rfc4514_string(),
    }


def _stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def manage(request: Request, *, check: bool, now: datetime.datetime | None = None) -> Outcome:
    """Bring a certificate and its key into the wanted state.

    :param check: only say what would happen: nothing is written, directories and a CA need not exist yet.
    :param now: the time, for tests; by default the clock's, in UTC.
    :raises CertificateRefused: before anything is changed.
    :raises _files.FileRefused: likewise, for paths that cannot be used.
    :raises CryptographyMissing: if the library is not there.
    :raises OSError: if the system refuses to read or write.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    names = check_request(request)
    paths = [path for path in (request.path, request.privatekey_path, request.fullchain_path) if path]
    for option, path in (("path", request.path), ("privatekey_path", request.privatekey_path), ("fullchain_path", request.fullchain_path)):
        if path:
            _files.resolve_path(path, follow=False, option=option)
    if not HAS_CRYPTOGRAPHY:
        if check and not os.path.exists(request.path):
            return Outcome(True, ["absent"], {}, "", "")
        raise CryptographyMissing("the Python library cryptography is needed: install the package python3-cryptography (2.8 or later)")
    if check:
        return _manage(request, names, check=True, now=now)
    for option, path in (("path", request.path), ("privatekey_path", request.privatekey_path), ("fullchain_path", request.fullchain_path)):
        if path:
            _files.require_directory(path, option)
    with contextlib.ExitStack() as stack:
        # One lock for each directory, in one order, so that two runs cannot wait for each other.
        for directory in sorted({os.path.dirname(os.path.realpath(path)) for path in paths}):
            stack.enter_context(_files.locked(os.path.join(directory, "any")))
        for path in [*paths, staged_path(request.privatekey_path)]:
            _files.remove_leftovers(path)
        return _manage(request, names, check=False, now=now)


def _manage(request: Request, names: Sequence[tuple[str, str]], *, check: bool, now: datetime.datetime) -> Outcome:
    authority = _find_authority(request, check=check, now=now)
    found = _look(request)
    decision = _decide(request, names, found, authority, now)

    key = found.key
    certificate = found.certificate
    completes = found.staged_key is not None
    before = _summary(found.certificate, found.key, completes)
    outcome = Outcome(False, decision.reasons, {}, before, before, decision.warnings)
    if decision.reasons:
        outcome.changed = True
        outcome.after = _predict(request, names, authority, now)
        if not check:
            if decision.new_key or key is None:
                key = make_key(request.key_type, request.key_size, request.curve)
            certificate = issue(
                common_name=request.common_name,
                names=names,
                usage=request.usage,
                key=key,
                days=request.days,
                authority=authority,
                now=now,
            )
        elif found.certificate is not None:
            certificate = None
    elif completes:
        outcome.changed = True
        outcome.after = _summary(found.certificate, found.key, False)

    if certificate is not None:
        outcome.certificate = describe_certificate(certificate, now)
    if check:
        outcome.changed = outcome.changed or bool(_stale_files(request, certificate, authority))
        return outcome
    _write(request, found, decision, outcome, certificate, key, authority)
    return outcome


def _find_authority(request: Request, *, check: bool, now: datetime.datetime) -> Authority | None:
    if request.ca_path is None or request.ca_privatekey_path is None:
        return None
    if check and not (os.path.exists(request.ca_path) and os.path.exists(request.ca_privatekey_path)):
        return None  # an earlier task would have made it
    return load_authority(
        request.ca_path, request.ca_privatekey_path, request.ca_privatekey_passphrase, for_ca=request.usage == "ca", now=now
    )


def _look(request: Request) -> _Found:
    found = _Found()
    content = _files.read_if_there(request.path)
    key_content = _files.read_if_there(request.privatekey_path)
    staged_content = _files.read_if_there(staged_path(request.privatekey_path))
    if key_content is not None:
        try:
            found.key = load_key(key_content, request.own_passphrase)
        except TypeError as error:
            if request.own_passphrase is None:
                # Somebody protected this key; making another would lose it.
                raise CertificateRefused(
                    f"privatekey_path: {request.privatekey_path} is encrypted, and servers need it open; remove it, or name another file"
                    " (a self-signed CA's key may be encrypted: give ca_privatekey_passphrase)"
                ) from error
            found.key = load_key(key_content)  # a CA's key made before there was a passphrase
        except ValueError as error:
            if request.own_passphrase is not None:
                raise CertificateRefused(
                    f"ca_privatekey_passphrase: it does not open {request.privatekey_path}; give the passphrase of that key"
                ) from error
            found.key_fault = str(error)
    if content is not None:
        try:
            certificates = load_certificates(content)
        except ValueError as error:
            found.certificate_fault = str(error)
        else:
            own = [certificate for certificate in certificates if found.key is not None and belongs_to(certificate, found.key)]
            found.certificate = own[0] if own and request.usage == "ca" else certificates[0]
    if staged_content is not None and found.certificate is not None:
        with contextlib.suppress(ValueError, TypeError):
            staged_key = load_key(staged_content, request.own_passphrase)
            if belongs_to(found.certificate, staged_key) and (found.key is None or not belongs_to(found.certificate, found.key)):
                found.key = found.staged_key = staged_key
                found.key_fault = None
    return found


def _decide(
    request: Request, names: Sequence[tuple[str, str]], found: _Found, authority: Authority | None, now: datetime.datetime
) -> _Decision:
    """Say why the certificate must be issued again, if it must, and whether with a new key.

    :raises CertificateRefused: if a CA would be replaced and nobody forced that.
    """
    reasons = []
    warnings: list[str] = []
    absent = found.certificate is None and found.certificate_fault is None
    if absent:
        reasons.append("absent")
    elif found.certificate is None:
        reasons.append("broken")
    else:
        reasons.extend(_reasons_of_certificate(request, names, found.certificate, authority, now, warnings))
    if found.key_fault is not None:
        reasons.append("key_broken")
    elif found.key is None and not absent:
        reasons.append("key_absent")
    elif found.key is not None and found.certificate is not None and not belongs_to(found.certificate, found.key):
        reasons.append("key_mismatch")
    if found.key is not None and describe_key(found.key.public_key()) != _wanted_key(request):
        reasons.append("key_type")
    new_key = found.key is None or "key_type" in reasons

    if request.usage == "ca" and reasons and reasons != ["absent"] and not request.force:
        raise CertificateRefused(
            f"path: the CA {request.path} would have to be replaced ({', '.join(reasons)}), and every client that trusts it would have to"
            " trust another; set force: true to do that, or correct the options"
        )
    if request.force and not absent:
        reasons.append("forced")
    if reasons and not absent and request.new_key_on_renewal:
        new_key = True
    if reasons and authority is not None:
        end = not_after(authority.certificate)
        if end < now + datetime.timedelta(days=request.days):
            warnings.append(f"{request.path} is valid until {_stamp(end)} only, because its CA {request.ca_path} ends then")
    return _Decision(reasons, new_key, warnings)


def _reasons_of_certificate(
    request: Request,
    names: Sequence[tuple[str, str]],
    certificate: Any,
    authority: Authority | None,
    now: datetime.datetime,
    warnings: list[str],
) -> list[str]:
    reasons = []
    end = not_after(certificate)
    if end <= now:
        reasons.append("expired")
    elif end - now <= datetime.timedelta(days=request.renew_before_days):
        possible_end = _validity(request.days, authority, now)[1]
        if request.usage == "ca":
            warnings.append(f"the CA {request.path} expires at {_stamp(end)}; roll over to a new one before that")
        elif possible_end - end < datetime.timedelta(days=1):
            warnings.append(
                f"{request.path} expires at {_stamp(end)} together with its CA {request.ca_path}; roll over to a new CA before that"
            )
        else:
            reasons.append("expiring")
    if set(names_of(certificate)) != set(names) or common_name_of(certificate) != request.common_name:
        reasons.append("names")
    if not _has_usage(certificate, request.usage):
        reasons.append("usage")
    if request.ca_path is None:
        if not signed_by(certificate, certificate):
            reasons.append("issuer")
    elif authority is None or not signed_by(certificate, authority.certificate):
        reasons.append("issuer")
    return reasons


def _file_contents(request: Request, certificate: Any, authority: Authority | None) -> dict[str, list[Any]]:
    """Return which certificates belong into which file."""
    chain = [certificate, *(authority.chain if authority is not None else ())]
    contents = {request.path: [certificate]}
    if request.fullchain_path is not None:
        if os.path.realpath(request.fullchain_path) == os.path.realpath(request.path):
            contents[request.path] = chain
        else:
            contents[request.fullchain_path] = chain
    return contents


def _holds(path: str, certificates: Sequence[Any], *, exactly: bool) -> bool:
    content = _files.read_if_there(path)
    if content is None:
        return False
    try:
        there = load_certificates(content)
    except ValueError:
        return False
    return there == list(certificates) if exactly else certificates[0] in there


def _stale_files(request: Request, certificate: Any, authority: Authority | None) -> list[str]:
    """Return the files whose content, mode or owner is not right, apart from a new certificate or key."""
    stale = []
    if certificate is not None:
        contents = _file_contents(request, certificate, authority)
        for path, certificates in contents.items():
            exactly = request.fullchain_path is not None and (path != request.path or len(contents) == 1)
            if not _holds(path, certificates, exactly=exactly):
                stale.append(path)
    pairs = [(request.path, request.attributes, request.unknown_attributes)]
    if request.fullchain_path is not None:
        pairs.append((request.fullchain_path, request.attributes, request.unknown_attributes))
    pairs.append((request.privatekey_path, request.privatekey_attributes, request.privatekey_unknown_attributes))
    for path, attributes, unknown in pairs:
        if path not in stale and os.path.exists(path) and (unknown or _files.differing_attributes(path, attributes)):
            stale.append(path)
    return stale


def _write(
    request: Request, found: _Found, decision: _Decision, outcome: Outcome, certificate: Any, key: Any, authority: Authority | None
) -> None:
    """Put key, certificate and chain in place, in the order that a kill at any point can be repaired from."""
    staged = staged_path(request.privatekey_path)
    new_key = bool(decision.reasons) and key is not found.key
    if request.backup and decision.reasons:
        if os.path.exists(request.path):
            outcome.backup_file = _files.back_up(request.path)
        if new_key and os.path.exists(request.privatekey_path):
            outcome.privatekey_backup_file = _files.back_up(request.privatekey_path)
    if found.staged_key is not None:
        os.rename(staged, request.privatekey_path)
        _files.flush_directory(os.path.dirname(os.path.abspath(staged)))
    elif not new_key:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)  # of a run that ended before its certificate was in place
    if new_key:
        mode = request.privatekey_attributes.mode
        replaced = _files.read_attributes(request.privatekey_path)
        uid, gid = request.privatekey_attributes.uid, request.privatekey_attributes.gid
        if replaced is not None and os.geteuid() == 0:
            uid, gid = (replaced.uid if uid is None else uid), (replaced.gid if gid is None else gid)
        content = dump_key(key, request.own_passphrase)
        _files.write_atomically(staged, content, mode=0o600 if mode is None else mode, uid=uid, gid=gid)

    mode = 0o644 if request.attributes.mode is None else request.attributes.mode
    contents = _file_contents(request, certificate, authority)
    for path, certificates in contents.items():
        exactly = request.fullchain_path is not None and (path != request.path or len(contents) == 1)
        if not _holds(path, certificates, exactly=exactly):
            content = dump_certificates(certificates)
            _files.write_atomically(path, content, mode=mode, uid=request.attributes.uid, gid=request.attributes.gid)
            outcome.changed = True
        elif _files.differing_attributes(path, request.attributes):
            _files.apply_attributes(path, request.attributes)
            outcome.changed = True
        if path == request.path and new_key:
            os.rename(staged, request.privatekey_path)
            _files.flush_directory(os.path.dirname(os.path.abspath(staged)))
    if _files.differing_attributes(request.privatekey_path, request.privatekey_attributes):
        _files.apply_attributes(request.privatekey_path, request.privatekey_attributes)
        outcome.changed = True


def _summary(certificate: Any, key: Any, incomplete: bool) -> str:
    if certificate is None:
        return ""
    lines = [
        f"subject: {certificate.subject.rfc4514_string()}",
        f"names: {', '.join(sorted(show_names(names_of(certificate))))}",
        f"issuer: {certificate.issuer.rfc4514_string()}",
        f"valid until: {not_after(certificate).date()}",
        f"key: {describe_key(certificate.public_key())}",
    ]
    if incomplete:
        lines.append("private key: not yet in place")
    elif key is None:
        lines.append("private key: missing")
    return "".join(f"{line}\n" for line in lines)


def _predict(request: Request, names: Sequence[tuple[str, str]], authority: Authority | None, now: datetime.datetime) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request.common_name)])
    issuer = subject.rfc4514_string()
    if authority is not None:
        issuer = authority.certificate.subject.rfc4514_string()
    elif request.ca_path is not None:
        issuer = f"(the CA to be made at {request.ca_path})"
    lines = [
        f"subject: {subject.rfc4514_string()}",
        f"names: {', '.join(sorted(show_names(names)))}",
        f"issuer: {issuer}",
        f"valid until: {_validity(request.days, authority, now)[1].date()}",
        f"key: {_wanted_key(request)}",
    ]
    return "".join(f"{line}\n" for line in lines)
