#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: a certificate with its private key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: selfsigned_cert
short_description: A CA, or a certificate signed by it or by itself
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Makes a private key and a certificate in one task, and issues the certificate again before it expires.
  - With nothing but O(path), O(privatekey_path) and O(common_name) it makes a self-signed certificate for a server, with RSA
    4096, valid for 365 days.
  - With O(usage=ca) it makes a CA. With O(ca_path) and O(ca_privatekey_path) that CA signs.
  - The certificates pass the strict checks of OpenSSL, Go, curl and Java.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  idempotent:
    support: partial
    details:
      - With O(force=true) each run issues the certificate again.
options:
  path:
    description:
      - The certificate, in PEM form. Its directory must exist.
      - With O(usage=ca) the file may hold other CAs too, as during a roll-over. The CA is then the certificate that belongs to
        the private key.
    type: path
    required: true
  privatekey_path:
    description:
      - The private key, as PKCS#8 in PEM form. Its directory must exist.
      - A new key is first written beside it as C(.<name>.next), and takes its place right after the certificate.
    type: path
    required: true
  common_name:
    description:
      - The common name of the subject, at most 64 characters.
      - For a server it must be a DNS name or an IP address. It becomes one of the subject alternative names.
    type: str
    required: true
  subject_alt_names:
    description:
      - DNS names, wildcards (C(*.example.com)), IPv4 and IPv6 addresses. Clients look at nothing else.
      - The kind is recognised. The prefixes C(DNS:) and C(IP:) are accepted. The order makes no difference.
    type: list
    elements: str
  usage:
    description: What the certificate is for.
    type: str
    choices: [ca, server, client]
    default: server
  ca_path:
    description:
      - The certificate of the CA that signs. Without it the certificate signs itself.
      - If the file holds several certificates, the one that belongs to O(ca_privatekey_path) signs.
    type: path
  ca_privatekey_path:
    description: The private key of O(ca_path).
    type: path
  ca_privatekey_passphrase:
    description:
      - The passphrase of O(ca_privatekey_path).
      - With O(usage=ca) and without O(ca_path) it protects the CA's own new key at O(privatekey_path).
    type: str
  key_type:
    description: The kind of private key.
    type: str
    choices: [rsa, ecdsa, ed25519]
    default: rsa
  key_size:
    description: Bits of an RSA key, 2048 or more. Used with O(key_type=rsa) only.
    type: int
    default: 4096
  curve:
    description: The curve of an ECDSA key. Used with O(key_type=ecdsa) only.
    type: str
    choices: [secp256r1, secp384r1, secp521r1]
    default: secp256r1
  valid_days:
    description:
      - Days from now that a new certificate is valid. The default is 365, and 3650 for a CA.
      - A certificate never outlives its CA. Its end is cut to the CA's, and a warning says so.
      - Another value alone is no reason to issue a certificate again.
    type: int
  renew_before_days:
    description:
      - The certificate is issued again when it has this many days left, or fewer. Must be less than O(valid_days).
      - A CA is not. A warning says that it is time for a roll-over.
    type: int
    default: 30
  new_key_on_renewal:
    description:
      - Make a new private key whenever the certificate is issued again.
      - Without it the key stays, and one rename changes everything.
    type: bool
    default: false
  fullchain_path:
    description:
      - Also write the certificate followed by its CA (and, if O(ca_path) holds them, the CAs above it) to this file.
      - The same path as O(path) puts them into that file.
    type: path
  force:
    description:
      - Issue the certificate again in any case.
      - Without it, a CA that is there is never replaced, whatever differs, because every client trusts it. The task fails and
        says what differs.
    type: bool
    default: false
  backup:
    description: Keep the certificate, and the private key if it changes too, as they were, beside the new ones.
    type: bool
    default: false
  owner:
    description: Name or number of the owner of O(path) and O(fullchain_path).
    type: str
  group:
    description: Name or number of the group of O(path) and O(fullchain_path).
    type: str
  mode:
    description: Permissions of O(path) and O(fullchain_path).
    type: raw
    default: "0644"
  privatekey_owner:
    description: Name or number of the owner of the private key.
    type: str
  privatekey_group:
    description: Name or number of the group of the private key.
    type: str
  privatekey_mode:
    description: Permissions of the private key.
    type: raw
    default: "0600"
requirements:
  - The Python library cryptography, 2.8 or later (package python3-cryptography).
notes:
  - The certificate is issued again when it is absent, broken, expired or about to expire; when its names, its usage, the kind or
    size of its key, or its issuer are not as asked for; when its private key is absent, broken or another one's; and with
    O(force=true). It is issued again for no other reason.
  - Renewal keeps the private key, unless O(new_key_on_renewal=true), another kind or size is asked for, or the key is lost or
    broken.
  - Each file is replaced in one step. If the task is killed between certificate and key, the next run completes the pair and
    does nothing else.
  - An encrypted private key of a server is never overwritten. The task fails instead.
  - A CA made by this module can sign certificates, but no other CA (path length 0).
seealso:
  - module: community.crypto.x509_certificate
"""

EXAMPLES = r"""
- name: Self-signed certificate for one server
  wharf.registry.selfsigned_cert:
    path: /etc/wharf/edge/tls.crt
    privatekey_path: /etc/wharf/edge/tls.key
    common_name: registry.example.com

- name: CA of the cluster
  wharf.registry.selfsigned_cert:
    path: /etc/wharf/ca.crt
    privatekey_path: /etc/wharf/ca.key
    common_name: Example registry CA
    usage: ca
    key_type: ecdsa
    curve: secp384r1

