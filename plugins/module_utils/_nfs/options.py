# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of NFS mounts and exports: read, merged and judged. Every judgement names the option to change.

Private to the collection. Pure: what the options are comes from variables, from ``/proc/self/mountinfo`` or from the server's ``etab``.

Several registries on one export go wrong with the options that everybody else is happy with: a client that remembers that a file was *not*
there (``lookupcache=all``) answers "blob unknown" for what another node has just written, and one that gives up (``soft``) leaves half of it.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

Options = Dict[str, str]

#: How the role mounts. What an operator adds replaces the option of the same name, or its opposite.
MOUNT_DEFAULTS = "vers=4.2,proto=tcp,hard,timeo=100,retrans=2,sync,lookupcache=positive,actimeo=1,noatime,nodev,nosuid,noexec"
#: How the role exports, before the user and the group to which root is mapped.
EXPORT_DEFAULTS = "rw,sync,no_wdelay,no_subtree_check,root_squash,sec=sys"
#: Seconds for which a client may go by attributes that it remembers.
LONGEST_CACHE = 3

_OPPOSITES = (
    {"hard", "soft", "softerr"}, {"cto", "nocto"}, {"ac", "noac", "actimeo", "acregmin", "acregmax", "acdirmin", "acdirmax"},
    {"vers", "nfsvers", "minorversion", "v4", "v4.0", "v4.1", "v4.2"}, {"rw", "ro"}, {"dev", "nodev"}, {"suid", "nosuid"}, {"exec", "noexec"},
    {"sync", "async"}, {"fg", "bg"}, {"lock", "nolock"}, {"proto", "tcp", "udp", "rdma"}, {"atime", "noatime", "relatime"},
)  # fmt: skip
# What a client does with attributes when it is not told (nfs(5)).
_KERNEL_TIMES = {"acregmin": 3, "acregmax": 60, "acdirmin": 30, "acdirmax": 60}
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+$")
_DIRECTORY = re.compile(r"^(/[A-Za-z0-9._+-]+)+$")
_WORD = re.compile(r"^[a-z0-9_.]+(=[^,\s]+)?$", re.IGNORECASE)


class Problem(NamedTuple):
    """What is wrong with one option: its name, its value, why that is bad, what would be right."""

    option: str
    value: str
    cause: str
    cure: str

    def told(self) -> str:
        """The problem in one line."""
        return "%s (%s): %s; %s" % (self.option, self.value or "not set", self.cause, self.cure)


# -- reading ---------------------------------------------------------------------------------------------------------------------------


def parse(text: object) -> Options:
    """Return options by name from ``a,b=c`` or a list of such texts; one without a value has an empty one."""
    parts = text if isinstance(text, (list, tuple)) else [text]
    words = [word.strip() for part in parts for word in str(part or "").split(",")]
    options: Options = {}
    for word in words:
        if word:
            name, _equals, value = word.partition("=")
            options[name] = value
    return options


def render(options: Mapping[str, str]) -> str:
    """Return the options as ``mount`` takes them."""
    return ",".join(name + ("=" + value if value else "") for name, value in options.items())


def merge(base: Mapping[str, str], own: Mapping[str, str]) -> Options:
    """Return ``base`` with the options of ``own``; each takes the place of the one that says the opposite."""
    gone = set(own)
    for name in own:
        for family in _OPPOSITES:
            if name in family:
                gone |= family
    merged = {name: value for name, value in base.items() if name not in gone}
    merged.update(own)
    return merged


def mount_options(own: object) -> Options:
    """Return the options that the role mounts with, of which ``own`` are the operator's."""
    return merge(parse(MOUNT_DEFAULTS), parse(own))


def export_options(uid: int, gid: int) -> str:
    """Return the options that the role exports with."""
    return "%s,anonuid=%d,anongid=%d" % (EXPORT_DEFAULTS, uid, gid)


class Mount(NamedTuple):
    """One mounted file system: its kind, where it comes from, how it is mounted."""

    kind: str
    source: str
    options: Options


