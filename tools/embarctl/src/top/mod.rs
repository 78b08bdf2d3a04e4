//! `embarctl top`: a pool as it moves, on a terminal: who waits for whom, what flows, and what each broker, thread, lane, topic and session does.
//!
//! * `grid`: tables that can be sorted. `views`: what they hold.
//! * `screen`: how all of it is drawn.

mod grid;
mod screen;
mod views;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use embarcadero::monitor::diagnosis::{Life, WATCHED_FOR, life_between};
use embarcadero::monitor::snapshot::{BrokerFacts, Snapshot};
use embarcadero::pool::Pool;
use ratatui::backend::TestBackend;
use ratatui::{DefaultTerminal, Terminal};
use tools_common::arguments::duration;

use crate::common::print;
use crate::error::CommandError;
use crate::{Ended, Interrupt};
use views::View;

/// Which pool, and how often.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The pool: a file or a devdax device.
    #[arg(long, default_value = "/dev/shm/embarcadero", value_name = "PATH")]
    pool: PathBuf,
    /// How often it is looked at: 100ms to 1m. Roles report once a second.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    every: Duration,
    /// Print one screen after two looks, and end: for a pipe, or a file.
    #[arg(long)]
    once: bool,
    /// Columns of that screen.
    #[arg(long, default_value_t = 160, requires = "once", value_parser = clap::value_parser!(u16).range(40..=500))]
    columns: u16,
    /// Its lines.
    #[arg(long, default_value_t = 48, requires = "once", value_parser = clap::value_parser!(u16).range(20..=500))]
    lines: u16,
    /// What is shown first.
    #[arg(long, default_value = "brokers", value_enum)]
    view: View,
}

/// Shortest and longest time between two looks.
const EVERY_LEAST: Duration = Duration::from_millis(100);
const EVERY_MOST: Duration = Duration::from_secs(60);

/// Two looks at a pool, and how they are shown.
struct Shown {
    before: Snapshot,
    /// Those between the two: what is looked at more often than counters move is compared with what was a while ago.
    between: VecDeque<Snapshot>,
    now: Snapshot,
    /// What became of the pool, if this is of one that is lost.
    lost: Option<String>,
    view: View,
    /// Column that rows are sorted by, largest first unless it is reversed; none: as they come.
    sorted_by: Option<usize>,
    is_reversed: bool,
    is_frozen: bool,
    /// Rows that are passed over.
    from: usize,
    every: Duration,
}

/// Shows it.
pub fn run(args: &TopArgs, interrupt: &Interrupt) -> Result<Ended, CommandError> {
    if !(EVERY_LEAST..=EVERY_MOST).contains(&args.every) {
        return Err(CommandError::Usage("--every is 100ms to 1m"));
    }
    interrupt.is_looked_at();
    let mut pool = Pool::look(&args.pool)?;
    let mut shown = Shown::of(Snapshot::take(&pool, true), args.view, args.every);
    if args.once {
        std::thread::sleep(args.every);
        shown.look(&mut pool);
        print(&as_text(&shown, args.columns, args.lines))?;
        return Ok(Ended::Done);
    }
    let mut terminal = ratatui::try_init().map_err(CommandError::Terminal)?;
    let result = show(&mut terminal, &mut shown, &mut pool, interrupt);
    ratatui::restore();
    result
}

/// One screen without a terminal.
fn as_text(shown: &Shown, columns: u16, lines: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, lines));
    let Ok(_) = terminal.draw(|frame| screen::draw(frame, shown));
    let buffer = terminal.backend().buffer();
    let line = |y: u16| -> String {
        let cells: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
        cells.trim_end().to_owned() + "\n"
    };
    let text: String = (0..lines).map(line).collect();
    text.trim_end().to_owned() + "\n"
}

fn show(
    terminal: &mut DefaultTerminal,
    shown: &mut Shown,
    pool: &mut Pool,
    interrupt: &Interrupt,
) -> Result<Ended, CommandError> {
    let mut look_at = Instant::now() + shown.every;
    loop {
        terminal.draw(|frame| screen::draw(frame, shown)).map_err(CommandError::Terminal)?;
        // Short, so that a signal is heard.
        let wait = look_at.saturating_duration_since(Instant::now()).min(Duration::from_millis(200));
        if event::poll(wait).map_err(CommandError::Terminal)?
            && let Event::Key(key) = event::read().map_err(CommandError::Terminal)?
            && key.kind == KeyEventKind::Press
        {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || !shown.press(key.code) {
                return Ok(Ended::Done);
            }
        }
        if interrupt.raised() {
            return Ok(Ended::Interrupted);
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + shown.every;
            if !shown.is_frozen {
                shown.look(pool);
            }
        }
    }
}

