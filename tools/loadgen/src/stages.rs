//! What was measured of the ways of a message: percentiles of each stage, and curves of whole distributions.

use serde::{Deserialize, Serialize};
use tools_common::figures::Latencies;

/// Points of a curve for each factor of ten in what is above it: 90, 99, 99.9 % and so on.
const POINTS_PER_DECADE: u32 = 8;

/// A part of a message's way, and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// From what to what.
    pub name: String,
    /// Half of the messages took no longer, ns.
    pub p50_ns: u64,
    /// 99 % took no longer, ns.
    pub p99_ns: u64,
    /// 99.9 % took no longer, ns.
    pub p99_9_ns: u64,
    /// None took longer, ns.
    pub max_ns: u64,
}

impl Stage {
    /// From whoever measured it, all in ns: p50, p99, p99.9, the longest.
    pub fn new(name: impl Into<String>, [p50_ns, p99_ns, p99_9_ns, max_ns]: [u64; 4]) -> Stage {
        Stage { name: name.into(), p50_ns, p99_ns, p99_9_ns, max_ns }
    }
}

/// Everything measured of one way: how long how many percent took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// From what to what.
    pub path: String,
    /// From which time on it counts, where there are several.
    pub counted: String,
    /// Messages measured.
    pub messages: u64,
    /// Percent, and what so many percent took at most, µs. The last is the longest, at 100.
    pub points: Vec<(f64, f64)>,
}

/// A way that was measured: its path, from which time on it counts, and the latencies.
pub type Way<'a> = (&'static str, &'static str, &'a Latencies);

/// Name of a way.
fn name(path: &str, counted: &str) -> String {
    if counted.is_empty() { path.to_owned() } else { format!("{path}, {counted}") }
}

/// Its percentiles as a stage; none if no message was measured.
pub fn stage((path, counted, of): &Way<'_>) -> Option<Stage> {
    let ns = |us: f64| (us * 1e3).round() as u64;
    let at = [50.0, 99.0, 99.9].map(|percent| ns(of.percentile_us(percent)));
    (of.count() > 0).then(|| Stage::new(name(path, counted), [at[0], at[1], at[2], ns(of.max_us())]))
}

/// Its whole distribution; none if no message was measured.
pub fn curve((path, counted, of): &Way<'_>) -> Option<Curve> {
    let messages = of.count();
    if messages == 0 {
        return None;
    }
    let steps = ((messages as f64).log10() * f64::from(POINTS_PER_DECADE)).floor() as u32;
    let percents = (0..=steps).map(|step| 100.0 * (1.0 - 0.1_f64.powf(f64::from(step) / f64::from(POINTS_PER_DECADE))));
    let mut points: Vec<(f64, f64)> = percents.map(|percent| (percent, of.percentile_us(percent))).collect();
    points.push((100.0, of.max_us()));
    Some(Curve { path: (*path).to_owned(), counted: (*counted).to_owned(), messages, points })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_curves_are_of_what_was_recorded() {
        let mut of = Latencies::default();
        (1..=1000).for_each(|n| of.record(n * 1000));
        let way = ("publish to ack", "from sending", &of);
        let stage = stage(&way).unwrap();
        assert_eq!(stage.name, "publish to ack, from sending");
        let near = |ns: u64, us: f64| (ns as f64 / 1e3 - us).abs() < us / 500.0;
        assert!(near(stage.p50_ns, 500.0) && near(stage.p99_ns, 990.0), "{stage:?}");
        assert!(near(stage.p99_9_ns, 999.0) && near(stage.max_ns, 1000.0), "{stage:?}");
        let curve = curve(&way).unwrap();
        assert_eq!((curve.messages, curve.points.len()), (1000, 24 + 2));
        assert!(curve.points.is_sorted(), "{:?}", curve.points);
        assert!((curve.points[8].0 - 90.0).abs() < 1e-9 && (curve.points[8].1 - 900.0).abs() < 2.0);
        assert_eq!(curve.points.last().unwrap(), &(100.0, of.max_us()));
    }

    #[test]
    fn of_nothing_there_is_neither() {
        let of = Latencies::default();
        assert_eq!((stage(&("a", "", &of)), curve(&("a", "", &of))), (None, None));
    }
}
