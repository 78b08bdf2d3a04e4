//! How far the pool's memory is made ready: a bar where somebody looks on, else a line of the log each second.

use std::io::{IsTerminal, Write, stderr};

use crate::pool::Touched;

/// Looks between two lines of the log: a second.
const LOOKS_PER_LINE: u64 = 5;
/// Length of the bar.
const BAR: u64 = 40;

/// Shows it.
pub(super) fn show(touched: Touched) {
    if stderr().is_terminal() {
        // Nothing is lost if it cannot be drawn.
        let _ = write!(stderr(), "{}", drawn(touched));
    } else if touched.told.is_multiple_of(LOOKS_PER_LINE) {
        log::info!("{}", words(touched));
    }
}

fn words(Touched { what, done, all, .. }: Touched) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!("{what}: {:.1} of {:.1} GiB", gib(done), gib(all))
}

/// Over what was drawn before; the last one leaves nothing.
fn drawn(touched: Touched) -> String {
    const BACK_AND_CLEAR: &str = "\r\x1b[K";
    if touched.done == touched.all {
        return BACK_AND_CLEAR.to_owned();
    }
    let full = (touched.done * BAR / touched.all.max(1)) as usize;
    format!("{BACK_AND_CLEAR}[{:<width$}] {}", "#".repeat(full), words(touched), width = BAR as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_it_is_half_a_bar() {
        let half = Touched { what: "touching", done: 1 << 30, all: 2 << 30, told: 1 };
        let expected = format!("\r\x1b[K[{}{}] touching: 1.0 of 2.0 GiB", "#".repeat(20), " ".repeat(20));
        assert_eq!(drawn(half), expected);
        assert_eq!(drawn(Touched { done: 2 << 30, ..half }), "\r\x1b[K");
    }
}
