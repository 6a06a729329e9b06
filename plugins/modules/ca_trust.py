#!/usr/bin/python

# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ca_trust
short_description: Make the container clients of a host trust a registry's CA
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Puts CA certificates into the system store (Debian and RHEL families), and for each registry into the places where Docker, containerd and
    Podman, Buildah and skopeo look; also into the key stores of Java installations that do not follow the system store. Only clients that
    are installed are served, unless O(clients) says otherwise.
  - The lists are the whole truth. What an earlier run put there for a CA or registry that is no longer listed is removed; what others put
    there is never touched. The module remembers what is its own in O(record_path).
  - Nothing is restarted. Docker, Podman and containerd read their files at each pull; programs that load the system store once must be
    restarted by whoever runs them.
extends_documentation_fragment:
  - wharf.registry._attributes
options:
  certificates:
    description: The CAs' certificates as PEM texts; each may hold several. During a roll-over list the old and the new CA.
    type: list
    elements: str
    default: []
  registries:
    description: The registries, as V(host) or V(host:port) just as images name them.
    type: list
    elements: str
    default: []
  clients:
    description:
      - Whom to serve. V(auto) means all that are installed. V(containers) stands for Podman, Buildah, skopeo and CRI-O.
      - The programs of a system that use its store (curl, Git, Python's ssl, Go programs) are served by V(system).
    type: list
    elements: str
    choices: [auto, system, docker, containerd, containers, java]
    default: [auto]
  bundle:
    description: A file with all the certificates and nothing else, for example for NODE_EXTRA_CA_CERTS. Empty for none.
    type: str
    default: /etc/wharf/ca-bundle.pem
  containerd_cri:
    description:
      - Whether containerd's CRI plugin is pointed to its directory of registries, which needs a restart of containerd (RV(containerd_restart_needed)).
      - V(auto) does so where a kubelet or crictl is installed and the plugin is not switched off. Beside Docker it is not needed.
    type: str
    choices: [auto, always, never]
    default: auto
  java_homes:
    description: Further directories of Java installations besides those in PATH and under C(/usr/lib/jvm).
    type: list
    elements: path
    default: []
  java_keystore_password:
    description: Password of Java's key stores.
    type: str
    default: changeit
  record_path:
    description: Where the module remembers what is its own.
    type: path
    default: /var/lib/wharf/ca_trust.json
"""

EXAMPLES = r"""
- name: Trust the company's registry
  wharf.registry.ca_trust:
    certificates: ["{{ lookup('ansible.builtin.file', 'ca.crt') }}"]
    registries: [registry.example.com, "registry.example.com:5000"]
  become: true

- name: Trust nothing any more that earlier runs added
  wharf.registry.ca_trust:
    certificates: []
  become: true
"""

RETURN = r"""
trust:
  description: Which client trusts which CA until when.
  returned: always
  type: list
  elements: dict
  sample:
    - client: docker
      registries: [registry.example.com]
      certificates:
        - {subject: Wharf CA, fingerprint: 0f2c…, not_after: "2036-01-31T12:00:00Z", days_left: 3650}
written:
  description: Files that were (in check mode, would be) written.
  returned: always
  type: list
  elements: str
  sample: [/etc/docker/certs.d/registry.example.com/ca.crt]
removed:
  description: Files that were removed.
  returned: always
  type: list
  elements: str
  sample: []
containerd_restart_needed:
  description: Whether containerd's own configuration changed.
  returned: always
  type: bool
  sample: false
"""

import datetime
import glob
import json
import os
import shutil

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _ca_trust as ca_trust
from ..module_utils._files import read_if_there, write_atomically

PROGRAMS = {
    "docker": ("docker", "dockerd"),
    "containerd": ("containerd",),
    "containers": ("podman", "buildah", "skopeo", "crio"),
    "java": ("java", "keytool"),
}
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
# Key stores that update-ca-certificates and update-ca-trust keep; what is in the system store is in them.
SYSTEM_KEYSTORES = ("/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/pki/java/cacerts")


class SystemStore:
    """The system's store of CAs: where additional ones go, and how it takes them over."""

    def __init__(self, module):
        self.module = module
        if os.path.isdir("/etc/pki/ca-trust/source/anchors"):
            self.anchors, self.suffix = "/etc/pki/ca-trust/source/anchors", ".pem"
            self.result = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
            self.command = ["update-ca-trust", "extract"]
        else:
            self.anchors, self.suffix = "/usr/local/share/ca-certificates", ".crt"
            self.result = "/etc/ssl/certs/ca-certificates.crt"
            self.command = ["update-ca-certificates"]

    def lacks(self, certificates):
        """Say whether the store has not taken over one of the certificates yet."""
        result = "".join((read_text(self.result) or "").split())
        return any("".join(certificate.pem.split()) not in result for certificate in certificates)

    def update(self, gone):
        """Let the store take over what is in the directory, and forget the files in *gone*."""
        if not self.module.get_bin_path(self.command[0]):
            self.module.fail_json(msg=f"{self.command[0]} is missing on this host; install the package ca-certificates")
        if self.command == ["update-ca-certificates"]:
            self.forget_on_debian(gone)
        self.module.run_command(self.command, check_rc=True)

    def forget_on_debian(self, gone):
        """Do what update-ca-certificates leaves undone when a local CA is gone, short of ``--fresh``, which empties the store meanwhile.

        It keeps the links to the file, and does not tell the hooks, so that Java would trust the CA for ever.
        """
        links = [f"/etc/ssl/certs/{os.path.basename(path)[: -len(self.suffix)]}.pem" for path in gone]
        links = [link for link in links if os.path.islink(link) and not os.path.exists(link)]
        if not links:
            return
        targets = {os.path.basename(link) for link in links}
        hashes = [entry.path for entry in os.scandir("/etc/ssl/certs") if entry.is_symlink() and os.readlink(entry.path) in targets]
        for link in [*hashes, *links]:
            os.unlink(link)
        hook = "/etc/ca-certificates/update.d/jks-keystore"
        if os.access(hook, os.X_OK):
            self.module.run_command([hook], data="".join(f"-{link}\n" for link in links))


class Keystore:
    """A key store of a Java installation that does not follow the system's store."""

    def __init__(self, module, path, keytool):
        self.module = module
        self.path = path
        self.keytool = keytool

    def run(self, arguments, path=None):
        return self.module.run_command(
            [self.keytool, *arguments, "-keystore", path or self.path, "-storepass:env", "WHARF_STOREPASS"],
            environ_update={"WHARF_STOREPASS": self.module.params["java_keystore_password"], "LC_ALL": "C"},
        )

    def fingerprints(self):
        rc, out, err = self.run(["-list"])
        if rc != 0:
            self.module.fail_json(
                msg=f"keytool cannot read {self.path}; is java_keystore_password right? It said: {(out + err).strip()[:300]}"
            )
        return ca_trust.keystore_fingerprints(out)

    def change(self, add, remove_aliases):
        """Add certificates and remove aliases on a copy, which then takes the key store's place."""
        copy = f"{self.path}.wharf-tmp"
        shutil.copy2(self.path, copy)
        for certificate in add:
            file = os.path.join(self.module.tmpdir, f"{certificate.name}.pem")
            write_atomically(file, certificate.pem.encode(), mode=0o600)
            self.must(self.run(["-importcert", "-noprompt", "-alias", certificate.name, "-file", file], copy), copy)
        for alias in remove_aliases:
            self.must(self.run(["-delete", "-alias", alias], copy), copy)
        os.replace(copy, self.path)

    def must(self, result, copy):
        rc, out, err = result
        if rc != 0:
            os.unlink(copy)
            self.module.fail_json(msg=f"keytool failed on {self.path}, which stays as it was: {(out + err).strip()[:300]}")


def read_text(path):
    content = read_if_there(path)
    return None if content is None else content.decode(errors="replace")


def find_clients(asked):
    if "auto" not in asked:
        return list(asked)
    found = ["system"]
    path = os.environ.get("PATH", "") + ":/usr/local/bin:/usr/bin:/usr/sbin:/usr/local/sbin"
    for client, programs in PROGRAMS.items():
        if any(shutil.which(program, path=path) for program in programs):
            found.append(client)
    if "java" not in found and glob.glob("/usr/lib/jvm/*/bin/java"):
        found.append("java")
    return sorted({*found, *(client for client in asked if client != "auto")})


def find_keystores(module):
    """Return the key stores of Java installations, apart from those that the system keeps."""
    homes = {os.path.realpath(home) for home in glob.glob("/usr/lib/jvm/*") + list(module.params["java_homes"])}
    java = shutil.which("java")
    if java:
        homes.add(os.path.dirname(os.path.dirname(os.path.realpath(java))))
    stores = {}
    for home in sorted(homes):
        for relative in ("lib/security/cacerts", "jre/lib/security/cacerts"):
            place = os.path.join(home, relative)
            path = os.path.realpath(place)
            keytool = os.path.join(home, "bin/keytool")
            if os.path.isfile(path) and path not in SYSTEM_KEYSTORES and os.access(keytool, os.X_OK):
                stores[path] = Keystore(module, path, keytool)
    return stores


def plan_containerd(module, record, wanted):
    """Return the new text of containerd's configuration (None: as it is), what we then have in it, and a warning."""
    text = read_text(CONTAINERD_CONFIG)
    ours = record.get("containerd")
    if not wanted:
        if text is not None and ours and ours["after"] in text:
            return text.replace(ours["after"], ours["before"], 1), None, None
        return None, None, None
    mode = module.params["containerd_cri"]
    cri = text is not None and not ca_trust.cri_disabled(text)
    used = bool(shutil.which("kubelet") or shutil.which("crictl"))
    if mode == "never" or (mode == "auto" and not (cri and used)):
        return None, ours, None
    try:
        change = ca_trust.set_config_path(text or "version = 2\n")
    except ca_trust.TrustRefused as refusal:
        return None, ours, str(refusal)
    if change is None:
        return None, ours, None
    before, after = change
    text = text or "version = 2\n"
    return (text.replace(before, after, 1) if before else text.rstrip("\n") + "\n" + after), {"before": before, "after": after}, None


def plan_keystores(module, record, certificates, clients):
    """Return for each key store what to add and which aliases to remove, and what is then ours."""
    ours = record.get("keystores", {})
    plans: list = []
    after: dict = {}
    if not ours and not (certificates and "java" in clients):
        return plans, after
    listed = {certificate.fingerprint: certificate for certificate in certificates} if "java" in clients else {}
    for path, store in find_keystores(module).items():
        there = store.fingerprints()
        mine = {alias: known for alias, known in ours.get(path, {}).items() if there.get(known) == alias}
        add = [certificate for known, certificate in listed.items() if known not in there]
        gone = [alias for alias, known in mine.items() if known not in listed]
        if add or gone:
            plans.append((store, add, gone))
        after[path] = {alias: known for alias, known in mine.items() if known in listed}
        after[path].update({certificate.name: certificate.fingerprint for certificate in add})
    return plans, {path: aliases for path, aliases in after.items() if aliases}


def report(certificates, registries, clients, now):
    """Return which client trusts which CA until when."""
    described = [certificate.report(now) for certificate in certificates]
    names = [name for registry in registries for name in registry.names]
    return [
        {"client": client, "registries": [] if client in ("system", "java") else names, "certificates": described}
        for client in clients
        if certificates and (client in ("system", "java") or registries)
    ]


def readable(content):
    """Return the content of a file for a diff; certificates become a line each."""
    if not content or "-----BEGIN CERTIFICATE" not in content:
        return content or ""
    try:
        found = ca_trust.read_certificates([content])
    except ca_trust.TrustRefused:
        return content
    return "".join(f"{entry.subject}, until {entry.not_after:%Y-%m-%d}, SHA-256 {entry.fingerprint}\n" for entry in found)


def remove_files(paths, directories):
    """Remove files and then those of our directories that are empty; return the directories that stay."""
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
    stay = []
    for directory in sorted(directories, key=len, reverse=True):
        if os.path.isdir(directory) and not os.listdir(directory):
            os.rmdir(directory)
        elif os.path.isdir(directory):
            stay.append(directory)
    return sorted(stay)


def make_directories(path):
    """Create the directories above a file; return those that were not there."""
    made = []
    directory = os.path.dirname(path)
    while not os.path.isdir(directory):
        made.append(directory)
        directory = os.path.dirname(directory)
    for missing in reversed(made):
        os.mkdir(missing)
        os.chmod(missing, 0o755)  # noqa: S103 - clients of all users read here, whatever root's umask is
    return made


def run(module):
    params = module.params
    now = datetime.datetime.now(datetime.timezone.utc)
    certificates = ca_trust.read_certificates(params["certificates"])
    registries = list(dict.fromkeys(ca_trust.read_registry(name) for name in params["registries"]))
    for certificate in certificates:
        if certificate.not_after <= now:
            module.warn(f"The CA {certificate.subject} expired on {certificate.not_after:%Y-%m-%d}")
        elif not certificate.is_ca:
            module.warn(f"{certificate.subject} is no CA: clients trust this one certificate and nothing that it signed")
    clients = find_clients(params["clients"])
    system = SystemStore(module)
    record = json.loads(read_text(params["record_path"]) or "{}")
    files_before = record.get("files", {})

    wanted = ca_trust.wanted_files(certificates, registries, clients, system.anchors, system.suffix, params["bundle"])
    paths = {path for file in wanted for path in (file.path, file.aside) if path} | set(files_before)
    current = {path: read_text(path) for path in paths}
    plan = ca_trust.plan_files(wanted, current, files_before)
    gone = [path for path in files_before if path.startswith(system.anchors + "/") and path not in plan.record]
    update_system = bool(gone) or plan.system_changed or bool(record.get("pending")) or ("system" in clients and system.lacks(certificates))
    containerd_text, containerd_record, containerd_warning = plan_containerd(
        module, record, bool(certificates and registries and "containerd" in clients)
    )
    keystore_plans, keystore_record = plan_keystores(module, record, certificates, clients)
    for warning in [*plan.warnings, *([containerd_warning] if containerd_warning else [])]:
        module.warn(warning)

    changed = bool(plan.write or plan.remove or update_system or containerd_text is not None or keystore_plans)
    result = {
        "changed": changed,
        "trust": report(certificates, registries, clients, now),
        "written": sorted(
            [*plan.write, *([CONTAINERD_CONFIG] if containerd_text is not None else []), *(store.path for store, _a, _r in keystore_plans)]
        ),
        "removed": sorted(plan.remove),
        "containerd_restart_needed": containerd_text is not None,
        "diff": [
            {"before_header": path, "after_header": path, "before": readable(current.get(path)), "after": readable(plan.write.get(path))}
            for path in sorted([*plan.write, *plan.remove])
        ],
    }
    if changed and not module.check_mode:
        directories = set(record.get("directories", []))

        def remember(files, pending):
            content = {
                "files": files,
                "directories": sorted(directories),
                "keystores": keystore_record,
                "containerd": containerd_record,
                "pending": pending,
            }
            os.makedirs(os.path.dirname(params["record_path"]), mode=0o755, exist_ok=True)
            write_atomically(params["record_path"], (json.dumps(content, sort_keys=True) + "\n").encode(), mode=0o644)

        # A run that is killed from here on has everything it may have put there in the record, and finishes next time.
        remember({**files_before, **plan.record}, True)
        for path, content in plan.write.items():
            directories.update(make_directories(path))
            write_atomically(path, content.encode(), mode=0o644)
        directories = set(remove_files(plan.remove, directories))
        if update_system:
            system.update(gone)
        if containerd_text is not None:
            make_directories(CONTAINERD_CONFIG)
            write_atomically(CONTAINERD_CONFIG, containerd_text.encode(), mode=0o644)
        for store, add, gone in keystore_plans:
            store.change(add, gone)
        if certificates or directories or plan.record:
            remember(plan.record, False)
        else:
            os.unlink(params["record_path"])
    module.exit_json(**result)


def main():
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "str", "default": []},
            "registries": {"type": "list", "elements": "str", "default": []},
            "clients": {
                "type": "list",
                "elements": "str",
                "choices": ["auto", "system", "docker", "containerd", "containers", "java"],
                "default": ["auto"],
            },
            "bundle": {"type": "str", "default": "/etc/wharf/ca-bundle.pem"},
            "containerd_cri": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "java_homes": {"type": "list", "elements": "path", "default": []},
            "java_keystore_password": {"type": "str", "default": "changeit", "no_log": True},
            "record_path": {"type": "path", "default": "/var/lib/wharf/ca_trust.json"},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except ca_trust.TrustRefused as refusal:
        module.fail_json(msg=str(refusal))


if __name__ == "__main__":
    main()
