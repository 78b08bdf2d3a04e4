//! Whether a reader read a stretch of a topic at order level 5: all of it, once, and nothing else.

use crate::ledger::Ledger;
use crate::verdict::Sent;

/// What a reader should have read.
pub struct Expected<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Order of its first message.
    pub first: u64,
    /// Order just past its last one.
    pub end: u64,
}

/// Everything wrong with what one reader read; nothing if it was right.
pub fn judge(expected: &Expected<'_>, ledger: &Ledger) -> Vec<String> {
    let Expected { name, first, end } = *expected;
    let mut reasons = Vec::new();
    match ledger.first {
        None => reasons.push(format!("{name}: nothing was read")),
        Some(found) if found > first => reasons.push(format!(
            "{name}: it began at order {found}, not {first}; if earlier messages were trimmed, the pool is too small for the topic"
        )),
        Some(found) if found < first => reasons.push(format!("{name}: it began at order {found}, before {first}")),
        Some(_) => {}
    }
    if ledger.faults() > 0 {
        let Ledger { gaps, repeats, wrong, .. } = ledger;
        reasons.push(format!("{name}: {gaps} messages missing, {repeats} again, {wrong} wrong; the first of them:"));
        reasons.extend(ledger.examples.iter().map(|example| format!("{name}: {example}")));
    }
    let wanted = end - first;
    if ledger.messages != wanted || ledger.next != end {
        let (messages, next) = (ledger.messages, ledger.next);
        reasons.push(format!("{name}: {messages} messages up to order {next}; there are {wanted} up to {end}"));
    }
    reasons
}

/// Everything wrong with the sessions of a reader that read all of the topic.
pub fn judge_sessions(name: &str, sessions: &[&Sent], ledger: &Ledger) -> Vec<String> {
    let mut reasons = Vec::new();
    for session in sessions {
        let read = ledger.sessions.iter().find(|read| read.session == session.session);
        let found = read.map_or((0, 0), |read| (read.first, read.messages));
        if found != (0, session.acked) {
            let (first, messages) = found;
            let (index, acked) = (session.index, session.acked);
            reasons.push(format!(
                "{name}: {messages} messages of publisher {index} from its {first}th on; {acked} were acked"
            ));
        }
    }
    let strangers = ledger.sessions.len().saturating_sub(sessions.len());
    if strangers > 0 {
        reasons.push(format!("{name}: {strangers} sessions are no publisher's"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Ledger {
        Ledger { first: Some(5), next: 20, messages: 15, ..Ledger::default() }
    }

    fn reasons(ledger: &Ledger) -> usize {
        judge(&Expected { name: "it", first: 5, end: 20 }, ledger).len()
    }

    #[test]
    fn all_of_it_once_is_right_and_nothing_else() {
        assert_eq!(reasons(&good()), 0);
        assert_ne!(reasons(&Ledger { gaps: 1, ..good() }), 0);
        assert_ne!(reasons(&Ledger { repeats: 1, ..good() }), 0);
        assert_ne!(reasons(&Ledger { wrong: 1, ..good() }), 0);
        assert_ne!(reasons(&Ledger { first: Some(6), messages: 14, ..good() }), 0);
        assert_ne!(reasons(&Ledger { first: Some(4), messages: 16, ..good() }), 0);
        assert_ne!(reasons(&Ledger { messages: 16, ..good() }), 0);
        assert_ne!(reasons(&Ledger { next: 19, messages: 14, ..good() }), 0);
        assert_ne!(reasons(&Ledger::default()), 0);
    }
}
