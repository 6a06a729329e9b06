#!/bin/sh
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Is the export mounted, and as its unit says now? Touches nothing below the path: a storage that hangs would hang this too.
# Who has the numbers of the registry's user and group?
# Arguments: path, name of the unit, numbers of user and group.
getent passwd "$3" | cut -d : -f 3 | sed 's/^/user=/'
getent group "$4" | cut -d : -f 3 | sed 's/^/group=/'
awk -v path="$1" '$5 == path && / - nfs/ {found = 1} END {if (found) print "mounted"}' /proc/self/mountinfo
if [ ! -e /run/wharf-nfs.mount ] || cmp -s "/etc/systemd/system/$2" /run/wharf-nfs.mount; then echo current; fi
exit 0
