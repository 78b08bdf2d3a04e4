//! Each way to fail is a failure, and what a level allows is not.

use std::sync::Arc;

use super::*;
use crate::BatchPlace;
use crate::payload::{PayloadWriter, Payloads};
use crate::verifier::{Source, Verifier};

const NOBODY: [Seen; 0] = [];

fn promise(order: Level) -> Promise {
    let too_slow = TooSlow::IsLetGo;
    Promise { order, is_acked: true, own_topic: true, wanted: Some(4), stopped: None, too_slow, interrupted: false }
}

fn session() -> Sent {
    Sent { session: 7, planned: 4, sent: 4, acked: 4, ..Sent::default() }
}

/// A subscriber that was handed these messages of publisher 0, one a batch.
fn reader(order: Level, numbers: &[u64]) -> Seen {
    let source = Source::Run { run: 1, messages: [4].into() };
    let payloads = Payloads::new(32);
    let mut verifier = Verifier::new(order, Arc::new(payloads.clone()), source, true);
    let mut writer = PayloadWriter::new(payloads, 1, 0);
    for (first_order, number) in (0..).zip(numbers) {
        let place = BatchPlace { first_order, session: 7, session_epoch: 1, batch_seq: *number, message_count: 1 };
        writer.with(*number, |payload| verifier.batch(&place, std::iter::once((first_order, payload))));
    }
    Seen { index: 0, topic: 0, summary: verifier.summary(), refused: None, error: None }
}

fn outcome(promise: &Promise, session: Sent, readers: &[Seen]) -> Outcome {
    judge(promise, &[session], readers).outcome
}

#[test]
fn all_of_it_is_a_pass() {
    let order = Level::Session;
    let readers = [reader(order, &[0, 1, 2, 3]), reader(order, &[0, 1, 2, 3])];
    assert_eq!(outcome(&promise(order), session(), &readers), Outcome::Pass);
}

#[test]
fn short_acks_fail() {
    let verdict = judge(&promise(Level::Session), &[Sent { acked: 3, ..session() }], &NOBODY);
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!(verdict.reasons, ["publisher 0: 3 of 4 messages acked (4 sent)"]);
}

#[test]
fn too_many_acks_fail() {
    assert_eq!(outcome(&promise(Level::Total), Sent { acked: 5, ..session() }, &NOBODY), Outcome::Fail);
}

#[test]
fn errors_fail() {
    let failed = Sent { error: Some("refused".to_owned()), ..session() };
    assert_eq!(outcome(&promise(Level::Total), failed, &NOBODY), Outcome::Fail);
}

#[test]
fn missing_messages_fail_at_every_level() {
    for order in &Level::ALL {
        assert_eq!(outcome(&promise(*order), session(), &[reader(*order, &[0, 1, 2])]), Outcome::Fail, "order {order}");
    }
}

#[test]
fn repeats_need_a_resend_and_a_level_that_allows_them() {
    let resent = Sent { resent_batches: 1, ..session() };
    for order in &Level::ALL {
        let readers = [reader(*order, &[0, 1, 1, 2, 3])];
        assert_eq!(outcome(&promise(*order), session(), &readers), Outcome::Fail, "order {order}");
        let allowed = if *order == Level::Session { Outcome::Fail } else { Outcome::Pass };
        let verdict = judge(&promise(*order), std::slice::from_ref(&resent), &readers);
        assert_eq!(verdict.outcome, allowed, "order {order}");
        assert_eq!(verdict.notes.is_empty(), allowed == Outcome::Fail, "a tolerated repeat is reported");
    }
}

#[test]
fn a_connections_order_matters_at_level_4_only() {
    for (order, expected) in [(Level::Connection, Outcome::Fail), (Level::Total, Outcome::Pass)] {
        assert_eq!(outcome(&promise(order), session(), &[reader(order, &[0, 2, 1, 3])]), expected);
    }
}

#[test]
fn a_session_nobody_owns_fails_at_level_5() {
    let order = Level::Session;
    let stranger = Sent { session: 8, ..session() };
    assert_eq!(outcome(&promise(order), stranger, &[reader(order, &[0, 1, 2, 3])]), Outcome::Fail);
}

#[test]
fn subscribers_that_disagree_fail() {
    let order = Level::Total;
    let readers = [reader(order, &[0, 1, 2, 3]), reader(order, &[1, 0, 2, 3])];
    let verdict = judge(&promise(order), &[session()], &readers);
    assert_eq!(verdict.outcome, Outcome::Fail, "{:?}", verdict.reasons);
}

#[test]
fn an_interrupted_run_is_not_short() {
    let promise = Promise { interrupted: true, ..promise(Level::Session) };
    let verdict = judge(&promise, &[Sent { acked: 2, sent: 3, ..session() }], &[reader(promise.order, &[0])]);
    assert_eq!((verdict.outcome, verdict.reasons.len()), (Outcome::Interrupted, 0));
}

#[test]
fn a_count_that_is_not_reached_fails() {
    let promise = Promise { own_topic: false, ..promise(Level::Session) };
    let verdict = judge(&promise, &[] as &[Sent], &[reader(promise.order, &[0, 1, 2])]);
    assert_eq!(verdict.outcome, Outcome::Fail);
}

