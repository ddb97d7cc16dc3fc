"""Names of artifacts: a hash of what decides their values, computable before anything runs."""

import hashlib
import json
from typing import Any

HASH_VERSION = 2
"""Bumped when the way of hashing changes; every artifact then gets a new name."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8; NaN and Infinity are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """sha256 (hex, 64 characters) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def fingerprint(
    *,
    stage: str,
    version: int,
    encoding: int,
    params: dict[str, Any],
    inputs: dict[str, str],
    roots: dict[str, str],
) -> str:
    """The name of an artifact: 64 hex characters.

    `version` says how the values are computed, `encoding` how they lie on disk, `inputs` maps each stage that is read
    to its artifact's fingerprint, `roots` each root (images, labels) to the digest of its content. Two runs that agree
    in all of these share the artifact.
    """
    return digest(
        {
            "hash_version": HASH_VERSION,
            "stage": stage,
            "version": version,
            "encoding": encoding,
            "params": params,
            "inputs": inputs,
            "roots": roots,
        }
    )
