//! When memory may be used again: two floors, reader pins. What topics are kept for is in [`targets`](crate::log::targets).
//!
//! The floor is moved to where an extent ends that is wanted. In two steps, so that a pin cannot be missed: the sequencer publishes `closing`, fences,
//! reads the pins, then moves `floor`. A reader pins, fences, re-reads `closing`, and withdraws if it is passed. What is wanted and still pinned is
//! not closed: so a reader that goes from one broker to another pins it there while it is pinned here.

#[cfg(test)]
mod tests;

use crate::log::View;
use crate::log::commit::{CommitReader, Epoch};
use crate::log::damage::sound;
use crate::log::member::Silence;
use crate::log::recover::{FLOOR_LINE, RecoverError, in_record};
use crate::log::targets::Targets;
use crate::pool::Memory;
use crate::pool::line::{Owned, Peer};
use crate::pool::record::{BrokerLine, FloorLine, PinLine};

/// `position` of a pin that pins nothing.
pub const NO_PIN: u64 = u64::MAX;

/// The sequencer's side: decides what is given up.
#[derive(Debug)]
pub struct Trimmer<M> {
    memory: M,
    floors: Owned<FloorLine, M>,
    record: FloorLine,
    /// By member: brokers first, then attached places.
    pins: Vec<Peer<PinLine, M>>,
    members: Vec<Peer<BrokerLine, M>>,
    /// By member: incarnations up to this one are dead, and so are their pins.
    dead: Vec<u64>,
    /// By member.
    watched: Vec<Watched>,
    /// A pin kept the floor from where it was to go when that was last tried.
    is_held: bool,
    /// What topics are kept for.
    pub targets: Targets,
}

/// A pin as its holder last showed itself.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Of incarnation and beat; `None`: the line was being rewritten.
    silence: Silence<Option<(u64, u64)>>,
    /// It is not waited for until it shows itself again.
    is_dropped: bool,
}

impl<M: Memory> Trimmer<M> {
    /// Goes on from a predecessor's floor. Nothing is written before [`Self::announce`].
    pub fn new(view: &View<M>, candidate: u32, epoch: Epoch, floor: u64, checkpoint: u64) -> Self {
        let g = view.layout.geometry;
        let floors = Owned::take(view.memory.clone(), view.layout.floor_line(candidate));
        let record = FloorLine { epoch, closing: floor, floor, wanted: floor, checkpoint, ..FloorLine::default() };
        let line =
            |member| Peer::new(view.memory.clone(), view.layout.broker_line(member), view.access_to_member(member));
        let pin = |member| Peer::new(view.memory.clone(), view.layout.pin_line(member), view.access_to_member(member));
        Trimmer {
            memory: view.memory.clone(),
            floors,
            record,
            pins: (0..g.members()).map(pin).collect(),
            members: (0..g.members()).map(line).collect(),
            dead: vec![0; g.members() as usize],
            watched: vec![Watched::default(); g.members() as usize],
            is_held: false,
            targets: Targets::new(&g, floor),
        }
    }

    /// Publishes the floors it starts with. Every checkpoint was written before, for the position it names: if this process is
    /// killed in between and its predecessor was a former life of the same slot, a successor starts from these lines.
    pub fn announce(&mut self) {
        self.floors.publish(&self.record);
    }

    /// Positions below it are gone.
    pub fn floor(&self) -> u64 {
        self.record.floor
    }

    /// Gives up what lies below `target`, as far as pins and the checkpoint allow. True if a floor or what is wanted moved.
    pub fn advance(&mut self, target: u64) -> bool {
        if target > self.record.checkpoint || target <= self.record.floor {
            return false;
        }
        let closing = self.lowest_pin().min(target);
        let moves = target > self.record.wanted || closing > self.record.closing;
        if moves {
            self.record.wanted = target.max(self.record.wanted);
            self.record.closing = closing.max(self.record.closing);
            self.floors.publish(&self.record);
        }
        // Every later load of a pin sees whoever pinned before reading the new `closing`.
        self.memory.full_fence();
        let lowest = self.lowest_pin().min(closing);
        self.is_held = lowest < target;
        self.set_floor(lowest) | moves
    }

