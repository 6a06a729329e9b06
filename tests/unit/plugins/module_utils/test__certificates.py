# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: every refusal, every reason to issue again and no other, roll-over, interrupted runs."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _certificates, _files

x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import serialization  # noqa: E402

NOW = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 (runs on Python 3.8, too)
DAY = datetime.timedelta(days=1)


class Place:
    """A folder with a CA and a server's certificate, in which only the options of interest are named."""

    def __init__(self, folder):
        self.folder = folder

    def __getattr__(self, name):
        return str(self.folder / name.replace("_", "."))

    def request(self, name="server", **options):
        wanted = {
            "path": str(self.folder / f"{name}.crt"),
            "privatekey_path": str(self.folder / f"{name}.key"),
            "common_name": "registry.example.com",
            "key_type": "ecdsa",
            "attributes": _files.Attributes(0o644),
            "privatekey_attributes": _files.Attributes(0o600),
        }
        return _certificates.Request(**{**wanted, **options})

    def run(self, name="server", check=False, now=NOW, **options):
        return _certificates.manage(self.request(name, **options), check=check, now=now)

    def ca(self, name="ca", **options):
        return self.run(name, **{"usage": "ca", "common_name": "Example CA", **options})

    def signed(self, ca="ca", **options):
        files = {"ca_path": str(self.folder / f"{ca}.crt"), "ca_privatekey_path": str(self.folder / f"{ca}.key")}
        return self.run(**{**files, **options})

    def certificate(self, name="server"):
        return _certificates.load_certificates((self.folder / f"{name}.crt").read_bytes())[0]

    def key(self, name="server"):
        return _certificates.load_key((self.folder / f"{name}.key").read_bytes())

    def state(self):
        return {path.name: (path.read_bytes(), path.stat().st_mode) for path in self.folder.iterdir() if path.is_file()}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def mode_of(path):
    return os.stat(path).st_mode & 0o777


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("registry.example.com", ("DNS", "registry.example.com")),
        ("Registry.Example.COM.", ("DNS", "registry.example.com")),
        ("*.example.com", ("DNS", "*.example.com")),
        ("node_1", ("DNS", "node_1")),
        ("DNS:a.b", ("DNS", "a.b")),
        ("dns:a.b", ("DNS", "a.b")),
        ("192.0.2.10", ("IP", "192.0.2.10")),
        ("IP:192.0.2.10", ("IP", "192.0.2.10")),
        ("2001:DB8:0::10", ("IP", "2001:db8::10")),
        ("IP:::1", ("IP", "::1")),
        ("bücher.example", ("DNS", "xn--bcher-kva.example")),
    ],
)
def test_kinds_of_names_are_recognised(text, name):
    assert _certificates.parse_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "-a.example", "a-.example", "a..b", ".a", "*", "a.*.b", "*a.example", "10.0.0.256", "10.0.0.0/24", "1.2.3"),
        *(
            "http://a.example",
            "a.example:5000",
            "DNS:10.0.0.1",
            "DNS:",
            "IP:a.example",
            "IP:",
            "email:a@b",
            "a@b",
            "x" * 64,
            "a." * 130 + "a",
        ),
        *("::1%eth0", "[::1]", "a\nb", "a\0b"),
    ],
)
def test_what_is_neither_name_nor_address_is_refused(place, text):
    with pytest.raises(
        _certificates.CertificateRefused, match="subject_alt_names: .*(neither a DNS name nor an IP address|no DNS name|no IP)"
    ):
        place.run(subject_alt_names=["fine.example.com", text])
    assert place.state() == {}


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"common_name": ""}, "common_name: is empty"),
        ({"common_name": "x" * 65}, "common_name: is 65 characters long, X.509 allows 64"),
        ({"common_name": "no host name"}, "common_name: 'no host name' is neither a DNS name nor an IP address"),
        ({"common_name": "a\nb"}, "common_name"),
        ({"key_type": "rsa", "key_size": 2047}, "key_size: 2047 .* at least 2048"),
        ({"key_type": "rsa", "key_size": 1024}, "key_size"),
        ({"valid_days": 0}, "valid_days: 0 is not between 1 and"),
        ({"valid_days": -1}, "valid_days: -1"),
        ({"valid_days": 4000000}, "valid_days"),
        ({"renew_before_days": -1}, "renew_before_days: -1 is negative"),
        ({"valid_days": 30}, r"renew_before_days: 30 is not less than valid_days \(30\)"),
        ({"valid_days": 90, "renew_before_days": 91}, "renew_before_days: 91 is not less than"),
        ({"ca_path": "/ca.crt"}, "ca_path and ca_privatekey_path: give both"),
        ({"ca_privatekey_passphrase": "x"}, "ca_privatekey_passphrase: there is no CA key"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_bad_options_are_refused_and_nothing_changes(place, options, message, check, there):
    if there:
        place.run()
    before = place.state()
    with pytest.raises(_certificates.CertificateRefused, match=message):
        place.run(check=check, force=True, **options)
    assert place.state() == before


def test_files_that_would_overwrite_each_other_are_refused(place):
    for options in (
        {"privatekey_path": place.server_crt},
        {"fullchain_path": place.server_key},
        {"ca_path": place.server_crt, "ca_privatekey_path": place.ca_key},
        {"ca_path": place.ca_crt, "ca_privatekey_path": place.server_key},
    ):
        with pytest.raises(_certificates.CertificateRefused, match="give each file a path of its own"):
            place.run(**options)
    assert place.state() == {}


def test_links_and_missing_directories_are_refused(place):
    (place.folder / "link.crt").symlink_to("server.crt")
    with pytest.raises(_files.FileRefused, match="path: .*symbolic link"):
        place.run(path=place.link_crt)
    with pytest.raises(_files.FileRefused, match="privatekey_path: the directory .* does not exist"):
        place.run(privatekey_path=str(place.folder / "nowhere/key"))
    assert place.state() == {}
    assert place.run(privatekey_path=str(place.folder / "nowhere/key"), check=True).reasons == ["absent"]


def test_a_ca_that_cannot_sign_is_refused(place):
    place.ca()
    place.ca("other")
    place.run("leaf")
    shutil.copy(place.ca_key, place.copy_key)
    (place.folder / "broken.crt").write_text("nonsense")
    encrypted = place.key("ca").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"open sesame")
    )
    (place.folder / "locked.key").write_bytes(encrypted)
    before = place.state()
    for certificate, key, passphrase, message in (
        ("none", "ca", None, "ca_path: .* does not exist; make the CA first"),
        ("ca", "none", None, "ca_privatekey_path: .* does not exist"),
        ("ca", "other", None, "ca_privatekey_path: .* is not the private key of"),
        ("leaf", "leaf", None, "ca_path: .* is no CA certificate"),
        ("broken", "ca", None, "ca_path: .* cannot be read"),
        ("ca", "broken", None, "ca_privatekey_path: "),
        ("ca", "locked", None, "ca_privatekey_path: .* is encrypted; give its passphrase"),
        ("ca", "locked", "wrong", "ca_privatekey_passphrase: it does not open"),
        ("ca", "ca", "needless", "ca_privatekey_passphrase: .* is not encrypted"),
    ):
        options = {"ca_path": str(place.folder / f"{certificate}.crt"), "ca_privatekey_path": str(place.folder / f"{key}.key")}
        with pytest.raises(_certificates.CertificateRefused, match=message):
            place.run(ca_privatekey_passphrase=passphrase, **options)
    with pytest.raises(_certificates.CertificateRefused, match="path length is 0"):
        place.signed(name="intermediate", usage="ca", common_name="Intermediate")
    with pytest.raises(_certificates.CertificateRefused, match="ca_path: .* expired at .* roll over"):
        place.signed(now=NOW + 3651 * DAY)
    with pytest.raises(_certificates.CertificateRefused, match="is not valid before"):
        place.signed(now=NOW - DAY)
    assert place.state() == before
    assert place.signed(ca_privatekey_path=place.locked_key, ca_privatekey_passphrase="open sesame").reasons == ["absent"]