impl Shown {
    /// A first look at a pool.
    fn of(first: Snapshot, view: View, every: Duration) -> Shown {
        Shown {
            before: first.clone(),
            between: VecDeque::new(),
            now: first,
            lost: None,
            view,
            sorted_by: None,
            is_reversed: false,
            is_frozen: false,
            from: 0,
            every,
        }
    }

    /// Looks again. A pool that another has taken the place of is let go for that one, as soon as it is there.
    fn look(&mut self, pool: &mut Pool) {
        if let Err(lost) = pool.check() {
            match Pool::look(pool.path()) {
                Ok(another) => *pool = another,
                Err(_) => return self.lost = Some(lost.to_string()),
            }
            self.now = Snapshot::take(pool, true);
            (self.before, self.lost) = (self.now.clone(), None);
            return self.between.clear();
        }
        let now = Snapshot::take(pool, true);
        self.between.push_back(std::mem::replace(&mut self.now, now));
        while let Some(then) = self.between.pop_front_if(|then| self.now.time_since(then) >= WATCHED_FOR) {
            self.before = then;
        }
    }

    /// Time between the two looks, s.
    fn seconds(&self) -> f64 {
        self.now.time_since(&self.before).as_secs_f64()
    }

    /// How a broker is.
    fn life_of(&self, broker: &BrokerFacts) -> Life {
        life_between(&self.before, &self.now, broker).unwrap_or(Life::Lives)
    }

    /// Entries that the slowest subscriber of a broker has still to pass; those of one that is gone pass none.
    fn lag_of(&self, broker: &BrokerFacts) -> u64 {
        let pin = broker.member.pin.filter(|_| self.life_of(broker) != Life::Gone);
        self.now.sequencer.as_ref().zip(pin).map_or(0, |(sequencer, pin)| sequencer.watermark.saturating_sub(pin))
    }

    /// Time in which counters moved that far, s.
    fn counted_seconds(&self) -> f64 {
        self.now.counted_seconds_since(&self.before)
    }

    /// Does what a key says. False: it is to end.
    fn press(&mut self, key: KeyCode) -> bool {
        let columns = self.view.grid(self).head.len();
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char(' ' | 'f') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('s') => {
                self.sorted_by = match self.sorted_by {
                    None => Some(0),
                    Some(column) if column + 1 < columns => Some(column + 1),
                    Some(_) => None,
                }
            }
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Tab => self.turn_to(self.view.next()),
            KeyCode::Char(digit @ '1'..='9') => {
                if let Some(view) = View::ALL.get(digit as usize - '1' as usize) {
                    self.turn_to(*view);
                }
            }
            KeyCode::Char('+') => self.every = (self.every / 2).max(EVERY_LEAST),
            KeyCode::Char('-') => self.every = (self.every * 2).min(EVERY_MOST),
            KeyCode::Down | KeyCode::Char('j') => self.from += 1,
            KeyCode::Up | KeyCode::Char('k') => self.from = self.from.saturating_sub(1),
            KeyCode::PageDown => self.from += 20,
            KeyCode::PageUp => self.from = self.from.saturating_sub(20),
            KeyCode::Home => self.from = 0,
            _ => {}
        }
        true
    }

    fn turn_to(&mut self, view: View) {
        (self.view, self.sorted_by, self.from) = (view, None, 0);
    }
}

#[cfg(test)]
mod tests {
    use embarcadero::log::View as PoolView;
    use embarcadero::log::member::Member;
    use embarcadero::pool::region::Create;
    use embarcadero::pool::superblock::HomeHosts;
    use embarcadero::pool::{Mapped, Process, Software};
    use embarcadero::testing::memory::small_geometry;
    use std::sync::Arc;

    use super::*;

    fn shown(name: &str) -> Shown {
        let path = std::env::temp_dir().join(format!("embarctl-{name}-{}", std::process::id()));
        let geometry = small_geometry(1);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view =
            PoolView::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        drop(Member::announce(&view, 1, Process::this()));
        drop(Member::announce(&view, 0, Process::this()));
        let now = Snapshot::take(&pool, true);
        std::fs::remove_file(&path).unwrap();
        Shown::of(now, View::Brokers, Duration::from_secs(1))
    }