    fn lowest_pin(&self) -> u64 {
        (0..self.pins.len()).map(|member| self.pinned(member)).min().unwrap_or(NO_PIN)
    }

    /// What a member's pin holds back.
    fn pinned(&self, member: usize) -> u64 {
        let (record, watched) = (self.pins[member].observe(), &self.watched[member]);
        match watched.is_dropped && *watched.silence.seen() == record.map(shown) {
            true => NO_PIN,
            false => self.named(member, record),
        }
    }

    /// What a member's pin would hold back as long as it is waited for.
    fn named(&self, member: usize, record: Option<PinLine>) -> u64 {
        let pin = &self.pins[member];
        match record {
            Some(line) if line.incarnation <= self.dead[member] => NO_PIN,
            // It was not waited for once, or has yet to see the floors: what it names is gone, and its holder pins anew above.
            Some(line) if line.position < self.record.floor => NO_PIN,
            Some(line) => line.position,
            // Never written: nobody pins.
            None if self.memory.load(pin.at()) == 0 && self.memory.load(pin.at() + 8) == 0 => NO_PIN,
            // Its writer died while it wrote. A successor announces itself before it touches the pin.
            None if (1..=self.dead[member]).contains(&self.members[member].observe_words().incarnation) => NO_PIN,
            // Being rewritten: wait.
            None => 0,
        }
    }

    /// Looks at the pins that hold back memory which is wanted, every `interval_ns`. One whose holder has not renewed it for
    /// `silence_ns` of its member is not waited for until it shows itself again. The holder learns of it before it looks at another
    /// batch: see [`Pin::renew`].
    pub fn judge_pins(&mut self, now_ns: u64, interval_ns: u64, silence_ns: impl Fn(u32) -> u64) {
        for member in 0..self.pins.len() {
            let record = self.pins[member].observe();
            let is_in_the_way = self.named(member, record) < self.record.wanted;
            let (watched, shown) = (&mut self.watched[member], record.map(shown));
            if !is_in_the_way {
                watched.silence.broken();
            }
            let silent_ns = watched.silence.look(shown, now_ns, interval_ns);
            if silent_ns == 0 {
                watched.is_dropped = false;
            } else if !watched.is_dropped && silent_ns > silence_ns(member as u32) {
                self.drop_pin(member);
            }
        }
    }

    /// Says so first, then looks again: a holder that shows itself does it in the other order, so one of the two notices.
    fn drop_pin(&mut self, member: usize) {
        self.record.dropped_pins += 1;
        self.floors.publish(&self.record);
        self.memory.full_fence();
        let seen = self.pins[member].observe().map(shown);
        self.watched[member].is_dropped = seen == *self.watched[member].silence.seen();
        log::warn!(
            "member {member} did not look after what its readers have pinned while publishers waited for memory; it is not waited for"
        );
    }

    /// Pins dropped, ever.
    pub fn dropped_pins(&self) -> u64 {
        self.record.dropped_pins
    }

    /// Goes on counting dropped pins where a predecessor was, before [`Self::announce`].
    pub fn set_dropped_pins(&mut self, dropped_pins: u64) {
        self.record.dropped_pins = dropped_pins;
    }

    /// Notes that a member's process is gone, and its pins with it. `incarnation` was read before it was found gone.
    pub fn note_dead(&mut self, broker: u32, incarnation: u64) {
        let dead = &mut self.dead[broker as usize];
        *dead = incarnation.max(*dead);
    }

    fn set_floor(&mut self, floor: u64) -> bool {
        if floor <= self.record.floor {
            return false;
        }
        self.record.floor = floor;
        self.floors.publish(&self.record);
        self.targets.give_up(floor);
        true
    }

    /// Notes that every checkpoint stands for at least `position`.
    pub fn set_checkpoint(&mut self, position: u64) {
        if position > self.record.checkpoint {
            self.record.checkpoint = position;
            self.floors.publish(&self.record);
        }
    }

    /// Whether readers hold the floor below what was to be given up, or what ends at the floor itself: a line that is being rewritten
    /// may name any position.
    pub fn is_pinned(&self) -> bool {
        self.is_held || self.record.floor < self.record.wanted
    }
}

/// What a pin says of its holder: incarnation and beat.
fn shown(line: PinLine) -> (u64, u64) {
    (line.incarnation, line.beat)
}

