# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trust in CAs: certificates are read as cryptography reads them, files of others stay, ours go exactly."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _ca_trust as ca_trust

x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

KEY = ec.generate_private_key(ec.SECP256R1())
ANCHORS = "/usr/local/share/ca-certificates"
EVERY_CLIENT = ("system", "docker", "containerd", "containers", "java")


def certificate(
    name="Test CA",
    oid=NameOID.COMMON_NAME,
    ca=True,
    start=datetime.datetime(2026, 1, 1),
    end=datetime.datetime(2036, 1, 1),
    extensions=True,
):
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(oid, name)])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), x509.random_serial_number(), start, end)
    if extensions:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example.com")]), False)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), True)
    return builder.sign(KEY, hashes.SHA256())


def pem(*certificates):
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


FIRST, SECOND = certificate("First CA"), certificate("Second CA")


def test_a_certificate_is_read_as_cryptography_reads_it():
    (found,) = ca_trust.read_certificates(["a comment\n" + pem(FIRST)])
    assert found.fingerprint == FIRST.fingerprint(hashes.SHA256()).hex()
    assert found.pem == pem(FIRST)
    assert found.subject == "First CA"
    assert found.is_ca
    assert (found.not_before.replace(tzinfo=None), found.not_after.replace(tzinfo=None)) == (
        datetime.datetime(2026, 1, 1),
        datetime.datetime(2036, 1, 1),
    )


@pytest.mark.parametrize(
    ("made", "subject", "is_ca"),
    [
        (certificate("Wörld Ltd", oid=NameOID.ORGANIZATION_NAME), "Wörld Ltd", True),
        (certificate("leaf", ca=False), "leaf", False),
        (certificate("old", extensions=False), "old", False),
        (certificate("far", end=datetime.datetime(2060, 1, 1)), "far", True),
    ],
)
def test_other_kinds_of_certificates(made, subject, is_ca):
    (found,) = ca_trust.read_certificates([pem(made)])
    assert (found.subject, found.is_ca) == (subject, is_ca)
    assert found.not_after.year == made.not_valid_after.year if not hasattr(made, "not_valid_after_utc") else made.not_valid_after_utc.year


def test_several_certificates_each_once_in_their_order():
    found = ca_trust.read_certificates([pem(SECOND, FIRST), pem(FIRST)])
    assert [one.subject for one in found] == ["Second CA", "First CA"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "cannot be read"),
        (pem(FIRST)[:200] + "\n-----END CERTIFICATE-----", "cannot be read"),
        (
            KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
            + pem(FIRST),
            "private key",
        ),
    ],
)
def test_what_is_no_certificate_is_refused_by_its_number(text, message):
    with pytest.raises(ca_trust.TrustRefused, match=f"entry 2.*{message}"):
        ca_trust.read_certificates([pem(SECOND), text])


@given(der=st.binary(max_size=200))
def test_rubbish_never_raises_anything_but_what_is_caught(der):
    with pytest.raises((ValueError, IndexError)):
        ca_trust.read_der(der)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("registry.example.com", ["registry.example.com", "registry.example.com:443"]),
        ("Registry.example.com:443", ["registry.example.com", "registry.example.com:443"]),
        ("registry.example.com:5000", ["registry.example.com:5000"]),
        ("192.0.2.1:5000", ["192.0.2.1:5000"]),
        ("[2001:db8::1]:5000", ["[2001:db8::1]:5000"]),
        ("[2001:db8::1]", ["[2001:db8::1]", "[2001:db8::1]:443"]),
    ],
)
def test_names_under_which_clients_look(text, names):
    assert ca_trust.read_registry(text).names == names


@pytest.mark.parametrize(
    "text",
    ["https://registry.example.com", "registry.example.com/x", "", "a b", "registry:0", "registry:99999", "../etc", "2001:db8::1", "-x"],
)
def test_names_that_are_none(text):
    with pytest.raises(ca_trust.TrustRefused, match=r"registry\.example\.com:5000"):
        ca_trust.read_registry(text)


def wanted(texts, registries=("registry.example.com",), clients=EVERY_CLIENT, bundle="/etc/wharf/ca-bundle.pem"):
    return ca_trust.wanted_files(
        ca_trust.read_certificates(texts), [ca_trust.read_registry(name) for name in registries], clients, ANCHORS, ".crt", bundle
    )


class Disk:
    """Files, our record of them, and the module's way of bringing both forward."""

    def __init__(self, files=None):
        self.files = dict(files or {})
        self.record = {}

    def run(self, texts, **options):
        files = wanted(texts, **options)
        paths = {path for file in files for path in (file.path, file.aside) if path} | set(self.record)
        plan = ca_trust.plan_files(files, {path: self.files.get(path) for path in paths}, self.record)
        self.files.update(plan.write)
        for path in plan.remove:
            del self.files[path]
        self.record = plan.record
        return plan


