//! Members: their lines, their pins, and where they noted that memory failed.

use embarcadero::log::damage::{COUNT_MAX, FieldFault, count, exactly, within};
use embarcadero::log::faults;
use embarcadero::log::retention::NO_PIN;
use embarcadero::pool::record::{BrokerLine, FaultLine, FloorLine, PinLine, member_state};
use embarcadero::pool::{Access, line};

use super::epochs;
use super::findings::{Place, Promise};
use super::looking::{Owner, Pass};

/// Looks at all member lines and at notes of failed memory.
pub fn look_at_members(pass: &mut Pass<'_>) {
    let g = pass.view.layout.geometry;
    for member in 0..g.members() {
        let place = Place { region: "member line", number: member.into(), at: pass.view.layout.broker_line(member) };
        let Some((_, line)) = pass.look::<BrokerLine>(place, Owner::Member(member)) else { continue };
        pass.findings.looked(Promise::Members, 1);
        let home = pass.view.home_of_member(member);
        let checked = within("incarnation", line.incarnation, 1, COUNT_MAX)
            .and_then(|()| within("state", line.state, member_state::STARTING, member_state::LEAVING))
            .and_then(|()| exactly("host", line.host, home.into()));
        pass.findings.hold::<BrokerLine>(Promise::Members, place, checked);
    }
    for broker in 0..g.brokers {
        let place =
            Place { region: "failed memory of broker", number: broker.into(), at: pass.view.layout.fault_line(broker) };
        pass.findings.looked(Promise::Memory, 1);
        for offset in faults::noted(pass.view, broker).collect::<Vec<_>>() {
            let checked = within("offsets", offset, 0, g.pool_bytes - 1);
            if pass.findings.hold::<FaultLine>(Promise::Memory, place, checked) {
                let what = pass.view.layout.extent_of(offset);
                let what =
                    what.map_or("where the tables lie".into(), |extent| format!("extent {extent} is out of use"));
                pass.findings
                    .note(Promise::Memory, format!("memory failed at {offset}, under broker {broker}: {what}"));
            }
        }
    }
}

/// Holds all pins against floors that were read before, and the watermark that is read after each.
pub fn hold_pins(pass: &mut Pass<'_>, floors: &FloorLine) {
    for member in 0..pass.view.layout.geometry.members() {
        let place = Place { region: "pin of member", number: member.into(), at: pass.view.layout.pin_line(member) };
        let Some((_, pin)) = pass.look::<PinLine>(place, Owner::Member(member)) else { continue };
        pass.findings.looked(Promise::Pins, 1);
        let line: BrokerLine =
            line::observe_words(&pass.view.memory, pass.view.layout.broker_line(member), Access::Remote);
        if pin.position == NO_PIN {
            continue;
        }
        let watermark = epochs::current(pass).map_or(0, |commit| commit.watermark);
        let checked = check(&pin, &line, watermark);
        if !pass.findings.hold::<PinLine>(Promise::Pins, place, checked) || pin.position >= floors.floor {
            continue;
        }
        // A pin is let go of when its holder is gone, or shows no life while memory is wanted.
        let is_waited_for = pin.incarnation == line.incarnation && floors.dropped_pins == 0;
        if is_waited_for && pass.lives(Owner::Member(member)) {
            let expected = format!("the floor, {}, or more", floors.floor);
            pass.broken(Promise::Pins, place.broken(16, "position", pin.position, expected));
        } else {
            let (position, floor) = (pin.position, floors.floor);
            let note = format!("member {member} pins {position}, below the floor {floor}: it is not waited for");
            pass.findings.note(Promise::Pins, note);
        }
    }
}

fn check(pin: &PinLine, line: &BrokerLine, watermark: u64) -> Result<(), FieldFault> {
    count("position", pin.position)?;
    within("incarnation", pin.incarnation, 0, line.incarnation)?;
    within("position", pin.position, 0, watermark)
}
