"""What a node asks of the system before it starts."""

import resource

DESCRIPTORS = 4096  # each caller takes one, also one that is refused; at the limit libzmq's thread would spin


def raise_descriptors() -> int:
    """Raise the soft limit on open files to `DESCRIPTORS`, as far as the hard one allows; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return int(soft)