def test_each_client_finds_all_cas_where_it_looks():
    disk = Disk()
    disk.run([pem(FIRST), pem(SECOND)])
    both = pem(FIRST) + pem(SECOND)
    for directory in ("/etc/docker/certs.d", "/etc/containers/certs.d"):
        for name in ("registry.example.com", "registry.example.com:443"):
            assert disk.files[f"{directory}/{name}/ca.crt"] == both
    place = "/etc/containerd/certs.d/registry.example.com"
    assert disk.files[f"{place}/wharf-ca.crt"] == both
    assert f'ca = ["{place}/wharf-ca.crt"]' in disk.files[f"{place}/hosts.toml"]
    assert sorted(disk.files[path] for path in disk.files if path.startswith(ANCHORS)) == sorted([pem(FIRST), pem(SECOND)])
    assert disk.files["/etc/wharf/ca-bundle.pem"] == both


def test_only_clients_that_are_asked_for():
    assert {file.client for file in wanted([pem(FIRST)], clients=("docker",), bundle="")} == {"docker"}


def test_roll_over_ends_with_the_new_ca_alone():
    disk, fresh = Disk(), Disk()
    for texts in ([pem(FIRST)], [pem(FIRST), pem(SECOND)], [pem(SECOND)]):
        assert disk.run(texts).system_changed or texts == [pem(SECOND)]
        again = disk.run(texts)
        assert not again.write
        assert not again.remove
    fresh.run([pem(SECOND)])
    assert disk.files == fresh.files


def test_a_registry_that_is_no_longer_listed_goes_and_the_others_stay():
    disk, fresh = Disk(), Disk()
    disk.run([pem(FIRST)], registries=("a.example.com:5000", "b.example.com:5000"))
    disk.run([pem(FIRST)], registries=("b.example.com:5000",))
    fresh.run([pem(FIRST)], registries=("b.example.com:5000",))
    assert disk.files == fresh.files


def test_files_of_others_stay_and_ours_go_beside_them():
    theirs = {
        "/etc/docker/certs.d/registry.example.com/ca.crt": "theirs",
        "/etc/containerd/certs.d/registry.example.com/hosts.toml": "# theirs\n",
        f"{ANCHORS}/other.crt": "theirs",
    }
    disk = Disk(theirs)
    plan = disk.run([pem(FIRST)])
    assert disk.files["/etc/docker/certs.d/registry.example.com/wharf-ca.crt"] == pem(FIRST)
    assert any("hosts.toml was not written" in warning and "wharf-ca.crt" in warning for warning in plan.warnings)
    assert not disk.run([pem(FIRST)]).write
    disk.run([])
    assert disk.files == theirs


def test_the_same_file_of_somebody_else_is_not_ours_to_remove():
    theirs = {"/etc/docker/certs.d/registry.example.com/ca.crt": pem(FIRST)}
    disk = Disk(theirs)
    disk.run([pem(FIRST)])
    disk.run([])
    assert disk.files == theirs


def test_a_hosts_toml_that_was_changed_since_stays():
    disk = Disk()
    disk.run([pem(FIRST)])
    path = "/etc/containerd/certs.d/registry.example.com/hosts.toml"
    disk.files[path] += "# a mirror\n"
    plan = disk.run([pem(FIRST), pem(SECOND)])
    assert path not in plan.write
    assert any(path in warning for warning in plan.warnings)
    plan = disk.run([])
    assert list(disk.files) == [path]
    assert any("remove it by hand" in warning for warning in plan.warnings)


def test_a_damaged_ca_file_of_ours_is_mended():
    disk = Disk()
    disk.run([pem(FIRST)])
    path = "/etc/docker/certs.d/registry.example.com/ca.crt"
    disk.files[path] = "damaged"
    disk.run([pem(FIRST)])
    assert disk.files[path] == pem(FIRST)


