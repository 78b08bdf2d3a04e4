//! What operations on requests have in common: a request under way, its answer, and what there is to work with. No I/O.

use crate::limits::FRAME_HEADER_BYTES;
use crate::log::cursors::CursorReader;
use crate::log::topics::TopicReader;
use crate::pool::Memory;
use crate::roles::addresses::{Address, Addresses, Made};
use crate::roles::receive::hello::Refuse;
use crate::roles::receive::ingest::Ingest;
use crate::wire::frame::{self, REPLY_MORE, Reply, Request, VERSION_LOWEST};
use crate::wire::{Operation, Refusal};

/// A request under way.
#[derive(Debug)]
pub struct Asked {
    /// Its header.
    pub request: Request,
    /// Protocol version of the reply.
    pub version: u8,
    /// What it asks for.
    pub operation: Operation,
    /// The topic it names, if the operation takes one.
    pub topic: String,
    /// The body behind the topic's name.
    pub rest: Box<[u8]>,
    /// What was passed on to the sequencer; the operation's own.
    pub passed_on: Option<u64>,
    /// What it makes was counted for its address, at the first of its looks.
    pub is_counted: bool,
}

/// What a request is answered with; all zero where the operation has nothing to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Where a list goes on, if it does.
    pub more: Option<u64>,
    /// The operation's number.
    pub number: u64,
    /// The operation's body.
    pub body: Vec<u8>,
}

/// What a look at a request comes to. `None`: not done yet, look again.
pub type Looked = Result<Option<Answer>, Refuse>;

/// What operations work with.
pub struct Desk<'a, M> {
    /// The lane, to pass things on to the sequencer.
    pub ingest: &'a mut Ingest<M>,
    /// The committed topic table.
    pub topics: &'a mut TopicReader<M>,
    /// The committed cursors.
    pub cursors: &'a CursorReader<M>,
    /// Now, UTC ns.
    pub now_utc_ns: u64,
    /// Who asks.
    pub maker: Maker<'a>,
}

/// For whom what is made counts.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    /// What each address has.
    pub addresses: &'a Addresses,
    /// The asker's.
    pub address: Address,
    /// Now, ns.
    pub now_ns: u64,
}

impl Maker<'_> {
    /// Counts what does not exist yet, once for each request. `Err`: how many the address has, which is all it may.
    pub(super) fn count(&self, made: Made, what: u64, existing: impl FnOnce() -> Vec<u64>) -> Result<(), u32> {
        self.addresses.make(self.address, made, what, existing, self.now_ns)
    }
}

impl Asked {
    /// Takes a request whose header and body are sound as frames.
    ///
    /// # Errors
    /// The operation is not known, or does not take such a body.
    pub fn read(header: &[u8; FRAME_HEADER_BYTES], body: &[u8]) -> Result<Asked, Refuse> {
        let request: Request = frame::read(header);
        let version = request.version_in_use()?;
        let operation = Operation::from_byte(request.operation).map_err(|error| {
            Refuse::new(Refusal::UnknownOperation, 0, format!("{error}: this broker knows no other"))
        })?;
        let topic_bytes = usize::from(request.topic_bytes);
        let Some((topic, rest)) = body.split_at_checked(topic_bytes) else {
            let text = format!("a topic name of {topic_bytes} bytes in a body of {}", body.len());
            return Err(Refuse::new(Refusal::Protocol, 0, text));
        };
        let topic = match operation {
            Operation::TopicList => String::new(),
            _ => frame::check_topic_name(topic)?.to_string(),
        };
        Ok(Asked { request, version, operation, topic, rest: rest.into(), passed_on: None, is_counted: false })
    }

    /// The frame that answers it.
    pub fn reply(&self, answer: &Answer) -> Box<[u8]> {
        let header = Reply {
            flags: if answer.more.is_some() { REPLY_MORE } else { 0 },
            operation: self.request.operation,
            next: answer.more.unwrap_or(0),
            number: answer.number,
            version: self.version,
            ..Reply::default()
        };
        frame::with_body(&header, &answer.body).into()
    }
}

/// The frame that says why a request cannot be done.
pub fn refused(request: &Request, refuse: &Refuse) -> Box<[u8]> {
    let (operation, version) = (request.operation, request.version_in_use().unwrap_or(VERSION_LOWEST));
    let header = Reply { version, operation, code: refuse.refusal as u16, detail: refuse.detail, ..Reply::default() };
    frame::with_body(&header, refuse.text.as_bytes()).into()
}

/// Whether the sequencer has done what was passed on to it in a slot: then the table shows it.
pub(super) fn is_consumed<M: Memory>(desk: &mut Desk<M>, asked: &Asked) -> bool {
    desk.ingest.refresh();
    asked.passed_on.is_some_and(|slot| desk.ingest.lane.progress().consumed > slot)
}

/// Counts and says that an address has all it may: `found` of these exist.
pub(super) fn one_too_many<M: Memory>(desk: &mut Desk<M>, made: Made, found: u32) -> Refuse {
    desk.ingest.counters.address_bounds += 1;
    let (what, refusal) = match made {
        Made::Topic => ("topics", Refusal::TopicTableFull),
        Made::Cursor => ("cursors", Refusal::CursorTableFull),
    };
    let text = format!(
        "this address has made {found} {what} at this broker that exist, all that one address may have (per_address.{what}): delete one"
    );
    Refuse::new(refusal, found.into(), text)
}