#[test]
fn each_topic_is_judged_by_its_own_sessions() {
    let order = Level::Session;
    // Topic 1 has a session of its own, of which its reader saw nothing.
    let sessions = [session(), Sent { index: 1, topic: 1, session: 8, ..session() }];
    let other = Seen { index: 1, topic: 1, ..reader(order, &[]) };
    let verdict = judge(&promise(order), &sessions, &[reader(order, &[0, 1, 2, 3]), other]);
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert!(verdict.reasons.iter().all(|reason| reason.starts_with("subscriber 1")), "{:?}", verdict.reasons);
    // A reader of topic 1 that saw topic 0's session.
    let stray = Seen { index: 1, topic: 1, ..reader(order, &[0, 1, 2, 3]) };
    let verdict = judge(&promise(order), &sessions, &[stray]);
    assert!(verdict.reasons.iter().any(|reason| reason.contains("no publisher's")), "{:?}", verdict.reasons);
}

#[test]
fn only_the_reader_that_was_stopped_may_be_refused() {
    let order = Level::Session;
    let refused =
        || Seen { refused: Some("trimmed".to_owned()), error: Some("trimmed".to_owned()), ..reader(order, &[0, 1]) };
    let stopped = Promise { stopped: Some(0), ..promise(order) };
    let verdict = judge(&stopped, &[session()], &[refused()]);
    assert_eq!((verdict.outcome, verdict.notes.len()), (Outcome::Pass, 1), "{:?}", verdict.reasons);
    assert_eq!(outcome(&promise(order), session(), &[refused()]), Outcome::Fail);
    let other = Seen { index: 1, ..refused() };
    assert_eq!(outcome(&stopped, session(), &[other]), Outcome::Fail);
    let silent = reader(order, &[0, 1]);
    assert_eq!(outcome(&stopped, session(), &[silent]), Outcome::Fail, "messages missing without a word");
}

#[test]
fn more_messages_than_were_sent_fail() {
    let few = Sent { planned: 3, sent: 3, acked: 3, ..session() };
    assert_eq!(outcome(&promise(Level::Total), few, &[reader(Level::Total, &[0, 1, 2, 3])]), Outcome::Fail);
}

/// A subscriber that got message 0, was told that 1 and 2 were skipped, and went on with these.
fn skipping(from: u64, next_order: u64, then: &[u64]) -> Seen {
    let source = Source::Run { run: 1, messages: [4].into() };
    let payloads = Payloads::new(32);
    let mut verifier = Verifier::new(Level::Session, Arc::new(payloads.clone()), source, true);
    let mut writer = PayloadWriter::new(payloads, 1, 0);
    let mut deliver = |verifier: &mut Verifier, number| {
        let place =
            BatchPlace { first_order: number, session: 7, session_epoch: 1, batch_seq: number, message_count: 1 };
        writer.with(number, |payload| verifier.batch(&place, std::iter::once((number, payload))));
    };
    deliver(&mut verifier, 0);
    verifier.skip(from, next_order);
    then.iter().for_each(|number| deliver(&mut verifier, *number));
    Seen { summary: verifier.summary(), ..reader(Level::Session, &[]) }
}

#[test]
fn skips_that_were_told_and_asked_for_pass_and_nothing_else_may_miss() {
    let asked = Promise { too_slow: TooSlow::Skips, ..promise(Level::Session) };
    let complete = |result: Seen| {
        let missing = 4 - result.summary.unique;
        let summary = Summary { missing, ..result.summary };
        Seen { summary, ..result }
    };
    let good = || complete(skipping(1, 3, &[3]));
    let verdict = judge(&asked, &[session()], &[good(), Seen { index: 1, ..reader(asked.order, &[0, 1, 2, 3]) }]);
    assert_eq!((verdict.outcome, verdict.notes.len()), (Outcome::Pass, 1), "{:?}", verdict.reasons);
    let waits = Promise { too_slow: TooSlow::IsWaitedFor, stopped: Some(0), ..asked };
    let let_go = Promise { too_slow: TooSlow::IsLetGo, stopped: Some(0), ..asked };
    assert_eq!(outcome(&waits, session(), &[good()]), Outcome::Fail, "a reader that is waited for skips nothing");
    assert_eq!(outcome(&let_go, session(), &[good()]), Outcome::Pass);
    let other = Seen { index: 1, ..good() };
    assert_eq!(outcome(&let_go, session(), &[other]), Outcome::Fail, "it was not the one that was stopped");
    for (bad, why) in [
        (skipping(1, 2, &[3]), "a message missing beyond what was told"),
        (skipping(2, 3, &[3]), "the skip does not begin where it was"),
        (skipping(1, 3, &[]), "the last message missing"),
        (skipping(1, 3, &[3, 2]), "a message that was given up came"),
    ] {
        assert_eq!(outcome(&asked, session(), &[complete(bad)]), Outcome::Fail, "{why}");
    }
    let refused = Seen { refused: Some("too slow".into()), error: Some("too slow".into()), ..good() };
    assert_eq!(outcome(&Promise { stopped: Some(0), ..asked }, session(), &[refused]), Outcome::Fail);
}
