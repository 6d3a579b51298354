"""A network of its own for the process that simulates: TFF's worker listens on every interface without credentials."""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x1 | 0x40
_isolated = False


def isolate_network() -> bool:
    """Moves this process and its future children to a network that holds a loopback interface and nothing else.

    Linux only, no privileges needed where user namespaces are allowed. Call it before numpy or TensorFlow start their
    threads: a process that has more than one stays where it is. Calling it again changes nothing.

    Returns:
        Whether nobody outside this process tree can now reach what it listens on.
    """
    global _isolated
    if _isolated or not Path("/proc/self/task").exists():
        return _isolated
    # The first step cannot be undone, and some kernels refuse only the later ones: let a child find out.
    child = os.fork()
    if not child:
        os._exit(not _enter_network())
    _, status = os.waitpid(child, 0)
    _isolated = not status and _enter_network()
    return _isolated


def is_isolated() -> bool:
    """Whether `isolate_network` has succeeded in this process."""
    return _isolated


def _enter_network() -> bool:
    if len(os.listdir("/proc/self/task")) > 1:
        return False  # only the calling thread would move
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None)
    # Root needs no user namespace, and in one it would lose its rights to other users' files.
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    if not hasattr(libc, "unshare") or libc.unshare(flags):
        return False
    try:
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
    except OSError:
        return False
    return True
