# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token service of a registry node: says who is there, and gives tokens that the registries on all nodes accept.

``python3 -m wharf_token DIRECTORY`` runs it; DIRECTORY holds the configuration, see :mod:`.config`. It needs the access model of the
collection on its path, as the package ``wharf`` (the program wharf.pyz).
"""
