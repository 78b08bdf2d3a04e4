//! The text format 0.0.4 of Prometheus, read by a reader of its own that forgives nothing: what `promtool check metrics` finds fault with is refused
//! here too, and so is what scrapers are lenient about.

use std::collections::{BTreeMap, BTreeSet};

/// A metric's samples, and what is said of them.
#[derive(Clone, Debug)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// Its labels but for `le`.
    fn series(&self) -> Vec<(&str, &str)> {
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        labels.filter(|(name, _)| *name != "le").collect()
    }
}

/// All families of a text, by name.
pub fn read(text: &str) -> Result<BTreeMap<String, Family>, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    for (number, line) in (1..).zip(text.split_terminator('\n')) {
        take(&mut families, line).map_err(|fault| format!("line {number}: {fault}: {line:?}"))?;
    }
    let mut known = BTreeMap::new();
    for family in families {
        check(&family).map_err(|fault| format!("{}: {fault}", family.name))?;
        if let Some(twice) = known.insert(family.name.clone(), family) {
            return Err(format!("{} is there twice", twice.name));
        }
    }
    Ok(known)
}

fn take(families: &mut Vec<Family>, line: &str) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ').ok_or("no help")?;
        let help = unescape(help, false)?;
        families.push(Family { name: name.to_owned(), kind: String::new(), help, samples: Vec::new() });
        return Ok(());
    }
    let family = families.last_mut().ok_or("no HELP before it")?;
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        let (name, kind) = rest.split_once(' ').ok_or("no type")?;
        if name != family.name || !family.kind.is_empty() || !family.samples.is_empty() {
            return Err(format!("it does not follow the HELP of {name}"));
        }
        kind.clone_into(&mut family.kind);
        return Ok(());
    }
    if family.kind.is_empty() {
        return Err(format!("no TYPE of {} before it", family.name));
    }
    let sample = sample(line)?;
    if !suffixes(&family.kind).iter().any(|suffix| sample.name == format!("{}{suffix}", family.name)) {
        return Err(format!("it is no sample of {}, a {}", family.name, family.kind));
    }
    family.samples.push(sample);
    Ok(())
}

fn suffixes(kind: &str) -> &'static [&'static str] {
    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            let end = end_of_text(after).ok_or("a label's value without an end")?;
            let value = unescape(&after[..end], true)?;
            if !is_label(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label:?} is none, or is there twice"));
            }
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or("labels without an end")?;
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    // Letters would be NaN, infinities or exponents: nothing that is counted here has these, and no time follows.
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("{value:?} is no number"));
    }
    let value = value.parse().map_err(|error| format!("{value:?}: {error}"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Where the text ends that a quotation mark closes.
fn end_of_text(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescape(text: &str, is_label: bool) -> Result<String, String> {
    let (mut plain, mut characters) = (String::new(), text.chars());
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            ('\\', Some('\\')) => plain.push('\\'),
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('"')) if is_label => plain.push('"'),
            ('\\', other) => return Err(format!("\\{other:?} is no escape")),
            (other, _) => plain.push(other),
        }
    }
    Ok(plain)
}

fn is_label(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_word && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Units that are not the base of their kind, and abbreviations.
const OTHER_UNITS: [&str; 24] = [
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "secs",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "b",
    "kb",
    "mb",
    "gb",
    "tb",
    "kib",
    "mib",
    "gib",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "percent",
];
const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];

fn check(family: &Family) -> Result<(), String> {
    let Family { name, kind, help, samples } = family;
    let words: Vec<&str> = name.split('_').collect();
    let fault = if !is_label(name) || words.contains(&"") {
        "its name is not words in small letters with _ between them"
    } else if words.iter().any(|word| OTHER_UNITS.contains(word)) {
        "its name has a unit that is not the base of its kind"
    } else if words.iter().any(|word| KINDS.contains(word)) {
        "its name says of which type it is"
    } else if !KINDS.contains(&kind.as_str()) {
        "its type is none of ours"
    } else if name.ends_with("_total") != (kind == "counter") {
        "counters end in _total, and nothing else does"
    } else if ["_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix)) {
        "it ends as parts of a histogram do"
    } else if help.trim().is_empty() || help.trim() != help {
        "it has no help, or spaces around it"
    } else if samples.is_empty() {
        "it has no sample"
    } else if kind != "histogram" && samples.iter().any(|sample| sample.labels.contains_key("le")) {
        "only histograms have the label le"
    } else if unit_of(&words).is_none_or(|at| at == words.len() - 1 - usize::from(kind == "counter")) {
        let mut seen = BTreeSet::new();
        match samples.iter().find(|sample| !seen.insert((&sample.name, &sample.labels))) {
            Some(twice) => return Err(format!("{twice:?} is there twice")),
            None if kind == "histogram" => return check_histogram(family),
            None => return Ok(()),
        }
    } else {
        "its unit is not at its end"
    };
    Err(fault.to_owned())
}

fn unit_of(words: &[&str]) -> Option<usize> {
    words.iter().rposition(|word| ["seconds", "bytes"].contains(word))
}