def test_an_encrypted_server_key_is_never_overwritten(place):
    place.run()
    locked = place.key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"open sesame")
    )
    (place.folder / "server.key").write_bytes(locked)
    before = place.state()
    for options in ({}, {"force": True}, {"key_type": "rsa"}):
        with pytest.raises(_certificates.CertificateRefused, match="privatekey_path: .* is encrypted"):
            place.run(**options)
    assert place.state() == before


# ------------------------------------------------------------------------------------------------------------- profile


def test_the_defaults_make_a_self_signed_server_certificate(place):
    defaults = {field.name: field.default for field in dataclasses.fields(_certificates.Request)}
    assert (defaults["key_type"], defaults["key_size"], defaults["usage"], defaults["renew_before_days"]) == ("rsa", 4096, "server", 30)
    outcome = place.run(key_type="rsa")
    assert outcome.certificate["subject"] == outcome.certificate["issuer"] == "CN=registry.example.com"
    assert outcome.certificate["subject_alt_names"] == ["DNS:registry.example.com"]
    assert outcome.certificate["days_left"] in (364, 365)
    assert place.key().key_size == 4096
    assert (mode_of(place.server_crt), mode_of(place.server_key)) == (0o644, 0o600)
    assert sorted(os.listdir(place.folder)) == ["server.crt", "server.key"]


