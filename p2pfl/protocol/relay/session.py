"""Messages to sealed pieces and back: one session of a tunnel, at one of its ends. Keys and counts, no time.

Like a link a session has two lanes, control and bulk, each in order and without gaps. A message is put on its lane as

    what it is (1 byte) ‖ length of its first frame (4) ‖ of its second, 0 where there is none (4) ‖ first frame ‖ second frame

and cut into pieces of `PIECE_BYTES`, the last one shorter. Each piece is sealed under the key of its direction, with its lane
and its count as the nonce: at any other place, in another session or in the other direction it does not open. Of the bulk lane
at most `WINDOW` pieces are under way that the other end has not said to have taken; what does not fit waits here.
"""

from collections import deque
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any

from p2pfl.protocol import cipher
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.relay.handshake import SessionKeys
from p2pfl.protocol.relay.relay_wire import PIECE_BYTES
from p2pfl.protocol.wire import CHUNK_BYTES, HEADER_FRAME_MAX, TAG_BYTES

WINDOW = 4  # bulk pieces: 512 KiB, which a relay must have room for, of some 24 at once
TAKEN_EVERY = 2  # pieces of a long message: twice a window, so that a steady sender seldom waits
QUEUE_MAX = 256  # messages that wait for the window, as in the outbox of a link

Frames = tuple[Sized, ...]


class Sort(IntEnum):
    """What a message in a tunnel is: one of the peer's, or a word of the tunnel itself. To `ASK`, one of the other two words is
    the answer."""

    MESSAGE = 0
    NEEDED = 1
    NOT_NEEDED = 2
    ASK = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """Sealed. Its memory is nobody else's."""

    bulk: bool
    count: int
    sealed: memoryview


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A whole message that came through: `frames` are empty unless it is one of the peer's."""

    sort: Sort
    frames: Frames


class Session:
    """One end. `broken` sessions are not used any more: a new one is made."""

    def __init__(self, keys: SessionKeys) -> None:
        self.id = keys.session
        self.taken = 0  # of ours, by the other end
        self.dropped = 0  # messages that did not fit in the queue
        self._keys = keys
        self._next_out, self._next_in = [0, 0], [0, 0]  # by lane
        self._waiting: deque[_Cutting] = deque()
        self._joining: list[_Joining | None] = [None, None]
        self._told = 0

    # ---- outwards -------------------------------------------------------------------------------------------------------

    def put(self, frames: Sequence[Sized], bulk: bool) -> list[Piece]:
        """The pieces that may go now. A bulk message that does not fit into the window waits, and is dropped and counted where
        too many do."""
        cutting = _Cutting(Sort.MESSAGE, frames)
        if not bulk:
            pieces = []
            while cutting.missing:
                pieces.append(self._sealed(cutting.piece(), bulk=False))
            return pieces
        if len(self._waiting) >= QUEUE_MAX:
            self.dropped += 1
            return []
        self._waiting.append(cutting)
        return self._fill()

    def say(self, sort: Sort) -> Piece:
        """A word of the tunnel itself."""
        return self._sealed(_Cutting(sort).piece(), bulk=False)

    def told_taken(self, count: int) -> list[Piece]:
        """The other end has so many of our bulk pieces; more may go. Nothing follows from less than it said before, or from
        more than were sent."""
        if not self.taken < count <= self._next_out[True]:
            return []
        self.taken = count
        return self._fill()

    @property
    def is_waiting(self) -> bool:
        """Whether the other end has not taken all our bulk pieces yet."""
        return self.taken < self._next_out[True]

    def _fill(self) -> list[Piece]:
        pieces = []
        while self._waiting and self._next_out[True] - self.taken < WINDOW:
            cutting = self._waiting[0]
            pieces.append(self._sealed(cutting.piece(), bulk=True))
            if not cutting.missing:
                self._waiting.popleft()
        return pieces

    def _sealed(self, place: bytearray, bulk: bool) -> Piece:
        count = self._next_out[bulk]
        self._next_out[bulk] = count + 1
        cipher.seal_in_place(memoryview(place), _nonce(bulk, count), self._keys.outward)
        return Piece(bulk, count, memoryview(place).toreadonly())

    # ---- inwards --------------------------------------------------------------------------------------------------------

    def opened(self, bulk: bool, count: int, sealed: memoryview) -> Unwrapped | None:
        """The message that this piece completes, None where more must come. Raises `RejectedFrame`: REPLAYED for a piece that
        came before, BAD_SEAL for one that the other end did not seal for this place, GAP where pieces are missing before it,
        BAD_FRAMES for a message out of its bounds. After the last two the session is broken."""
        due, joining = self._next_in[bulk], self._joining[bulk]
        if count < due:
            raise RejectedFrame(Reason.REPLAYED)
        length, nonce = len(sealed) - TAG_BYTES, _nonce(bulk, count)
        fits = joining is not None and count == due and length <= joining.missing
        place = joining.room(length) if joining is not None and fits else memoryview(bytearray(length))
        if not cipher.open_into(place, sealed, nonce, self._keys.inward):
            raise RejectedFrame(Reason.BAD_SEAL)
        if count > due:
            raise RejectedFrame(Reason.GAP)
        self._next_in[bulk] = due + 1
        if joining is None:
            joining = self._joining[bulk] = _Joining.begin(place)
        elif not fits:
            raise RejectedFrame(Reason.BAD_FRAMES)
        else:
            joining.missing -= length
        if joining.missing:
            return None
        self._joining[bulk] = None
        return joining.whole()

    def taken_now(self) -> int | None:
        """How many bulk pieces have come, where it is time to say so: a message is whole, or some pieces have come."""
        count = self._next_in[True]
        if count == self._told or (count - self._told < TAKEN_EVERY and self._joining[True] is not None):
            return None
        self._told = count
        return count


