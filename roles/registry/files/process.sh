#!/bin/sh
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# With what rights the process of a container runs. Argument: the container's name.
pid=$(docker inspect --format '{{.State.Pid}}' "$1") || exit 1
awk '/^Uid:/ {u = $2} /^Gid:/ {g = $2} /^CapEff:/ {c = $2} /^NoNewPrivs:/ {n = $2}
     END {print "user " u " " g; print "capabilities " c; print "no new privileges " n}' "/proc/$pid/status"
docker inspect --format 'read-only root {{.HostConfig.ReadonlyRootfs}}' "$1"
