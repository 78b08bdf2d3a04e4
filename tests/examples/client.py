#!/usr/bin/env python3
"""A client of Embarcadero in one file: create a topic, publish with acks, subscribe in order.

Written from src/wire/PROTOCOL.md alone, with nothing but the standard library. One connection to one broker: further connections of a
session, joining it again and reopening it after a fence are left out, and what would need them ends in an error.

    client.py create    HOST:PORT TOPIC
    client.py publish   HOST:PORT TOPIC            each line of the standard input is a message
    client.py subscribe HOST:PORT TOPIC [ORDER]    prints what there is, from the earliest or from ORDER on
"""
import select
import socket
import struct
import sys
import time

HELLO, WELCOME, REFUSED, BATCH, ACK, DELIVER, CAUGHT_UP, GOODBYE, REQUEST, REPLY, SKIPPED, HEARTBEAT, BROKERS = range(1, 14)
VERSIONS, BATCH_VERSION = (2, 3), 2  # Lowest and highest of the protocol; of the format of batches, under both.
LINE = 64  # Every frame is a multiple of this, bytes.
CONTROL_BODY_BYTES_MAX = 4096
BATCH_BYTES = 64 << 10  # Size at which a batch is sealed: in Python the CRC takes its time.
BATCH_MESSAGES_MAX = 1 << 20
PUBLISHER, SUBSCRIBER = 1, 2
AT_ORDER, EARLIEST, LATEST = 0, 1, 2
ANY_ORDER_LEVEL, COMMITTED, WAIT_FOR_ME = 255, 1, 1  # An order level, an ack level, a slow reader that is never skipped.
NOT_LET_GO = (1 << 64) - 1
TOPIC_CREATE = 1
TRY_AGAIN = {5, 10, 12, 24}  # Busy, Draining, HelloTimeout, NoSequencer.
FLAGS = {ACK: 1, REPLY: 1}  # The flags that are defined, by kind.
WAIT_S = 30.0  # Longest wait for an answer, an ack, or a sign of life.

PREFIX = struct.Struct("<4sBBHI")  # Magic, version, kind, flags, body_bytes; then 44 bytes as the kind defines; then two CRCs.
HELLO_OWN = struct.Struct("<BBBxQQQIIBBBxI")
WELCOME_OWN = struct.Struct("<IQQQIIBBHI")
REFUSED_OWN = struct.Struct("<HHQ32x")
BATCH_OWN = struct.Struct("<IQQQIIQ")
ACK_OWN = struct.Struct("<IQQQQQ")
DELIVER_OWN = struct.Struct("<IQQQQII")
CAUGHT_UP_OWN = struct.Struct("<IQ32x")
REQUEST_OWN = struct.Struct("<BxHQQBB2xI16x")
REPLY_OWN = struct.Struct("<BxHQQQ16x")
START = struct.Struct("<BB6xQQ")
TOPIC_RECORD = struct.Struct("<IHBBB3xIQQQQQQQ8x")
MESSAGE = struct.Struct("<IBBHQ")


class ProtocolError(Exception):
    """The broker sent what the protocol does not allow, or ended the connection: it is of no more use."""


class Refused(Exception):
    """The broker said no."""

    def __init__(self, code, detail, text):
        super().__init__(f"refused with code {code}, detail {detail}: {text.decode('utf-8', 'replace')}")
        self.code, self.detail = code, detail


def require(holds, what):
    if not holds:
        raise ProtocolError(what)


def crc_of_byte(crc):
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)  # The polynomial 0x1EDC6F41, reflected.
    return crc


def crc32c(data, table=tuple(map(crc_of_byte, range(256)))):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def padded(data, to):
    return data + bytes(-len(data) % to)


def frame(version, kind, own, body=b""):
    head = PREFIX.pack(b"EMBR", version, kind, 0, len(body)) + own + struct.pack("<I", crc32c(body))
    return padded(head + struct.pack("<I", crc32c(head)) + body, LINE)


