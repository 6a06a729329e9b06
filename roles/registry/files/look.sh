#!/bin/sh
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# One look at the host instead of a task for each question. Prints lines "question=answer"; what is not there gives no line.
# Arguments: image, Python, root directory or nothing, numbers of user and group, directories.
image=$1 python=$2 root=$3 user=$4 group=$5
shift 5
getent passwd "$user" | cut -d : -f 3 | sed 's/^/user=/'
getent group "$group" | cut -d : -f 3 | sed 's/^/group=/'
docker version --format 'engine={{.Server.Version}}' 2>/dev/null
docker image inspect --format 'image={{.Id}}' "$image" 2>/dev/null
"$python" -c 'import requests' 2>/dev/null && echo python=requests
for directory; do stat -c 'directory=%04a %u %g %n' "$directory" 2>/dev/null; done
if [ -n "$root" ]; then
  while [ ! -e "$root" ]; do root=$(dirname "$root"); done
  stat -f -c 'filesystem=%T' "$root"
fi
exit 0