def test_extensions(place):
    place.ca()
    place.signed(subject_alt_names=["192.0.2.1", "*.example.com"])
    place.signed(name="client", usage="client", common_name="ci")
    place.signed(name="rsa", key_type="rsa", key_size=2048)
    ca, server, client = (place.certificate(name) for name in ("ca", "server", "client"))

    def extension(certificate, kind):
        found = certificate.extensions.get_extension_for_class(kind)
        return found.value, found.critical

    for certificate, constraints in ((ca, (True, 0)), (server, (False, None)), (client, (False, None))):
        value, critical = extension(certificate, x509.BasicConstraints)
        assert ((value.ca, value.path_length), critical) == (constraints, True)
        assert 0 < certificate.serial_number < 2**159
        value = extension(certificate, x509.AuthorityKeyIdentifier)[0]
        assert value.key_identifier == extension(ca, x509.SubjectKeyIdentifier)[0].digest
        extension(certificate, x509.SubjectKeyIdentifier)
        assert NOW - 2 * _certificates.CLOCK_SKEW < _certificates.not_before(certificate) < NOW
    usage, critical = extension(ca, x509.KeyUsage)
    assert critical and usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    usage, critical = extension(server, x509.KeyUsage)
    assert critical and usage.digital_signature and not usage.key_encipherment and not usage.key_cert_sign
    assert extension(place.certificate("rsa"), x509.KeyUsage)[0].key_encipherment
    assert [purpose._name for purpose in extension(server, x509.ExtendedKeyUsage)[0]] == ["serverAuth"]
    assert [purpose._name for purpose in extension(client, x509.ExtendedKeyUsage)[0]] == ["clientAuth"]
    assert _certificates.names_of(server) == [("DNS", "registry.example.com"), ("IP", "192.0.2.1"), ("DNS", "*.example.com")]
    assert _certificates.names_of(client) == [("DNS", "ci")]


@pytest.mark.parametrize(
    "key", [{"key_type": "rsa", "key_size": 2048}, {"curve": "secp384r1"}, {"curve": "secp521r1"}, {"key_type": "ed25519"}]
)
@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_accepts_every_kind_strictly(place, key):
    place.ca(**key)
    place.signed(fullchain_path=place.server_crt, subject_alt_names=["::1"], **key)
    place.run("self", **key)
    for authority, name in (("ca", "server"), ("self", "self"), ("ca", "ca")):
        command = ["openssl", "verify", "-x509_strict", "-purpose", "any" if name == "ca" else "sslserver"]
        subprocess.run([*command, "-CAfile", f"{place.folder}/{authority}.crt", f"{place.folder}/{name}.crt"], check=True)
    assert _certificates.belongs_to(place.certificate(), place.key())


# ---------------------------------------------------------------------------------------------------- reasons to renew


def test_the_second_run_changes_nothing(place):
    place.ca()
    options = {"subject_alt_names": ["b.example.com", "10.0.0.1", "::1"], "fullchain_path": place.chain_crt}
    predicted = place.signed(check=True, **options)
    assert predicted.reasons == ["absent"] and predicted.certificate == {}
    first = place.signed(**options)
    assert (first.changed, first.reasons, first.after) == (True, ["absent"], predicted.after)
    state = place.state()
    same = {**options, "subject_alt_names": ["IP:0:0:0:0:0:0:0:1", "DNS:B.example.com", "10.0.0.1", "10.0.0.1"]}
    for again in (place.signed(**options), place.signed(**same), place.signed(valid_days=90, **options), place.signed(check=True, **same)):
        assert (again.changed, again.reasons, again.warnings) == (False, [], [])
        assert again.certificate == first.certificate
    assert place.state() == state
    assert not place.ca().changed