def check_header(header, versions, body_bytes_max):
    """Makes the checks in the order that the protocol names. `body_bytes_max`: by kind, of those that may come here."""
    magic, version, kind, flags, body_bytes = PREFIX.unpack_from(header)
    body_crc, header_crc = struct.unpack_from("<II", header, 56)
    require(magic == b"EMBR" and version in versions, f"magic {magic}, version {version}")
    require(HELLO <= kind <= BROKERS, f"kind {kind}")
    # The time of receipt is written into a Batch without touching the CRC.
    covered = header[:48] + bytes(8) + header[56:60] if kind == BATCH else header[:60]
    require(crc32c(covered) == header_crc, f"the header CRC of a frame of kind {kind}")
    require(kind < HEARTBEAT or version > 2, f"a frame of kind {kind} under version 2")
    require(flags & ~FLAGS.get(kind, 0) == 0, f"flags {flags:#x} of a frame of kind {kind}")
    require(body_bytes <= body_bytes_max.get(kind, -1), f"a frame of kind {kind} with {body_bytes} bytes here")
    return version, kind, flags, header[12:56], body_bytes, body_crc


class Connection:
    """A socket that speaks in frames. For `with`: closed in an orderly way unless there was an error."""

    def __init__(self, address, first_frame):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), WAIT_S)
        self.versions = VERSIONS  # The one in use, once the broker has answered.
        self.batch_bytes_max = 0
        self.socket.sendall(first_frame)

    def read(self, *kinds):
        """The next frame, one of these kinds: kind, flags, own, body."""
        control = dict.fromkeys((WELCOME, REPLY, BROKERS), CONTROL_BODY_BYTES_MAX)
        longest = control | {DELIVER: self.batch_bytes_max}
        limits = {REFUSED: CONTROL_BODY_BYTES_MAX} | {kind: longest.get(kind, 0) for kind in kinds}
        header = check_header(self.read_exactly(LINE), self.versions, limits)
        version, kind, flags, own, body_bytes, body_crc = header
        body = self.read_exactly(body_bytes + -body_bytes % LINE)[:body_bytes]
        require(body_crc == (0 if kind == DELIVER else crc32c(body)), f"the body CRC of a frame of kind {kind}")
        if kind == REFUSED:
            code, _place, detail = REFUSED_OWN.unpack(own)
            raise Refused(code, detail, body)
        self.versions = (version,)
        return kind, flags, own, body

    def read_exactly(self, length):
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            require(part, "the broker closed the connection")
            data += part
        return bytes(data)

    def close(self):
        """Says goodbye and reads until the broker closes: what lies unread would reset the connection."""
        self.socket.sendall(frame(self.versions[0], GOODBYE, bytes(44)))
        while self.socket.recv(1 << 16):
            pass
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            self.socket.close()
        else:
            self.close()


class Welcomed(Connection):
    def __init__(self, address, role, body, ack_level=0, log=0, slow_reader=0):
        own = HELLO_OWN.pack(role, ack_level, ANY_ORDER_LEVEL, 0, 0, 0, 0, log, slow_reader, *VERSIONS, 0)
        super().__init__(address, frame(VERSIONS[0], HELLO, own, body))
        _, _, own, body = self.read(WELCOME)
        (self.session_epoch, self.session, _token, self.next, self.topic, self.batch_bytes_max, self.order_level,
         self.ack_level, self.broker, self.window_batches_max) = WELCOME_OWN.unpack(own)
        self.log_tag = 0
        if self.versions == (3,):
            require(len(body) >= 64, "a Welcome of version 3 without its Log record")
            self.log_tag, body = crc32c(body[:16]) or 1, body[64:]
        self.know(body)

    def know(self, body):
        """Which brokers there are: told at first, and again when one comes or goes."""
        self.brokers = [line.split(" ")[1] for line in body.decode().splitlines()]