def find_mount(mountinfo: str, path: str) -> Optional[Mount]:
    """Return what is mounted exactly at ``path``, from the text of ``/proc/self/mountinfo``; the last one is on top."""
    found = None
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, behind = left.split(), right.split()
        if separator and len(fields) >= 6 and len(behind) >= 3 and _unescape(fields[4]) == path:
            found = Mount(behind[0], _unescape(behind[1]), parse([fields[5], behind[2]]))
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def parse_etab(text: str) -> Dict[Tuple[str, str], Options]:
    """Return what a server exports, from its ``/var/lib/nfs/etab``: ``(directory, client)`` to the options in force."""
    exports: Dict[Tuple[str, str], Options] = {}
    for line in text.splitlines():
        directory, _tab, rest = line.partition("\t")
        for client, options in re.findall(r"(\S+?)\(([^)]*)\)", rest):
            exports[(_unescape(directory), client)] = parse(options)
    return exports


# -- judging ---------------------------------------------------------------------------------------------------------------------------


def mount_problems(options: Mapping[str, str]) -> List[Problem]:
    """Judge how an export is mounted, or is to be mounted."""
    found: List[Problem] = []

    def wrong(option: str, cause: str, cure: str) -> None:
        value = options.get(option)
        found.append(Problem(option, "" if value is None else value or option, cause, cure))

    for name in ("soft", "softerr", "softreval"):
        if name in options:
            wrong(name, "a write is given up when the server is away for a while, and the image is damaged", "use hard")
    version = _version(options)
    if version not in ("4.1", "4.2"):
        wrong("vers", "older NFS has no sessions: after a lost answer a rename may fail that was done", "use vers=4.2")
    if options.get("lookupcache", "all") not in ("positive", "pos", "none"):
        cause = "the client remembers that a file was not there, so it does not see a blob that another node has written"
        wrong("lookupcache", cause, "use lookupcache=positive")
    times = _cache_times(options)
    if times is None:
        wrong("actimeo", "it is no number of seconds", "use actimeo=1")
    elif max(times.values()) > LONGEST_CACHE:
        told = ", ".join("%s=%d" % item for item in times.items() if item[1] > LONGEST_CACHE)
        cause = "the client goes by what it remembers of files and directories for too long (%s)" % told
        found.append(Problem("actimeo", options.get("actimeo", ""), cause, "use actimeo=1, at most actimeo=%d" % LONGEST_CACHE))
    # Distribution syncs an upload's file when it closes it, drops what that says (closeResources in its registry/handlers/helpers.go), and has
    # the digest from what it was sent.
    if "sync" not in options:
        cause = (
            "a write that finds the export full fails later, where no registry listens: it acknowledges an image whose layers have holes"
        )
        wrong("async" if "async" in options else "sync", cause, "use sync")
    if "nocto" in options:
        wrong("nocto", "a file that another node has closed is opened as it was before", "remove nocto")
    if "nolock" in options or options.get("local_lock", "none") != "none":
        wrong("nolock" if "nolock" in options else "local_lock", "locks of one node do not hold on the others", "remove it")
    if "ro" in options:
        wrong("ro", "nothing can be pushed", "use rw")
    if "bg" in options:
        wrong("bg", "the mount would be reported as done before it is", "remove bg; the unit tries until it succeeds")
    if "udp" in options or options.get("proto", "tcp") in ("udp", "udp6"):
        wrong("udp" if "udp" in options else "proto", "datagrams get lost and mixed up", "use proto=tcp")
    for name in ("nodev", "nosuid", "noexec"):
        if name not in options:
            wrong(name, "what clients upload could become a device or a program of this host", "add %s" % name)
    return found


def _version(options: Mapping[str, str]) -> str:
    for name in ("v4.2", "v4.1", "v4.0"):
        if name in options:
            return name[1:]
    version = options.get("vers", options.get("nfsvers", "4" if "v4" in options else ""))
    return version + ("." + options["minorversion"] if version == "4" and options.get("minorversion") else "")