def change_names(place):
    return {"subject_alt_names": ["other.example.com"]}


def break_certificate(place):
    (place.folder / "server.crt").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    return {}


def empty_certificate(place):
    (place.folder / "server.crt").write_text("")
    return {}


def swap_key(place):
    place.run("other")
    shutil.copy(place.other_key, place.server_key)
    return {}


def swap_ca(place):
    place.ca("next", common_name="Next CA")
    return {"ca": "next"}


def swap_ca_of_the_same_name(place):
    place.ca("next")
    return {"ca": "next"}


@pytest.mark.parametrize(
    ("cause", "reasons", "keeps_key"),
    [
        (change_names, ["names"], True),
        (lambda place: {"common_name": "other.example.com", "subject_alt_names": ["registry.example.com"]}, ["names"], True),
        (lambda place: {"now": NOW + 336 * DAY}, ["expiring"], True),
        (lambda place: {"now": NOW + 366 * DAY}, ["expired"], True),
        (lambda place: {"now": NOW + 336 * DAY, "new_key_on_renewal": True}, ["expiring"], False),
        (lambda place: {"usage": "client"}, ["usage"], True),
        (lambda place: {"curve": "secp384r1"}, ["key_type"], False),
        (lambda place: {"key_type": "ed25519"}, ["key_type"], False),
        (lambda place: {"force": True}, ["forced"], True),
        (lambda place: {"force": True, "new_key_on_renewal": True}, ["forced"], False),
        (break_certificate, ["broken"], True),
        (empty_certificate, ["broken"], True),
        (lambda place: os.unlink(place.server_crt) or {}, ["absent"], True),
        (lambda place: os.unlink(place.server_key) or {}, ["key_absent"], False),
        (lambda place: (place.folder / "server.key").write_text("x") and {}, ["key_broken"], False),
        (swap_key, ["key_mismatch"], True),
        (swap_ca, ["issuer"], True),
        (swap_ca_of_the_same_name, ["issuer"], True),
    ],
)
def test_each_reason(place, cause, reasons, keeps_key):
    place.ca()
    place.signed()
    options = cause(place)
    before = place.state()
    predicted = place.signed(check=True, **options)
    assert (predicted.changed, predicted.reasons, place.state()) == (True, reasons, before)
    outcome = place.signed(**options)
    assert (outcome.changed, outcome.reasons) == (True, reasons)
    assert (place.state()["server.key"] == before.get("server.key")) == keeps_key
    assert _certificates.belongs_to(place.certificate(), place.key())
    options["force"] = False
    assert not place.signed(**options).changed
    assert set(place.state()) == set(before) | {"server.crt", "server.key"}


def test_nothing_else_is_a_reason(place):
    place.ca()
    place.signed()
    for options in ({"valid_days": 700}, {"new_key_on_renewal": True}, {"backup": True}, {"now": NOW + 334 * DAY}, {"key_size": 2048}):
        assert not place.signed(**options).changed


def test_certificates_end_with_their_ca(place):
    place.ca(valid_days=100)
    outcome = place.signed()
    assert _certificates.not_after(place.certificate()) == _certificates.not_after(place.certificate("ca"))
    assert "until" in outcome.warnings[0] and "its CA" in outcome.warnings[0]
    late = place.signed(now=NOW + 80 * DAY)
    assert not late.changed, "issuing it again would not make it last longer"
    assert "roll over" in late.warnings[0]


def test_a_ca_is_never_replaced_silently(place):
    place.ca()
    before = place.state()
    for options in (
        {"common_name": "Other CA"},
        {"curve": "secp384r1"},
        {"now": NOW + 3651 * DAY},
        {"new_key_on_renewal": True, "common_name": "x"},
    ):
        for check in (True, False):
            with pytest.raises(_certificates.CertificateRefused, match="would have to be replaced .* force: true"):
                place.ca(check=check, **options)
    late = place.ca(now=NOW + 3640 * DAY)
    assert not late.changed and "roll over" in late.warnings[0]
    (place.folder / "ca.key").unlink()
    with pytest.raises(_certificates.CertificateRefused, match="key_absent"):
        place.ca()
    assert place.state() == {"ca.crt": before["ca.crt"]}
    assert place.ca(common_name="Other CA", force=True).reasons == ["names", "key_absent", "forced"]


