"""How secrets rest on a disk: plain, or sealed with a passphrase.

All numbers are big-endian; the magic, 8 bytes, says whose secrets they are:

    plain     magic | 1 | 0 | secrets | BLAKE2b-256 of all before
    sealed    magic | 1 | 1 | argon2id operations u32, memory u64 | salt 16 | nonce 24 | XChaCha20-Poly1305 of the secrets, + 16

What is before the secrets is authenticated with them, so that nobody can weaken it unnoticed.
"""

import hashlib
import struct
import unicodedata
from dataclasses import dataclass

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.randomness import Entropy

OPERATIONS = 3  # with 64 MiB about 0.1 s here, and bearable on a Pi
MEMORY_BYTES = 64 << 20
OPERATIONS_MAX = 16  # a hostile file could ask for hours and for 64 GiB
MEMORY_BYTES_MAX = 512 << 20

_PREFIX = struct.Struct("!8sBB")
_KDF = struct.Struct("!IQ16s24s")
_VERSION, _PLAIN, _SEALED = 1, 0, 1
_SALT_BYTES, _NONCE_BYTES, _CHECKSUM_BYTES, _TAG_BYTES, _KEY_BYTES = 16, 24, 32, 16, 32


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One kind of file of secrets. `noun` is what people call it; `size` is the length of the secrets."""

    magic: bytes
    noun: str
    size: int
    person: bytes

    def to_bytes(self, secrets: bytes, passphrase: str | None, entropy: Entropy) -> bytes:
        """The secrets as they rest on a disk, sealed unless `passphrase` is None. Raises `Failure` for an empty one."""
        assert len(secrets) == self.size
        if passphrase is None:
            plain = _PREFIX.pack(self.magic, _VERSION, _PLAIN) + secrets
            return plain + self._checksum(plain)
        salt, nonce = entropy.draw(_SALT_BYTES), entropy.draw(_NONCE_BYTES)
        header = _PREFIX.pack(self.magic, _VERSION, _SEALED) + _KDF.pack(OPERATIONS, MEMORY_BYTES, salt, nonce)
        key = _derive(passphrase, salt, OPERATIONS, MEMORY_BYTES)
        return header + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(secrets, header, nonce, key)

    def from_bytes(self, data: bytes, passphrase: str | None, source: str) -> bytes:
        """The secrets of what `to_bytes` gave. `source` names the file to people. Raises `Failure` with exit code IDENTITY."""
        return self._open(data, passphrase, source) if self.is_sealed(data, source) else self._read(data, passphrase, source)

    def is_sealed(self, data: bytes, source: str) -> bool:
        """Whether a passphrase is needed. Raises `Failure` where this is no such file at all."""
        if len(data) < _PREFIX.size:
            raise self._damaged(source)
        magic, version, form = _PREFIX.unpack_from(data)
        if magic != self.magic or form not in (_PLAIN, _SEALED):
            raise self._damaged(source)
        if version != _VERSION:
            raise _failure("identity_version", f"{source} has format {version}, this program knows 1.", "Update the program.")
        return bool(form == _SEALED)

    def _read(self, data: bytes, passphrase: str | None, source: str) -> bytes:
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(body) != _PREFIX.size + self.size or self._checksum(body) != checksum:
            raise self._damaged(source)
        if passphrase is not None:
            raise _failure("identity_not_sealed", f"{source} has no passphrase, but one was given.", "Start without it.")
        return body[_PREFIX.size :]

    def _open(self, data: bytes, passphrase: str | None, source: str) -> bytes:
        header, sealed = data[: _PREFIX.size + _KDF.size], data[_PREFIX.size + _KDF.size :]
        if len(sealed) != self.size + _TAG_BYTES:
            raise self._damaged(source)
        operations, memory, salt, nonce = _KDF.unpack_from(data, _PREFIX.size)
        if not (
            1 <= operations <= OPERATIONS_MAX and bindings.crypto_pwhash_argon2id_MEMLIMIT_MIN <= memory <= MEMORY_BYTES_MAX
        ):
            message = f"{source} asks for {operations} passes over {memory >> 20} MiB to check a passphrase."
            raise _failure("identity_kdf", message, "Nobody needs that; restore the file from a copy.")
        if passphrase is None:
            raise _failure("passphrase_needed", f"{source} is sealed with a passphrase.", "Give it when asked.")
        key = _derive(passphrase, salt, operations, memory)
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, key)
        except CryptoError:
            message = f"{source} does not open: the passphrase is wrong, or the file was changed."
            raise _failure("passphrase_wrong", message, "Try again, or restore the file from a copy.") from None

    def _checksum(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES, person=self.person).digest()

    def _damaged(self, source: str) -> Failure:
        message = f"{source} is no {self.noun}, or was cut off or changed."
        return _failure("identity_damaged", message, "Restore it from a copy.")


def _derive(passphrase: str, salt: bytes, operations: int, memory: int) -> bytes:
    # The same characters can be typed as different bytes on different machines.
    typed = unicodedata.normalize("NFC", passphrase).encode()
    if not typed:
        raise _failure("empty_passphrase", "The passphrase is empty.", "Give one, or say --no-passphrase.")
    try:
        return bindings.crypto_pwhash_alg(_KEY_BYTES, typed, salt, operations, memory, bindings.crypto_pwhash_ALG_ARGON2ID13)
    except SodiumError:
        hint = "Free some memory and try again."
        raise _failure("identity_memory", f"Deriving a key takes {memory >> 20} MiB, which are not free.", hint) from None


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)