- name: Server certificate signed by this CA, in one file with it
  wharf.registry.selfsigned_cert:
    path: /etc/wharf/registry1.crt
    fullchain_path: /etc/wharf/registry1.crt
    privatekey_path: /etc/wharf/registry1.key
    common_name: registry1.example.com
    subject_alt_names:
      - registry.example.com
      - 192.0.2.11
      - 2001:db8::11
    ca_path: /etc/wharf/ca.crt
    ca_privatekey_path: /etc/wharf/ca.key
    key_type: ecdsa
    valid_days: 90
"""

RETURN = r"""
serial:
  description: The serial number, in hexadecimal.
  returned: if a certificate is there (not in check mode when one would be issued)
  type: str
  sample: 4A7D1ED414474E4033AC29CCB8653D9B1C2D3E4F
fingerprint:
  description: The SHA-256 fingerprint.
  returned: like RV(serial)
  type: str
  sample: 7B:0E:55:64:D8:1A:C1:30:B1:3D:F1:3E:8F:29:6E:51:A2:11:BF:5D:A6:0F:A7:32:4A:FE:E4:DC:A1:93:B8:27
not_before:
  description: The beginning of the validity, in UTC.
  returned: like RV(serial)
  type: str
  sample: "2026-11-24T08:00:00Z"
not_after:
  description: The end of the validity, in UTC.
  returned: like RV(serial)
  type: str
  sample: "2027-11-24T09:00:00Z"
days_left:
  description: Whole days until the end of the validity.
  returned: like RV(serial)
  type: int
  sample: 365
subject:
  description: The subject, as in RFC 4514.
  returned: like RV(serial)
  type: str
  sample: CN=registry1.example.com
subject_alt_names:
  description: The names that clients may use.
  returned: like RV(serial)
  type: list
  elements: str
  sample: ["DNS:registry1.example.com", "IP:192.0.2.11"]
issuer:
  description: The issuer, as in RFC 4514.
  returned: like RV(serial)
  type: str
  sample: CN=Example registry CA
reasons:
  description:
    - Why the certificate was issued again. Empty if it was not.
    - V(absent), V(broken), V(expired), V(expiring), V(names), V(usage), V(issuer), V(key_absent), V(key_broken), V(key_mismatch),
      V(key_type), V(forced).
  returned: success
  type: list
  elements: str
  sample: [expiring]
backup_file:
  description: The copy of the certificate as it was.
  returned: if O(backup=true) and a certificate was replaced
  type: str
  sample: /etc/wharf/edge/tls.crt.4711.2026-11-24@10:00:00~
privatekey_backup_file:
  description: The copy of the private key as it was.
  returned: if O(backup=true) and a private key was replaced
  type: str
  sample: /etc/wharf/edge/tls.key.4711.2026-11-24@10:00:00~
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _certificates, _files


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "privatekey_path": {"type": "path", "required": True, "no_log": False},
            "common_name": {"type": "str", "required": True},
            "subject_alt_names": {"type": "list", "elements": "str"},
            "usage": {"type": "str", "choices": ["ca", "server", "client"], "default": "server"},
            "ca_path": {"type": "path"},
            "ca_privatekey_path": {"type": "path", "no_log": False},
            "ca_privatekey_passphrase": {"type": "str", "no_log": True},
            "key_type": {"type": "str", "choices": ["rsa", "ecdsa", "ed25519"], "default": "rsa", "no_log": False},
            "key_size": {"type": "int", "default": 4096, "no_log": False},
            "curve": {"type": "str", "choices": ["secp256r1", "secp384r1", "secp521r1"], "default": "secp256r1"},
            "valid_days": {"type": "int"},
            "renew_before_days": {"type": "int", "default": 30},
            "new_key_on_renewal": {"type": "bool", "default": False, "no_log": False},
            "fullchain_path": {"type": "path"},
            "force": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0644"},
            "privatekey_owner": {"type": "str", "no_log": False},
            "privatekey_group": {"type": "str", "no_log": False},
            "privatekey_mode": {"type": "raw", "default": "0600", "no_log": False},
        },
        required_together=[("ca_path", "ca_privatekey_path")],
        supports_check_mode=True,
    )
    parameters = dict(module.params)
    try:
        for prefix, path in (("", "path"), ("privatekey_", "privatekey_path")):
            attributes, unknown = _files.resolve_attributes(
                parameters[path],
                mode=parameters.pop(f"{prefix}mode"),
                owner=parameters.pop(f"{prefix}owner"),
                group=parameters.pop(f"{prefix}group"),
                prefix=prefix,
                lenient=module.check_mode,
            )
            parameters[f"{prefix}attributes"] = attributes
            parameters[f"{prefix}unknown_attributes"] = unknown
        outcome = _certificates.manage(_certificates.Request(**parameters), check=module.check_mode)
    except (_certificates.CertificateRefused, _certificates.CryptographyMissing, _files.FileRefused, OSError) as error:
        module.fail_json(msg=str(error))

    for warning in outcome.warnings:
        module.warn(warning)
    result = {
        "changed": outcome.changed,
        "reasons": outcome.reasons,
        "diff": {"before_header": parameters["path"], "after_header": parameters["path"], "before": outcome.before, "after": outcome.after},
        **outcome.certificate,
    }
    for key, copy in (("backup_file", outcome.backup_file), ("privatekey_backup_file", outcome.privatekey_backup_file)):
        if copy is not None:
            result[key] = copy
    module.exit_json(**result)


if __name__ == "__main__":
    main()