def test_a_forced_ca_with_its_old_key_still_verifies_its_servers(place):
    place.ca()
    place.signed(fullchain_path=place.chain_crt)
    place.ca(force=True)
    outcome = place.signed(fullchain_path=place.chain_crt)
    assert (outcome.changed, outcome.reasons) == (True, []), "only the chain is written anew"
    assert _certificates.load_certificates((place.folder / "chain.crt").read_bytes())[1] == place.certificate("ca")


def test_a_ca_may_have_a_passphrase(place):
    place.ca(ca_privatekey_passphrase="open sesame")
    assert "ENCRYPTED" in (place.folder / "ca.key").read_text()
    assert not place.ca(ca_privatekey_passphrase="open sesame").changed
    with pytest.raises(_certificates.CertificateRefused, match="is encrypted"):
        place.ca()
    with pytest.raises(_certificates.CertificateRefused, match="does not open"):
        place.ca(ca_privatekey_passphrase="wrong", force=True)
    assert place.signed(ca_privatekey_passphrase="open sesame").reasons == ["absent"]


def test_chain_backup_and_attributes(place):
    place.ca()
    place.signed(fullchain_path=place.server_crt)
    assert [certificate.subject for certificate in _certificates.load_certificates((place.folder / "server.crt").read_bytes())] == [
        place.certificate().subject,
        place.certificate("ca").subject,
    ]
    old = place.state()
    outcome = place.signed(fullchain_path=place.server_crt, curve="secp384r1", backup=True)
    with open(outcome.backup_file, "rb") as certificate, open(outcome.privatekey_backup_file, "rb") as key:
        assert (certificate.read(), key.read()) == (old["server.crt"][0], old["server.key"][0])
    assert mode_of(outcome.privatekey_backup_file) == 0o600
    attributes = {"attributes": _files.Attributes(0o640), "privatekey_attributes": _files.Attributes(0o640)}
    content = place.state()
    assert place.signed(check=True, fullchain_path=place.server_crt, curve="secp384r1", **attributes).changed
    outcome = place.signed(fullchain_path=place.server_crt, curve="secp384r1", **attributes)
    assert (outcome.changed, outcome.reasons) == (True, [])
    assert (mode_of(place.server_crt), mode_of(place.server_key)) == (0o640, 0o640)
    assert {name: data for name, (data, _mode) in place.state().items()} == {name: data for name, (data, _mode) in content.items()}


# ----------------------------------------------------------------------------------------------------------- roll-over


def test_roll_over(place):
    """Two CAs in one file are trusted; the one whose key is there signs; in the end the old one is taken out."""
    place.ca()
    place.signed()
    old = place.certificate("ca")
    place.ca("next", common_name="Example CA 2")
    new = place.certificate("next")

    (place.folder / "ca.crt").write_bytes(_certificates.dump_certificates([old, new]))
    assert not place.signed().changed, "the old key still signs"
    assert not place.ca().changed

    os.replace(place.next_key, place.ca_key)
    outcome = place.signed(fullchain_path=place.chain_crt)
    assert outcome.reasons == ["issuer"]
    assert _certificates.signed_by(place.certificate(), new) and not _certificates.signed_by(place.certificate(), old)
    assert _certificates.load_certificates((place.folder / "chain.crt").read_bytes()) == [place.certificate(), new]
    assert not place.ca(common_name="Example CA 2").changed

    (place.folder / "ca.crt").write_bytes(_certificates.dump_certificates([new]))
    assert not place.signed(fullchain_path=place.chain_crt).changed


