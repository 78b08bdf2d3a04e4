//! The limit of latency: a TCP ping-pong with the sizes of a batch and of an ack, both ends alike blocking or spinning.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use embarcadero::limits::FRAME_HEADER_BYTES;

use crate::args::EchoArgs;
use crate::error::CompareError;
use crate::sink::end_with_standard_input;

/// Bytes of an answer: an Ack frame.
pub const PONG_BYTES: usize = FRAME_HEADER_BYTES;
/// A peer that says nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Answers one connection after the other until standard input ends.
pub fn run(args: &EchoArgs) -> Result<(), CompareError> {
    let listener =
        TcpListener::bind(args.listen).map_err(CompareError::io(format!("echo: listening on {}", args.listen)))?;
    end_with_standard_input();
    println!("ready");
    loop {
        let (stream, _) = listener.accept().map_err(CompareError::io("echo: accepting"))?;
        match answer(stream, args) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => eprintln!("echo: {error}"),
            _ => (),
        }
    }
}

fn answer(stream: TcpStream, args: &EchoArgs) -> io::Result<()> {
    let mut end = End::new(stream, args.spin)?;
    let (mut ping, pong) = (vec![0; args.ping_bytes], [0; PONG_BYTES]);
    loop {
        end.read(&mut ping)?;
        end.write(&pong)?;
    }
}

/// One end of the ping-pong.
pub struct End {
    stream: TcpStream,
    spin: bool,
}

impl End {
    /// Connects to an [`echo`](run) that was started the same way.
    pub fn connect(address: SocketAddr, spin: bool) -> io::Result<End> {
        End::new(TcpStream::connect_timeout(&address, SILENCE_MAX)?, spin)
    }

    fn new(stream: TcpStream, spin: bool) -> io::Result<End> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(spin)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(End { stream, spin })
    }

    /// Fills `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.spin {
            return self.stream.read_exact(buffer);
        }
        let (begin, mut filled, mut looks) = (Instant::now(), 0, 0_u32);
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    looks += 1;
                    if looks.is_multiple_of(1 << 16) && begin.elapsed() > SILENCE_MAX {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    std::hint::spin_loop();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends all of `buffer`: a message always fits the socket's buffer, since the last one was answered.
    pub fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.stream.write_all(buffer)
    }
}