@given(
    runs=st.lists(
        st.tuples(
            st.lists(st.sampled_from([pem(FIRST), pem(SECOND)]), unique=True),
            st.lists(st.sampled_from(["a.example.com", "b.example.com:5000"]), unique=True),
            st.lists(st.sampled_from(EVERY_CLIENT), unique=True),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_came_before_the_last_run_decides_alone(runs):
    theirs = {"/etc/docker/certs.d/a.example.com/ca.crt": "theirs", f"{ANCHORS}/other.crt": "theirs"}
    disk, fresh = Disk(theirs), Disk(theirs)
    for texts, registries, clients in runs:
        disk.run(texts, registries=registries, clients=clients)
    texts, registries, clients = runs[-1]
    fresh.run(texts, registries=registries, clients=clients)
    assert disk.files == fresh.files
    disk.run([])
    assert disk.files == theirs


# ---------------------------------------------------------------------------------------------------------- containerd

VERSION_2 = 'version = 2\n\n[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/usr/lib/cni"\n'


def edited(config):
    change = ca_trust.set_config_path(config)
    if change is None:
        return config
    before, after = change
    return config.replace(before, after, 1) if before else config + after


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (VERSION_2, '[plugins."io.containerd.grpc.v1.cri".registry]'),
        ("version = 3\n", "[plugins.'io.containerd.cri.v1.images'.registry]"),
        ("# old\n", "[plugins.cri.registry]"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n[other]\n',
            '[plugins."io.containerd.grpc.v1.cri".registry]',
        ),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n[other]\n  config_path = 'x'\n",
            "[plugins.'io.containerd.cri.v1.images'.registry]",
        ),
    ],
)
def test_config_path_comes_into_the_table_of_this_version_once(config, table):
    text = edited(config)
    assert text.count(table) == 1
    section = text.split(table)[1].split("\n[")[0]
    assert 'config_path = "/etc/containerd/certs.d"' in section
    assert ca_trust.set_config_path(text) is None


def test_config_path_is_taken_back_exactly():
    before, after = ca_trust.set_config_path(VERSION_2)
    assert (VERSION_2 + after).replace(after, before, 1) == VERSION_2


@pytest.mark.parametrize("value", ["/etc/containerd/certs.d", "/etc/containerd/certs.d:/etc/docker/certs.d"])
def test_a_config_path_that_does_stays(value):
    assert ca_trust.set_config_path(f"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = '{value}'\n") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/srv/certs"\n', "config_path is /srv/certs"),
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = []\n', "cannot be together"),
    ],
)
def test_what_excludes_config_path_is_named(config, message):
    with pytest.raises(ca_trust.TrustRefused, match=message):
        ca_trust.set_config_path(config)


def test_cri_is_off_beside_docker():
    assert ca_trust.cri_disabled('disabled_plugins = ["cri"]\n')
    assert ca_trust.cri_disabled("version = 3\ndisabled_plugins = [\n  'io.containerd.grpc.v1.cri',\n]\n")
    assert not ca_trust.cri_disabled('#disabled_plugins = ["cri"]\ndisabled_plugins = []\n')


# ------------------------------------------------------------------------------------------------------ Java, answers


def test_entries_of_a_key_store():
    colons = ":".join(["1C"] * 32)
    listing = f"Keystore type: JKS\n\nwharf-1c, Nov 24, 2026, trustedCertEntry, \nCertificate fingerprint (SHA-256): {colons}\n"
    assert ca_trust.keystore_fingerprints(listing) == {"1c" * 32: "wharf-1c"}


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ("Error response from daemon: Get https://r/v2/: x509: certificate signed by unknown authority", "untrusted"),
        ("tls: failed to verify certificate: x509: certificate is valid for a, not b", "untrusted"),
        ("curl: (60) SSL certificate problem: unable to get local issuer certificate", "untrusted"),
        ("javax.net.ssl.SSLHandshakeException: PKIX path building failed", "untrusted"),
        ("javax.net.ssl.SSLHandshakeException: No subject alternative names matching IP address 192.0.2.1 found", "untrusted"),
        ("javax.net.ssl.SSLHandshakeException: No name matching r found", "untrusted"),
        ("Error response from daemon: manifest for r/wharf/ca-trust-probe:none not found: manifest unknown", "trusted"),
        ("unauthorized: authentication required", "trusted"),
        ('Head "https://r/v2/": no basic auth credentials', "trusted"),
        ("curl: (22) The requested URL returned error: 401", "trusted"),
        ("keytool error: java.io.FileNotFoundException: https://r:443/v2/wharf/ca-trust-probe:none", "trusted"),
        ("keytool error: java.io.IOException: Server returned HTTP response code: 401 for URL: https://r:443/v2/", "trusted"),
        ("keytool error: java.security.cert.CRLException: No CRL data found", "trusted"),
        ("keytool error: java.net.ConnectException: Connection refused", "unreachable"),
        ("dial tcp 192.0.2.1:443: connect: connection refused", "unreachable"),
        ("dial tcp: lookup r: no such host", "unreachable"),
        ("net/http: TLS handshake timeout", "unreachable"),
        ("http: server gave HTTP response to HTTPS client", "unreachable"),
        ("something else", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_clients_say_of_tls(answer, result):
    assert ca_trust.judge(answer) == result