class Publisher(Welcomed):
    """Publishes to one topic. What was sent is safe when `flush` or `close` has returned."""

    def __init__(self, address, topic):
        super().__init__(address, PUBLISHER, topic.encode(), ack_level=COMMITTED)
        require(self.ack_level == COMMITTED, f"ack level {self.ack_level} was granted")
        self.body_bytes_max = self.batch_bytes_max // LINE * LINE - LINE
        self.messages, self.message_count = bytearray(), 0  # The open batch.
        self.committed_next = self.next
        self.order_end = 0  # One past the order of the last message that is committed.

    def send(self, payload):
        message = padded(MESSAGE.pack(len(payload), 0, 0, 0, 0) + payload, MESSAGE.size)
        if len(message) > self.body_bytes_max:
            raise ValueError(f"a message of {len(payload)} bytes; at most {self.body_bytes_max - MESSAGE.size}")
        is_full = len(self.messages) + len(message) > min(BATCH_BYTES, self.body_bytes_max)
        if is_full or self.message_count == BATCH_MESSAGES_MAX:
            self.seal()
        self.messages += message
        self.message_count += 1

    def seal(self):
        """Sends the open batch, as soon as the window has room for it."""
        if self.message_count == 0:
            return
        self.await_acks(self.window_batches_max - 1)
        now = time.time_ns()
        own = BATCH_OWN.pack(self.message_count, self.session, self.next, now, self.session_epoch, self.topic, 0)
        self.socket.sendall(frame(BATCH_VERSION, BATCH, own, bytes(self.messages)))
        self.messages, self.message_count = bytearray(), 0
        self.next += 1

    def flush(self):
        """Waits until everything is committed."""
        self.seal()
        self.await_acks(0)

    def close(self):
        self.flush()
        super().close()

    def await_acks(self, unacked_max):
        """Takes what has come, and waits until no more than so many batches are unacked."""
        deadline = time.monotonic() + WAIT_S
        while self.next - self.committed_next > unacked_max or select.select([self.socket], [], [], 0)[0]:
            kind, flags, own, body = self.read(ACK, HEARTBEAT, BROKERS)
            if kind == ACK:
                self.take_ack(flags, *ACK_OWN.unpack(own))
            elif kind == BROKERS:
                self.know(body)
            if time.monotonic() > deadline:
                raise TimeoutError(f"batches from {self.committed_next} on are not acked")

    def take_ack(self, flags, epoch, session, committed_next, order_end, _broker_messages, let_go_from):
        require(session == self.session, f"an ack of session {session}")
        require(committed_next <= self.next, f"an ack of batch {committed_next - 1}, which was not sent")
        if committed_next > self.committed_next:
            self.committed_next, self.order_end = committed_next, order_end
        # One connection sends its batches in turn: none is missing, so none is let go and no fence comes.
        is_over = epoch > self.session_epoch
        if epoch == self.session_epoch:
            is_over = flags != 0 or let_go_from != NOT_LET_GO
        require(not is_over, f"the session is over; batches below {self.committed_next} are committed")