class _Joining:
    """A message whose pieces are coming; its memory is taken once."""

    def __init__(self, sort: Sort, first: int, second: int) -> None:
        self.missing = first + second
        self._sort, self._first = sort, first
        self._octets = memoryview(bytearray(self.missing))

    @classmethod
    def begin(cls, piece: memoryview) -> "_Joining":
        """From its first piece. Raises `RejectedFrame` with BAD_FRAMES."""
        if len(piece) < _PREFIX.size:
            raise RejectedFrame(Reason.BAD_FRAMES)
        number, first, second = _PREFIX.unpack_from(piece)
        content = piece[_PREFIX.size :]
        is_message = number == Sort.MESSAGE
        is_within = 1 <= first <= HEADER_FRAME_MAX and second <= CHUNK_BYTES + TAG_BYTES if is_message else first == second == 0
        if not is_within or number > max(Sort) or len(content) > first + second:
            raise RejectedFrame(Reason.BAD_FRAMES)
        joining = cls(Sort(number), first, second)
        joining._octets[: len(content)] = content
        joining.missing -= len(content)
        return joining

    def room(self, length: int) -> memoryview:
        """Where the next so many bytes go."""
        start = len(self._octets) - self.missing
        return self._octets[start : start + length]

    def whole(self) -> Unwrapped:
        if self._sort is not Sort.MESSAGE:
            return Unwrapped(self._sort, ())
        head, body = bytes(self._octets[: self._first]), self._octets[self._first :].toreadonly()
        return Unwrapped(self._sort, (head, body) if len(body) else (head,))


_PREFIX = Struct("!BII")


class _Cutting:
    """A message that is put into pieces one by one; each byte is copied once, to where it is sealed."""

    def __init__(self, sort: Sort, frames: Sequence[Sized] = ()) -> None:
        contents: list[Any] = [memoryview(frame) for frame in frames]  # type: ignore[arg-type]  # buffers, says the engine
        first, second = (len(contents[k]) if k < len(contents) else 0 for k in range(2))
        self.missing = _PREFIX.size + first + second
        self._left = deque((memoryview(_PREFIX.pack(sort, first, second)), *contents))

    def piece(self) -> bytearray:
        """The next one, with room for its tag behind it."""
        length = min(self.missing, PIECE_BYTES)
        place, at, left = bytearray(length + TAG_BYTES), 0, self._left
        while at < length:
            part = left[0][: length - at]
            place[at : at + len(part)] = part
            at += len(part)
            left[0] = left[0][len(part) :]
            if not left[0]:
                left.popleft()
        self.missing -= length
        return place


def _nonce(bulk: bool, count: int) -> bytes:
    return count.to_bytes(8, "big") + bytes([bulk]) + bytes(cipher.NONCE_BYTES - 9)