def _cache_times(options: Mapping[str, str]) -> Optional[Dict[str, int]]:
    if "noac" in options:
        return {"noac": 0}
    times = dict(_KERNEL_TIMES)
    try:
        if "actimeo" in options:
            times = dict.fromkeys(times, int(options["actimeo"]))
        times.update({name: int(options[name]) for name in _KERNEL_TIMES if name in options})
    except ValueError:
        return None
    return times


def export_problems(options: Mapping[str, str], uid: int, gid: int) -> List[Problem]:
    """Judge how a server exports a directory to one client. ``uid`` and ``gid`` are those of the registry."""
    found: List[Problem] = []

    def wrong(option: str, cause: str, cure: str) -> None:
        found.append(Problem(option, options.get(option, "") or (option if option in options else ""), cause, cure))

    if "async" in options or "sync" not in options:
        wrong("async", "the server acknowledges what a power cut then loses", "use sync")
    if "no_wdelay" not in options:
        wrong("wdelay", "the server waits for more writes before it answers, and other nodes look in between", "use no_wdelay")
    if "subtree_check" in options:
        wrong("subtree_check", "a file that is renamed while it is open becomes stale", "use no_subtree_check")
    if "ro" in options:
        wrong("ro", "nothing can be pushed", "use rw")
    if "no_root_squash" in options:
        wrong("no_root_squash", "root of any node is root of the storage", "use root_squash")
    for name, number in (("anonuid", uid), ("anongid", gid)):
        if options.get(name) != str(number):
            cause = "root of a node, which looks after the storage, becomes somebody else than the registry (%d)" % number
            wrong(name, cause, "use root_squash with %s=%d" % (name, number))
    return found


def etab_problems(text: str, directory: str, clients: Sequence[str], uid: int, gid: int) -> List[Problem]:
    """Judge what a server exports of ``directory``, from its ``etab``: as asked, and to nobody but ``clients``."""
    exports = {client: options for (path, client), options in parse_etab(text).items() if path == directory}
    found: List[Problem] = []
    for client, options in exports.items():
        if client not in clients:
            cause = "the directory is exported to %s too, which is no registry node" % client
            found.append(Problem("export", directory, cause, "remove that line from /etc/exports or /etc/exports.d"))
        else:
            found += export_problems(options, uid, gid)
    for client in clients:
        if client not in exports:
            found.append(Problem("export", directory, "it is not exported to %s" % client, "see /etc/exports.d/wharf.exports"))
    return list(dict.fromkeys(found))


def storage_problems(storage: object, prefix: str = "wharf_storage.nfs") -> List[Problem]:
    """Judge ``{server, export, options}``, the value of ``wharf_storage.nfs``."""
    example = "for example wharf_storage: {nfs: {server: nfs.example.com, export: /srv/nfs/registry}}"
    if not isinstance(storage, Mapping):
        return [Problem(prefix, str(storage or "nothing")[:60], "it is no mapping of server and export", example)]
    found = []
    for name in sorted(set(map(str, storage)) - {"server", "export", "options"}):
        found.append(Problem("%s.%s" % (prefix, name), "(set)", "there is no such key; server, export and options are known", example))
    for name, pattern, what in (("server", _HOST, "host name or address"), ("export", _DIRECTORY, "absolute path without spaces")):
        value: Any = storage.get(name)
        if value is None or value == "":
            found.append(Problem("%s.%s" % (prefix, name), "(not set)", "it is missing", example))
        elif not isinstance(value, str) or not pattern.match(value) or "/.." in value:
            found.append(Problem("%s.%s" % (prefix, name), str(value)[:60], "it is no %s" % what, example))
    own = storage.get("options") or ""
    words = [word.strip() for part in (own if isinstance(own, (list, tuple)) else [own]) for word in str(part).split(",")]
    odd = [word for word in words if word and not _WORD.match(word)]
    if isinstance(own, Mapping) or odd:
        cause = "it is no list of mount options" if isinstance(own, Mapping) else "%s is no mount option" % ", ".join(odd)
        found.append(Problem(prefix + ".options", str(own)[:60], cause, "for example options: [actimeo=1]"))
        return found
    for problem in mount_problems(mount_options(own)):
        found.append(problem._replace(option="%s.options: %s" % (prefix, problem.option)))
    return found