class Subscriber(Welcomed):
    """Reads one topic in order. `start`: (EARLIEST, 0), (LATEST, 0) or (AT_ORDER, order). `resume`: an earlier `position()`."""

    def __init__(self, address, topic, start=(EARLIEST, 0), resume=None):
        order, generation, log = resume or (0, 0, 0)
        kind, value = (AT_ORDER, order) if resume else start
        name = topic.encode()
        body = padded(START.pack(kind, len(name), value, generation) + name, 8)
        super().__init__(address, SUBSCRIBER, body, log=log, slow_reader=WAIT_FOR_ME)
        self.is_first = True  # No batch has come yet.

    def position(self):
        """Where another subscriber resumes: order of the next message, generation of the topic, tag of the log."""
        return self.next, self.session, self.log_tag

    def __iter__(self):
        """What there is and what will be, as (order, payload)."""
        while True:
            yield from self.up_to_now()

    def up_to_now(self):
        """What there is, as (order, payload)."""
        while True:
            kind, _, own, body = self.read(DELIVER, CAUGHT_UP, HEARTBEAT, BROKERS)
            if kind == DELIVER:
                yield from self.messages(body, *DELIVER_OWN.unpack(own))
            elif kind == BROKERS:
                self.know(body)
            elif kind == CAUGHT_UP:
                require(CAUGHT_UP_OWN.unpack(own) == (self.topic, self.next), "caught up elsewhere")
                return

    def messages(self, body, count, first_order, _position, session, batch_seq, epoch, topic):
        limits = {BATCH: self.batch_bytes_max - LINE}
        _, _, _, own, body_bytes, body_crc = check_header(body[:LINE], (BATCH_VERSION,), limits)
        require(len(body) == LINE + body_bytes + -body_bytes % LINE, "a Deliver whose body is not one batch")
        own = BATCH_OWN.unpack(own)
        require(own[:3] + own[4:6] == (count, session, batch_seq, epoch, topic), "a Deliver and its batch differ")
        require(topic == self.topic, f"a batch of topic {topic}")
        body = body[LINE:LINE + body_bytes]
        require(crc32c(body) == body_crc, f"the body CRC of the batch at order {first_order}")
        begins_before = self.is_first and first_order < self.next < first_order + count
        require(first_order == self.next or begins_before, f"order {first_order} came, {self.next} was due")
        self.is_first = False
        for order, payload in enumerate(payloads(body, count), first_order):
            if order == self.next:
                self.next += 1
                yield order, payload


def payloads(body, count):
    """The messages of a batch, all checked before the first is handed on."""
    found, at = [], 0
    for _ in range(count):
        require(at + MESSAGE.size <= len(body), "a message header past the end of the batch")
        payload_bytes, _received, attributes, key_bytes, _ts = MESSAGE.unpack_from(body, at)
        require(attributes == 0 and key_bytes == 0, "a message with what is reserved")
        found.append(body[at + MESSAGE.size:at + MESSAGE.size + payload_bytes])
        at += MESSAGE.size + payload_bytes + -payload_bytes % MESSAGE.size
    require(at == len(body), "messages end where the batch does not")
    return found


def create_topic(address, topic, order_level=5):
    """Creates the topic, or finds it with these properties. Returns its generation."""
    name = topic.encode()
    body = name + TOPIC_RECORD.pack(0, 0, order_level, COMMITTED, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    own = REQUEST_OWN.pack(TOPIC_CREATE, len(name), 0, 0, *VERSIONS, 0)
    deadline = time.monotonic() + WAIT_S
    while True:
        with Connection(address, frame(VERSIONS[0], REQUEST, own, body)) as connection:
            _, _, answer, text = connection.read(REPLY)
        operation, code, _next, generation, detail = REPLY_OWN.unpack(answer)
        require(operation == TOPIC_CREATE, f"an answer to operation {operation}")
        if code == 0:
            return generation
        if code not in TRY_AGAIN or time.monotonic() > deadline:
            raise Refused(code, detail, text)
        time.sleep(0.1)


def main(command, address, topic, order=None):
    if command == "create":
        print("generation", create_topic(address, topic))
    elif command == "publish":
        with Publisher(address, topic) as publisher:
            for line in sys.stdin.buffer:
                publisher.send(line.rstrip(b"\n"))
            publisher.flush()
            print(f"committed {publisher.committed_next} batches, up to order {publisher.order_end}")
    elif command == "subscribe":
        start = (EARLIEST, 0) if order is None else (AT_ORDER, int(order))
        with Subscriber(address, topic, start) as subscriber:
            for order, payload in subscriber.up_to_now():
                print(order, payload.decode("utf-8", "replace"))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ProtocolError, Refused, OSError) as error:
        sys.exit(f"client.py: {error}")
