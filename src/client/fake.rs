//! A broker for tests: each connection is played by a script, over real TCP, with a deadline on every wait.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytemuck::pod_read_unaligned;

use crate::client::batch::{Buffer, Filler, Identity, Shape};
use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::{
    self, BatchHeader, Deliver, Frame, Hello, LogRecord, Refused, Reply, Request, Welcome, with_body,
};
use crate::wire::{BatchDecoder, FrameKind, OrderLevel, Progress, Refusal};

/// No script waits longer than this for anything.
const PATIENCE: Duration = Duration::from_millis(1500);
pub const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Listens until it is dropped. The n-th connection is played by `script(n, peer)`, each on its own thread.
pub struct Fake {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(script: impl Fn(usize, &mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, script) = (stop.clone(), Arc::new(script));
        let accept = move || {
            let mut players = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (script, number) = (script.clone(), players.len());
                players.push(thread::spawn(move || {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    // A script ends with an error when the client closes; the test looks at what was recorded.
                    let _ = script(number, &mut Peer { stream });
                }));
            }
            players.into_iter().for_each(|player| player.join().unwrap());
        };
        Fake { address, stop, thread: Some(thread::spawn(accept)) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let joined = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || joined.is_none_or(|joined| joined.is_ok()), "a script panicked");
    }
}

/// The broker's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// The hello and the topic's name.
    pub fn hello(&mut self) -> io::Result<(Hello, String)> {
        let (hello, name) = self.hello_bytes()?;
        Ok((hello, String::from_utf8(name).unwrap()))
    }

    /// The hello and its body.
    pub fn hello_bytes(&mut self) -> io::Result<(Hello, Vec<u8>)> {
        let (header, body) = self.frame()?;
        assert_eq!(header[5], FrameKind::Hello as u8);
        Ok((frame::read(&header), frame::check_body(&header, &body).unwrap().to_vec()))
    }

    /// A request and its body.
    pub fn request(&mut self) -> io::Result<(Request, Vec<u8>)> {
        let (header, body) = self.frame()?;
        let body = frame::check_body(&header, &body).unwrap().to_vec();
        Ok((frame::read(&header), body))
    }

    pub fn reply(&mut self, reply: Reply, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&with_body(&reply, body))
    }

    /// Any frame with its padded body; both CRCs of a batch are checked.
    fn frame(&mut self) -> io::Result<([u8; FRAME_HEADER_BYTES], Vec<u8>)> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut header)?;
        frame::check(&header, BATCH_BYTES_MAX).unwrap();
        let mut body = vec![0; frame::frame_bytes(&header) as usize - FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut body)?;
        Ok((header, body))
    }

    /// The next batch as it came; None for a goodbye.
    pub fn batch(&mut self) -> io::Result<Option<(BatchHeader, Vec<u8>)>> {
        let (header, body) = self.frame()?;
        let whole = [&header[..], &body].concat();
        match BatchDecoder::new(BATCH_BYTES_MAX).advance(&whole).unwrap() {
            Progress::Complete(header) => Ok(Some((header, whole))),
            Progress::Goodbye => Ok(None),
            Progress::Heartbeat => self.batch(),
            other => panic!("{other:?}"),
        }
    }

    pub fn send<F: Frame>(&mut self, frame: &F) -> io::Result<()> {
        self.stream.write_all(&frame::seal(frame))
    }

    /// Welcomes, and names these brokers.
    pub fn welcome(&mut self, welcome: Welcome, brokers: &[String]) -> io::Result<()> {
        let list: String = brokers.iter().enumerate().map(|(id, address)| format!("{id} {address}\n")).collect();
        self.stream.write_all(&with_body(&welcome, list.as_bytes()))
    }

    /// As `welcome`, of version 3, naming the log and how often the broker is heard.
    pub fn welcome_to(&mut self, log: &LogRecord, welcome: Welcome) -> io::Result<()> {
        let body = frame::welcome_body(3, log, "");
        self.stream.write_all(&with_body(&Welcome { version: 3, ..welcome }, &body))
    }

    pub fn refuse(&mut self, code: Refusal, detail: u64, text: &str) -> io::Result<()> {
        self.stream.write_all(&with_body(&Refused { code: code as u16, detail, ..Refused::default() }, text.as_bytes()))
    }

    /// A batch of these payloads at this order, as a subscriber gets it.
    pub fn deliver(&mut self, first_order: u64, payloads: &[&[u8]]) -> io::Result<()> {
        self.stream.write_all(&delivery(first_order, payloads, |_, _| ()))
    }
}

/// A Deliver frame with its batch; `change` may spoil either before the header CRCs are made.
pub fn delivery(first_order: u64, payloads: &[&[u8]], change: impl FnOnce(&mut Deliver, &mut Vec<u8>)) -> Vec<u8> {
    let shape = Shape { target_bytes: BATCH_BYTES_MAX, frame_bytes_max: BATCH_BYTES_MAX, messages_max: 1 << 10 };
    let mut filler = Filler::new(shape, Buffer::new());
    payloads.iter().for_each(|payload| filler.push(payload));
    let mut sealed = filler.seal(Buffer::new()).ok().unwrap();
    sealed.stamp(&Identity { session: 7, token: 0, epoch: 1, topic: 4 }, 0);
    let mut batch = sealed.into_buffer();
    let mut deliver = Deliver {
        message_count: payloads.len() as u32,
        first_order,
        position: first_order,
        session: 7,
        session_epoch: 1,
        topic: 4,
        body_bytes: batch.len() as u32,
        ..Deliver::default()
    };
    change(&mut deliver, &mut batch);
    [&frame::seal(&deliver)[..], &batch].concat()
}

/// A Welcome with everything a client needs, session 7 in epoch 1.
pub fn welcome(order_level: OrderLevel) -> Welcome {
    Welcome {
        session: 7,
        token: 99,
        session_epoch: 1,
        topic: 4,
        batch_bytes_max: BATCH_BYTES_MAX as u32,
        order_level: order_level as u8,
        ack_level: 1,
        window_batches_max: 64,
        ..Welcome::default()
    }
}

/// The payloads in a whole batch frame.
pub fn payloads(batch: &[u8]) -> Vec<Vec<u8>> {
    let header: BatchHeader = pod_read_unaligned(&batch[..FRAME_HEADER_BYTES]);
    let body = &batch[FRAME_HEADER_BYTES..][..header.body_bytes as usize];
    crate::wire::message::Messages::new(body).map(|message| message.payload.to_vec()).collect()
}
