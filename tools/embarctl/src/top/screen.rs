//! How a look at a pool is drawn: what it is, who waits for whom, what flows, and the table that was chosen.

use embarcadero::monitor::diagnosis::diagnose;
use embarcadero::monitor::history::second;
use embarcadero::monitor::stages::stages;
use embarcadero::observe::histogram::Distribution;
use embarcadero::utc::hour_of;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::Shown;
use super::grid::{lasting, short};
use super::views::View;

/// Findings that are shown, and their lines: words and remedy.
const CAUSES_MAX: usize = 4;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red);

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown) {
    let findings = findings(shown);
    let flow = flow(shown);
    let heights = [2, findings.len() as u16 + 1, flow.len() as u16 + 1, 1];
    let [head, why, flowing, tabs, table, keys] = Layout::vertical([
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Length(heights[2]),
        Constraint::Length(heights[3]),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(shown)), head);
    frame.render_widget(titled(" who waits for whom ", findings), why);
    frame.render_widget(titled(" what flows ", flow), flowing);
    frame.render_widget(Paragraph::new(names(shown)), tabs);
    draw_table(frame, shown, table);
    let help = "q end   tab 1-7 view   s sort   r reverse   space freeze   arrows scroll   + - how often";
    frame.render_widget(Paragraph::new(Span::styled(help, DIM)), keys);
}

fn titled<'a>(title: &'a str, lines: Vec<Line<'a>>) -> Paragraph<'a> {
    Paragraph::new(lines).block(Block::new().borders(Borders::TOP).title(title))
}

fn header(shown: &Shown) -> Vec<Line<'static>> {
    let (now, mebibytes) = (&shown.now, shown.now.pool.bytes >> 20);
    let frozen = if shown.is_frozen { "   FROZEN" } else { "" };
    // The rest of its line is of when it was looked at last.
    let lost = shown.lost.as_ref().map_or_else(String::new, |lost| format!("  LOST: {lost}"));
    let sequencer = match &now.sequencer {
        None => "sequencer: none has been active".to_owned(),
        Some(sequencer) => format!(
            "sequencer: candidate {} of host {}, process {}, epoch {}; positions {} to {} are kept; {} commits, {} fences, {} takeovers here",
            sequencer.candidate,
            sequencer.host,
            sequencer.process,
            sequencer.epoch,
            sequencer.floor,
            sequencer.watermark,
            short(sequencer.counters.commits as f64),
            sequencer.counters.fences,
            sequencer.counters.takeovers
        ),
    };
    let pool = format!(
        "  {}, {mebibytes} MiB, {} extents   {} UTC, every {:.1} s",
        now.pool.path,
        now.pool.extents,
        hour_of(now.taken_at),
        shown.every.as_secs_f64()
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    vec![
        Line::from(vec![
            Span::styled("Embarcadero", bold),
            Span::styled(lost, BAD),
            Span::raw(pool),
            Span::styled(frozen, BAD),
        ]),
        Line::raw(sequencer),
    ]
}

fn findings(shown: &Shown) -> Vec<Line<'static>> {
    let found = diagnose(&shown.before, &shown.now);
    let mut lines = Vec::new();
    for finding in found.iter().take(CAUSES_MAX) {
        let style = match finding.weight {
            0.65.. => BAD,
            0.1.. => Style::new().fg(Color::Yellow),
            _ => Style::new().fg(Color::Green),
        };
        lines.push(Line::from(vec![
            Span::styled(format!("{}: ", finding.cause), style.add_modifier(Modifier::BOLD)),
            Span::raw(finding.words.clone()),
        ]));
        lines.push(Line::styled(format!("    {}  [{}]", finding.remedy, finding.metric), DIM));
    }
    if found.len() > CAUSES_MAX {
        lines.push(Line::styled(format!("    and {} more", found.len() - CAUSES_MAX), DIM));
    }
    lines
}

/// The stages as there is room for: each begins where the one before it ends.
const STAGE_NAMES: [&str; 7] = [
    "landed > published",
    "> ordered",
    "> committed",
    "> acked",
    "> delivered",
    "landed > acked",
    "landed > delivered",
];

/// Rates from stage to stage, and how long each stage took.
fn flow(shown: &Shown) -> Vec<Line<'static>> {
    let (before, now) = (&shown.before, &shown.now);
    let rates = second(before, now);
    let acked: f64 = rates.acked_messages.iter().sum();
    let behind = now.brokers.iter().map(|broker| shown.lag_of(broker)).max().unwrap_or(0);
    let mut lines = vec![Line::raw(format!(
        "received {}/s ({:.1} MB/s)  ->  ordered {} batches/s  ->  acked {}/s  ->  delivered {}/s ({:.1} MB/s)",
        short(rates.published_messages),
        rates.published_bytes / 1e6,
        short(rates.ordered_batches),
        short(acked),
        short(rates.delivered_messages),
        rates.delivered_bytes / 1e6,
    ))];
    lines.push(Line::raw(format!(
        "waiting: {} slots for the sequencer, {} batches behind gaps, {behind} batches for the slowest subscriber",
        rates.waiting_slots, rates.parked_batches
    )));
    let stages = stages(Some(before), now);
    let row = |name: &str, of: &dyn Fn(&Distribution) -> String| {
        let cells: String = stages.iter().map(|(_, times)| format!("{:>19}", of(times))).collect();
        Line::raw(format!("{name:<5}{cells}"))
    };
    let names: String = STAGE_NAMES.iter().map(|name| format!("{name:>19}")).collect();
    lines.push(Line::styled(format!("     {names}"), DIM));
    lines.push(row("p50", &|times| lasting(times.quantile(0.5).unwrap_or(0))));
    lines.push(row("p99", &|times| lasting(times.quantile(0.99).unwrap_or(0))));
    lines.push(row("max", &|times| lasting(if times.count() > 0 { times.max() } else { 0 })));
    lines
}

fn names(shown: &Shown) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = if view == shown.view { Style::new().add_modifier(Modifier::REVERSED) } else { DIM };
        spans.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    Line::from(spans)
}

fn draw_table(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let grid = shown.view.grid(shown).sorted(shown.sorted_by, shown.is_reversed);
    let is_number = |column: usize| grid.rows.first().is_some_and(|row| row[column].value.is_some());
    let width = |column: usize| grid.widths(column) as u16;
    let aligned = |text: &str, column: usize| match is_number(column) {
        true => format!("{text:>width$}", width = width(column).into()),
        false => text.to_owned(),
    };
    let head = grid.head.iter().enumerate().map(|(column, name)| {
        let style = match shown.sorted_by == Some(column) {
            true => Style::new().add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
            false => DIM,
        };
        Span::styled(aligned(name, column), style)
    });
    let rows = grid.rows.iter().skip(shown.from.min(grid.rows.len().saturating_sub(1))).map(|row| {
        Row::new(row.iter().enumerate().map(|(column, cell)| {
            let style = if cell.is_bad { BAD } else { Style::new() };
            Span::styled(aligned(&cell.text, column), style)
        }))
    });
    let widths = (0..grid.head.len()).map(|column| Constraint::Length(width(column)));
    // Rather close together than cut off.
    let columns = grid.head.len() as u16;
    let is_roomy = (0..grid.head.len()).map(width).sum::<u16>() + 2 * columns <= area.width;
    let table = Table::new(rows, widths).header(Row::new(head)).column_spacing(if is_roomy { 2 } else { 1 });
    frame.render_widget(table, area);
}
