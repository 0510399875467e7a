"""Names of policies as names of files, both ways.

A policy may have any name, such as `meta-llama/Llama-3.1-8B`; a file may not. `file_name` writes each character that is not
for names of files as its percent code, and `policy_of` reads it again. Files of a user may spell a name otherwise: with
folders, with other signs in place of some, in small letters, or without the organisation. `policy_spelled` finds the policy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

# Not for names of files on some system, or with a meaning of their own to Snakemake; a name that begins with a dot is hidden.
SPECIAL = re.compile(r'[%/\\:*?"<>|{}\x00-\x1f\x7f]|^\.')
CODE = re.compile("%([0-9A-Fa-f]{2})")


def file_name(policy: str) -> str:
    """The name of a policy as the name of a file without its suffix."""
    return SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", policy)


def policy_of(stem: str) -> str:
    """The policy whose `file_name` is the name of a file without its suffix."""
    return CODE.sub(_decoded, stem)


def _decoded(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if SPECIAL.match(character) else match[0]


def spells(name: str, policy: str) -> bool:
    """Whether the name of a file, without its suffix, is that of a policy, or of the last part of its name.

    Signs and the case of letters do not count: evaluation tools write __, -- or _ for a slash, and some all in small letters.
    """
    letters = _letters(policy_of(name))
    return letters != "" and letters in (_letters(policy), _letters(policy.rpartition("/")[2]))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-")


def policy_spelled(name: str, policies: Collection[str], where: object) -> str | None:
    """The policy, out of `policies`, that the name of a file stands for; None where it is none of them.

    where: the file, for errors. Raises a `UserError` for a name that two policies may have.
    """
    for spelling in (name, policy_of(name)):
        if spelling in policies:
            return spelling
    matches = [policy for policy in policies if spells(name, policy)]
    if len(matches) > 1:
        raise UserError(
            f"{where}: could belong to policy {matches[0]!r} or {matches[1]!r}; rename it to {file_name(matches[0])} or "
            f"{file_name(matches[1])}"
        )
    return matches[0] if matches else None
