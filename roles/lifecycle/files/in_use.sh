#!/bin/sh
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Prints the images of all running containers, one a line: the name they were started by, and the digest that they run, which stays
# the same when the name moves on. An engine that is there and does not answer is an error: what it runs is not known.
set -e
if command -v docker >/dev/null && [ -S /run/docker.sock ]; then
  running=$(docker ps -q --no-trunc)
  [ -z "$running" ] || docker inspect --format '{{.Config.Image}}
{{.Image}}' $running
fi
if command -v podman >/dev/null; then
  running=$(podman ps -q --no-trunc)
  [ -z "$running" ] || podman inspect --type container --format '{{.ImageName}}
sha256:{{.Image}}
{{.ImageDigest}}' $running
fi
if command -v crictl >/dev/null; then
  crictl ps -o json | python3 -c '
import json, sys
for container in json.load(sys.stdin).get("containers") or []:
    image = container.get("image") or {}
    for text in (image.get("image"), image.get("userSpecifiedImage"), container.get("imageRef"), container.get("imageId")):
        if text:
            print(text)'
fi