fn check_histogram(family: &Family) -> Result<(), String> {
    let mut series: BTreeMap<Vec<(&str, &str)>, Vec<&Sample>> = BTreeMap::new();
    for sample in &family.samples {
        series.entry(sample.series()).or_default().push(sample);
    }
    for (labels, samples) in series {
        let fault = |fault: &str| Err(format!("{labels:?}: {fault}"));
        let (mut bound_before, mut below) = (f64::NEG_INFINITY, 0.0);
        let is_bucket = |sample: &&&Sample| sample.name.ends_with("_bucket");
        for bucket in samples.iter().filter(is_bucket) {
            let bound = match bucket.labels.get("le").map(String::as_str) {
                Some("+Inf") => f64::INFINITY,
                Some(bound) => bound.parse().map_err(|_| format!("{bound:?} is no bound"))?,
                None => return fault("a bucket has no bound"),
            };
            if bound <= bound_before || bucket.value < below {
                return fault("buckets are not cumulative");
            }
            (bound_before, below) = (bound, bucket.value);
        }
        let parts: BTreeMap<&str, f64> = samples
            .iter()
            .filter(|sample| !is_bucket(sample))
            .map(|sample| (&sample.name[family.name.len()..], sample.value))
            .collect();
        if bound_before != f64::INFINITY {
            return fault("there is no bucket for everything");
        }
        match (parts.get("_count"), parts.get("_sum")) {
            (Some(count), Some(sum)) if *count == below && (*sum == 0.0 || below > 0.0) => {}
            parts => return fault(&format!("{below} are in all buckets, and count and sum are {parts:?}")),
        }
    }
    Ok(())
}

/// The reader itself: it takes what is right, and refuses each fault for its own sake.
#[test]
fn what_is_wrong_is_refused() {
    let right = "# HELP a_total What \\\\ is.\n# TYPE a_total counter\na_total{x=\"1\\\"\\n\\\\\"} 1\na_total 2.5\n\
                 # HELP h_seconds Times.\n# TYPE h_seconds histogram\nh_seconds_bucket{x=\"1\",le=\"0.1\"} 1\n\
                 h_seconds_bucket{x=\"1\",le=\"+Inf\"} 2\nh_seconds_sum{x=\"1\"} 3\nh_seconds_count{x=\"1\"} 2\n";
    let families = read(right).unwrap();
    assert_eq!(families["a_total"].samples[0].labels["x"], "1\"\n\\");
    assert_eq!((families["a_total"].help.as_str(), families["h_seconds"].samples.len()), ("What \\ is.", 4));
    let wrong = [
        ("# HELP a_total What \\\\ is.\n", "", "no HELP"),
        ("What \\\\ is.", " ", "no help"),
        ("What \\\\ is.", "What \\x is.", "no escape"),
        ("# TYPE a_total counter\n", "", "no TYPE"),
        ("# TYPE a_total counter\n", "# TYPE a_total counter\n# TYPE a_total counter\n", "does not follow"),
        ("a_total counter", "a_total untyped", "none of ours"),
        ("a_total counter", "a_total gauge", "_total"),
        ("a_total", "a", "_total"),
        ("a_total", "a_ms_total", "base of its kind"),
        ("a_total", "a_seconds_x_total", "not at its end"),
        ("a_total", "a_counter_total", "which type"),
        ("a_total", "a__b_total", "small letters"),
        ("a_total", "aB_total", "small letters"),
        ("\na_total 2.5\n", "\nb_total 2.5\n", "no sample of"),
        ("\na_total 2.5\n", "\na_total 2.5\na_total 2.5\n", "twice"),
        ("\na_total 2.5\n", "\na_total 2.5 1700000000\n", "no number"),
        ("\na_total 2.5\n", "\na_total NaN\n", "no number"),
        ("\na_total 2.5\n", "\n\na_total 2.5\n", "no value"),
        ("{x=\"1\\\"\\n\\\\\"}", "{x=\"1\",x=\"2\"}", "twice"),
        ("{x=\"1\\\"\\n\\\\\"}", "{X=\"1\"}", "is none"),
        ("{x=\"1\\\"\\n\\\\\"}", "{x=\"1\\t\"}", "no escape"),
        ("{x=\"1\\\"\\n\\\\\"}", "{le=\"1\"}", "label le"),
        ("{x=\"1\\\"\\n\\\\\"}", "{x=\"1\"", "without an end"),
        ("h_seconds_sum{x=\"1\"} 3\n", "", "count and sum"),
        ("h_seconds_count{x=\"1\"} 2\n", "h_seconds_count{x=\"1\"} 3\n", "count and sum"),
        ("h_seconds_bucket{x=\"1\",le=\"+Inf\"} 2\n", "", "no bucket for everything"),
        ("le=\"0.1\"} 1", "le=\"0.1\"} 3", "not cumulative"),
        ("x=\"1\",le=\"0.1\"", "x=\"1\"", "no bound"),
    ];
    for (part, instead, expected) in wrong {
        let text = right.replace(part, instead);
        let fault = read(&text).expect_err(&text);
        assert!(fault.contains(expected), "{instead:?} instead of {part:?}: {fault}");
    }
    let first = right.split_inclusive("2.5\n").next().unwrap();
    assert!(read(&format!("{right}{first}")).unwrap_err().contains("twice"), "families are contiguous");
    assert!(read(right.trim_end()).unwrap_err().contains("has no end"));
    let empty = "# HELP a_total A.\n# TYPE a_total counter\n";
    assert!(read(empty).unwrap_err().contains("no sample"));
}