/// A pin was not renewed for too long while memory was wanted; what it held may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The lowest position that can be pinned now. Everything below may be given up at any moment.
    pub closing: u64,
}

/// A reader's side: the pin of one exporter or attached subscriber.
#[derive(Debug)]
pub struct Pin<M> {
    memory: M,
    line: Owned<PinLine, M>,
    record: PinLine,
    /// Of the floors by which it was last known to be waited for: epoch, and pins dropped ever.
    known_by: Option<(u64, u64)>,
}

impl<M: Memory> Pin<M> {
    /// Takes a member's pin over, unpinned. The caller holds the member's host lock.
    pub fn take(view: &View<M>, broker: u32, incarnation: u64) -> Self {
        Pin::begin(view, broker, incarnation, |_| NO_PIN)
    }

    /// Takes a member's pin over as the process left it that had it before. The caller holds the member's host lock.
    pub fn take_on(view: &View<M>, broker: u32, incarnation: u64) -> Self {
        Pin::begin(view, broker, incarnation, |former| former.map_or(NO_PIN, |former| former.position))
    }

    fn begin(view: &View<M>, broker: u32, incarnation: u64, position: impl Fn(Option<PinLine>) -> u64) -> Self {
        let mut line: Owned<PinLine, M> = Owned::take(view.memory.clone(), view.layout.pin_line(broker));
        let record = PinLine { incarnation, position: position(line.current()), ..PinLine::default() };
        line.publish(&record);
        Pin { memory: view.memory.clone(), line, record, known_by: None }
    }

    /// The position pinned, or [`NO_PIN`].
    pub fn position(&self) -> u64 {
        self.record.position
    }

    /// Moves the pin up, or away. Down only through [`Self::try_lower`].
    pub fn raise(&mut self, position: u64) {
        assert!(position >= self.record.position, "a pin is lowered only with a look at the floors");
        if position != self.record.position {
            self.record.position = position;
            self.line.publish(&self.record);
        }
    }

    /// Shows that the holder still looks after its pin, and moves it up to `position`; then looks whether it was waited for all
    /// the time.
    ///
    /// The beat is visible before the floors are read, and the trimmer says what it is about to close before it looks at the beat
    /// again: so either it sees that the holder lives, or the holder sees that its pin lies below what is closing and pins again as if for
    /// the first time. A pin may lie below what is closing and be waited for all the same: it was there when the trimmer looked for the
    /// second time, and not yet at the first. Then nobody's was dropped since. False: the floors cannot be read now, so nothing is known.
    ///
    /// # Errors
    /// [`Dropped`] if what lies at `position` may be given up at any moment, or is gone. The pin is away: a holder with several
    /// readers ends those that stand below, and pins for the others as if for the first time.
    pub fn renew(&mut self, position: u64, floors: &FloorReader<M>) -> Result<bool, Dropped> {
        self.record.beat += 1;
        self.record.position = position.max(self.record.position);
        self.line.publish(&self.record);
        self.memory.full_fence();
        let Some(now) = floors.read() else { return Ok(false) };
        let known_by = Some((now.epoch, now.dropped_pins));
        let is_gone = now.floor > position || self.record.position > position;
        if now.closing > position && (is_gone || self.known_by != known_by) {
            self.raise(NO_PIN);
            return Err(Dropped { closing: now.closing });
        }
        self.known_by = known_by;
        Ok(true)
    }

    /// Pins the lowest position that can be pinned now; gives it. `None`: the floors cannot be read now, try again later.
    pub fn lower_to_floor(&mut self, floors: &FloorReader<M>) -> Option<u64> {
        let mut position = floors.read()?.closing;
        while let Err(closing) = self.try_lower(position, floors) {
            // The floors move up, so this ends; while a takeover is under way they are nobody's.
            position = closing.filter(|closing| *closing > position)?;
        }
        Some(position)
    }