def test_the_chain_leads_to_the_root(place):
    root_key = _certificates.make_key("ecdsa", 0, "secp256r1")
    middle_key = _certificates.make_key("ecdsa", 0, "secp256r1")
    names = {"names": [], "usage": "ca", "days": 400, "now": NOW}
    root = _certificates.issue(common_name="Root", key=root_key, authority=None, **names)
    middle = _certificates.issue(common_name="Middle", key=middle_key, authority=_certificates.Authority(root, root_key), **names)
    place.ca("stranger")
    content = _certificates.dump_certificates([place.certificate("stranger"), root, middle])
    (place.folder / "ca.crt").write_bytes(content)
    (place.folder / "ca.key").write_bytes(_certificates.dump_key(middle_key))
    place.signed(fullchain_path=place.server_crt)
    assert _certificates.load_certificates((place.folder / "server.crt").read_bytes())[1:] == [middle, root]


# ---------------------------------------------------------------------------------------------------- interrupted runs


class Killed(BaseException):
    """Ends a run where a kill -9 would."""


def kill_after(steps, patch):
    """Let *steps* system calls through; what a kill would not undo is not undone here either."""
    remaining = [steps]

    def count(function):
        def wrapper(*arguments, **keywords):
            remaining[0] -= 1
            if remaining[0] < 0:
                raise Killed
            return function(*arguments, **keywords)

        return wrapper

    for name in ("open", "write", "fsync", "fchmod", "fchown", "rename"):
        patch.setattr(os, name, count(getattr(os, name)))
    patch.setattr(os, "unlink", lambda path: None)


@pytest.mark.parametrize("usage", ["server", "ca"])
def test_a_run_that_ends_at_any_step_is_completed_by_the_next(place, monkeypatch, usage):
    """Whatever step is the last one: all files are whole, and the next run leaves a pair."""
    options = {"usage": usage, "common_name": "registry.example.com"}
    forced = {**options, "force": True, "new_key_on_renewal": True}
    place.run(**options)
    steps = 0
    while True:
        with monkeypatch.context() as patch:
            kill_after(steps, patch)
            try:
                place.run(**forced)
                finished = True
            except Killed:
                finished = False
        certificate = place.certificate()
        key = place.key()
        repaired = place.run(**options)
        assert repaired.reasons == [], f"after step {steps} nothing is issued again"
        assert place.certificate() == certificate
        assert _certificates.belongs_to(certificate, place.key())
        assert repaired.changed == (not _certificates.belongs_to(certificate, key))
        assert sorted(os.listdir(place.folder)) == ["server.crt", "server.key"]
        if finished:
            break
        steps += 1
    assert steps > 12


def test_a_staged_key_of_a_run_that_never_got_to_its_certificate_is_dropped(place):
    place.run()
    state = place.state()
    place.run("other")
    shutil.move(place.other_key, _certificates.staged_path(place.server_key))
    os.unlink(place.other_crt)
    assert not place.run().changed
    assert place.state() == state


def test_without_the_library_a_bare_host_can_be_checked(place, monkeypatch):
    monkeypatch.setattr(_certificates, "HAS_CRYPTOGRAPHY", False)
    assert place.run(check=True).reasons == ["absent"]
    with pytest.raises(_certificates.CryptographyMissing, match="python3-cryptography"):
        place.run()


def test_a_ca_that_check_mode_has_not_made_is_no_error(place):
    outcome = place.signed(check=True)
    assert outcome.reasons == ["absent"] and "to be made" in outcome.after
    place.run()
    assert place.signed(check=True).reasons == ["issuer"]


# ---------------------------------------------------------------------------------------------------------- properties

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
hosts = st.builds(".".join, st.lists(labels, min_size=1, max_size=4))
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(st.lists(st.one_of(hosts, hosts.map("*.{}".format), addresses), max_size=6), hosts)
def test_names_are_the_same_in_any_order_and_spelling(names, common_name):
    wanted = _certificates.wanted_names(common_name, names, "server")
    spelled = _certificates.wanted_names(common_name.upper(), [name.upper() for name in reversed(names)], "server")
    assert set(wanted) == set(spelled)
    assert wanted[0] == ("DNS", common_name) and len(set(wanted)) == len(wanted)
    assert _certificates.wanted_names(common_name, _certificates.show_names(wanted), "server") == wanted


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_refused(text):
    try:
        kind, value = _certificates.parse_name(text)
    except _certificates.CertificateRefused:
        return
    assert kind in ("DNS", "IP") and value.isascii()
    assert _certificates.parse_name(value) == (kind, value)
