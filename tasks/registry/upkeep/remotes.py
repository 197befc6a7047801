"""Deletes objects from a DVC remote. It knows digests, not what they hold."""

from collections.abc import Collection

from tasks.registry.upkeep.traces import Trace


def names() -> list[str]:
    """The remotes of the project here."""
    from tasks.runtime.dvc import dvc

    return [line.split()[0] for line in dvc("remote", "list").splitlines()]


def delete(name: str, digests: Collection[str]) -> tuple[list[Trace], list[Trace]]:
    """What was deleted, and what remains because the remote refused; each is asked for again afterwards. ``ValueError`` where there is no
    such remote, it does not answer, or it keeps versions of files.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        store = Repo().cloud.get_remote_odb(name)
        present = sorted(digest for digest in digests if store.exists(digest))
    except (DvcException, OSError) as error:
        raise ValueError(f"DVC's remote {name}: {type(error).__name__}; 'dvc remote list' shows which there are") from None
    where, refused = f"DVC's remote {name}", dict[str, str]()
    for digest in present:
        try:
            store.delete(digest)
        except OSError as error:
            refused[digest] = f"which it would not delete ({type(error).__name__})"
    remaining = {digest for digest in present if store.exists(digest)}
    removed = [Trace(where, digest) for digest in present if digest not in remaining]
    return removed, [Trace(where, digest, refused.get(digest, "which is there still")) for digest in sorted(remaining)]