    /// Tries to pin `position`, which may be lower than now. The error is the lowest position that can be pinned, if
    /// that is known.
    pub fn try_lower(&mut self, position: u64, floors: &FloorReader<M>) -> Result<(), Option<u64>> {
        let before = self.record.position;
        self.record.position = position.min(before);
        self.line.publish(&self.record);
        // The pin is visible before `closing` is read: the trimmer does it in the other order.
        self.memory.full_fence();
        let now = floors.read();
        let closing = now.map(|floors| floors.closing);
        if closing.is_some_and(|closing| closing <= position) {
            self.known_by = now.map(|floors| (floors.epoch, floors.dropped_pins));
            return Ok(());
        }
        self.record.position = before;
        self.line.publish(&self.record);
        Err(closing)
    }
}

/// What the readers of one member hold together by one pin, and whether it was waited for all the time: an exporter's side.
#[derive(Debug)]
pub struct Hold<M> {
    pin: Pin<M>,
    floors: FloorReader<M>,
}

impl<M: Memory> Hold<M> {
    /// Takes a member's pin over, unpinned. The caller holds the member's host lock.
    pub fn take(view: &View<M>, member: u32, incarnation: u64) -> Self {
        Hold { pin: Pin::take(view, member, incarnation), floors: FloorReader::new(view) }
    }

    /// Takes a member's pin over as the process left it that had it before: its readers may come back. Whether it was waited for is
    /// seen at the first look. The caller holds the member's host lock.
    pub fn take_on(view: &View<M>, member: u32, incarnation: u64) -> Self {
        Hold { pin: Pin::take_on(view, member, incarnation), floors: FloorReader::new(view) }
    }

    /// The floors.
    pub fn floors(&self) -> &FloorReader<M> {
        &self.floors
    }

    /// The position pinned, or [`NO_PIN`].
    pub fn position(&self) -> u64 {
        self.pin.position()
    }

    /// Moves the pin up to what the readers need. Says nothing of whether it was waited for.
    pub fn raise(&mut self, lowest: u64) {
        if lowest > self.pin.position() {
            self.pin.raise(lowest);
        }
    }

    /// Pins what is kept now for one more reader; gives the lowest position there is. `None`: the floors cannot be read now.
    pub fn lower_to_floor(&mut self) -> Option<u64> {
        self.pin.lower_to_floor(&self.floors)
    }

    /// Shows that the readers are looked after, and moves the pin up to `lowest`, what they need ([`NO_PIN`]: nothing). To be done
    /// every [`BEAT_NS`](crate::log::member::BEAT_NS) or so, before bytes are handed on, and after that if it took long. False:
    /// the floors cannot be read now, so nothing is known, and nothing may be handed on.
    ///
    /// # Errors
    /// [`Dropped`]: readers that need what lies below are to be ended, whatever they were handed since the last look may be
    /// other bytes by now; then this is called again for the others.
    pub fn look(&mut self, lowest: u64) -> Result<bool, Dropped> {
        if lowest == NO_PIN {
            self.pin.raise(NO_PIN);
            return Ok(true);
        }
        if self.pin.position() != NO_PIN {
            return self.pin.renew(lowest, &self.floors);
        }
        // It was dropped; these are the readers that stand where nothing was given up.
        match self.pin.try_lower(lowest, &self.floors) {
            Ok(()) => Ok(true),
            Err(Some(closing)) => Err(Dropped { closing }),
            Err(None) => Ok(false),
        }
    }
}

/// Reads the floors through the one accessor.
#[derive(Debug)]
pub struct FloorReader<M> {
    commit: CommitReader<M>,
    view: View<M>,
}

impl<M: Memory> FloorReader<M> {
    /// Over the sequencer's floors.
    pub fn new(view: &View<M>) -> Self {
        FloorReader { commit: CommitReader::new(view), view: view.clone() }
    }

    /// The floors now. `None`: no sequencer yet, or being rewritten; or damaged, see [`Self::fault`]: nothing is pinned by floors
    /// that nobody wrote.
    pub fn read(&self) -> Option<FloorLine> {
        let (_, floors) = self.commit.read(|candidate| self.view.layout.floor_line(candidate))?;
        sound(floors).ok()
    }

    /// What is damaged, if that is why the floors cannot be read: waiting does not help.
    pub fn fault(&self) -> Option<RecoverError> {
        let (commit, floors) = self.commit.read(|candidate| self.view.layout.floor_line(candidate))?;
        sound::<FloorLine>(floors).err().map(in_record(FLOOR_LINE, commit.candidate))
    }
}