    #[test]
    fn a_pool_that_is_lost_is_told_of_and_the_one_in_its_place_is_shown() {
        let path = std::env::temp_dir().join(format!("embarctl-top-lost-{}", std::process::id()));
        let make = || {
            let geometry = small_geometry(1);
            Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap()
        };
        drop(make());
        let mut pool = Pool::look(&path).unwrap();
        let mut shown = Shown::of(Snapshot::take(&pool, true), View::Brokers, Duration::from_secs(1));
        let first = pool.superblock().uuid;
        std::fs::remove_file(&path).unwrap();
        shown.look(&mut pool);
        let text = as_text(&shown, 140, 40);
        assert!(text.contains("LOST: it was unlinked"), "{text}");
        drop(make());
        shown.look(&mut pool);
        std::fs::remove_file(&path).unwrap();
        let text = as_text(&shown, 140, 40);
        assert!(!text.contains("LOST") && pool.superblock().uuid != first, "{text}");
    }

    #[test]
    fn what_is_looked_at_often_is_compared_with_what_was_a_while_ago() {
        let path = std::env::temp_dir().join(format!("embarctl-top-often-{}", std::process::id()));
        let geometry = small_geometry(1);
        let mut pool =
            Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let mut shown = Shown::of(Snapshot::take(&pool, true), View::Brokers, EVERY_LEAST);
        let age = |shown: &mut Shown| {
            shown
                .between
                .iter_mut()
                .chain([&mut shown.before, &mut shown.now])
                .for_each(|one| one.moment -= EVERY_LEAST)
        };
        for _ in 0..50 {
            shown.look(&mut pool);
            age(&mut shown);
        }
        std::fs::remove_file(&path).unwrap();
        let apart = shown.now.time_since(&shown.before);
        assert!(apart >= WATCHED_FOR && shown.between.len() <= 16, "{apart:?}, {} between", shown.between.len());
    }

    #[test]
    fn every_view_is_drawn_on_every_screen() {
        let mut shown = shown("top-views");
        for view in View::ALL {
            shown.turn_to(view);
            for (columns, lines) in [(40, 20), (80, 24), (200, 60)] {
                let text = as_text(&shown, columns, lines);
                assert!(text.contains("Embarcadero") && text.lines().count() <= lines.into(), "{view:?}: {text}");
            }
        }
        shown.turn_to(View::Brokers);
        // Nothing is cut off: where there is little room, columns stand closer together.
        shown.now.brokers[0].address = Some("127.0.0.1:7300".to_owned());
        for (columns, names) in [(160, "subscribers  batches/s"), (140, "subscribers batches/s")] {
            let text = as_text(&shown, columns, 40);
            assert!(text.contains("127.0.0.1:7300 ") && text.contains(names), "{text}");
        }
        let text = as_text(&shown, 140, 40);
        assert!(
            text.contains("broker 0 is gone") || text.contains("nobody waits") || text.contains("broker"),
            "{text}"
        );
    }

    #[test]
    fn keys_sort_turn_freeze_and_end() {
        let mut shown = shown("top-keys");
        assert!(shown.press(KeyCode::Char('s')) && shown.sorted_by == Some(0));
        let first =
            |shown: &Shown| shown.view.grid(shown).sorted(shown.sorted_by, shown.is_reversed).rows[0][0].text.clone();
        assert_eq!(first(&shown), "1", "the largest comes first");
        assert!(shown.press(KeyCode::Char('r')));
        assert_eq!(first(&shown), "0");
        assert!(shown.press(KeyCode::Tab) && shown.view == View::Threads && shown.sorted_by.is_none());
        assert!(shown.press(KeyCode::Char('1')) && shown.view == View::Brokers);
        assert!(shown.press(KeyCode::Char(' ')) && shown.is_frozen);
        (0..20).for_each(|_| assert!(shown.press(KeyCode::Char('-'))));
        assert_eq!(shown.every, EVERY_MOST);
        (0..20).for_each(|_| assert!(shown.press(KeyCode::Char('+'))));
        assert_eq!(shown.every, EVERY_LEAST);
        assert!(!shown.press(KeyCode::Char('q')));
    }
}
