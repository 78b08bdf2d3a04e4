//! Metrics as OpenTelemetry has them, in its JSON encoding: `ExportMetricsServiceRequest` of
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/docs/specification.md>, and its answer. Numbers of 64 bits are texts there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::push::exposition::{Family, Kind, Point};

/// Values are since the start, not since the last push.
const CUMULATIVE: u32 = 2;

/// A request with all of it. `from` says where it was looked at, `at_ns` when, UTC ns.
pub fn request(families: &[Family], from: &str, at_ns: u64) -> Value {
    let starts = starts(families);
    let metrics: Vec<Value> = families.iter().map(|family| metric(family, &starts, at_ns)).collect();
    let resource = [("service.name", "embarcadero"), ("embarcadero.source", from)].map(attribute);
    json!({ "resourceMetrics": [{
        "resource": { "attributes": resource },
        "scopeMetrics": [{
            "scope": { "name": "embarctl push", "version": env!("CARGO_PKG_VERSION") },
            "metrics": metrics,
        }],
    }] })
}

fn attribute((key, value): (&str, &str)) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// When each broker's process began, UTC ns.
fn starts(families: &[Family]) -> BTreeMap<&str, u64> {
    let began = families.iter().find(|family| family.name == "embarcadero_broker_start_timestamp_seconds");
    let points = began.map_or(&[][..], |family| &family.points);
    points.iter().filter_map(|point| Some((label(point, "broker")?, (point.value * 1e9) as u64))).collect()
}

fn label<'a>(point: &'a Point, name: &str) -> Option<&'a str> {
    point.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn metric(family: &Family, starts: &BTreeMap<&str, u64>, at_ns: u64) -> Value {
    let points: Vec<Value> = family
        .points
        .iter()
        .map(|point| {
            let labels = point.labels.iter().map(|(name, value)| attribute((name, value)));
            let mut made = json!({ "attributes": labels.collect::<Vec<_>>(), "timeUnixNano": at_ns.to_string() });
            // Where it is not known when counting began, nothing is said of it.
            let start = label(point, "broker").and_then(|broker| starts.get(broker));
            if let Some(start) = start.filter(|_| family.kind != Kind::Gauge) {
                made["startTimeUnixNano"] = json!(start.to_string());
            }
            match family.kind {
                Kind::Histogram => buckets(&mut made, point),
                _ => made["asDouble"] = json!(point.value),
            }
            made
        })
        .collect();
    let mut made = json!({ "name": family.name, "description": family.help, "unit": unit(&family.name) });
    match family.kind {
        Kind::Counter => {
            made["sum"] = json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true });
        }
        Kind::Gauge => made["gauge"] = json!({ "dataPoints": points }),
        Kind::Histogram => {
            made["histogram"] = json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE });
        }
    }
    made
}

/// How many lie between two bounds; there they are how many are below.
fn buckets(made: &mut Value, point: &Point) {
    let bounds: Vec<f64> = point.below.iter().map(|(bound, _)| *bound).collect();
    let below = point.below.iter().map(|(_, below)| *below);
    let before = std::iter::once(0).chain(below.clone());
    let counts = below.chain([point.count]).zip(before).map(|(upper, lower)| upper.saturating_sub(lower).to_string());
    made["bucketCounts"] = json!(counts.collect::<Vec<_>>());
    made["explicitBounds"] = json!(bounds);
    made["count"] = json!(point.count.to_string());
    made["sum"] = json!(point.value);
}

/// In the notation of UCUM.
fn unit(name: &str) -> &'static str {
    match name.strip_suffix("_total").unwrap_or(name) {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "1",
    }
}

/// How many values were not taken, and why, if so.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partly = &answer["partialSuccess"];
    let values = &partly["rejectedDataPoints"];
    let values = values.as_u64().or_else(|| values.as_str()?.parse().ok()).filter(|values| *values > 0)?;
    Some((values, partly["errorMessage"].as_str().unwrap_or("it does not say why").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_how_many_lie_between_two_bounds() {
        let point = Point { value: 3.5, below: vec![(0.1, 1), (0.2, 1), (0.4, 4)], count: 6, ..Point::default() };
        let mut made = json!({});
        buckets(&mut made, &point);
        let expected = json!({ "bucketCounts": ["1", "0", "3", "2"], "explicitBounds": [0.1, 0.2, 0.4], "count": "6", "sum": 3.5 });
        assert_eq!(made, expected);
    }

    #[test]
    fn what_a_collector_did_not_take_is_told() {
        assert_eq!(rejected(b"{}"), None);
        assert_eq!(rejected(b""), None);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedDataPoints":"0","errorMessage":""}}"#), None);
        let partly = br#"{"partialSuccess":{"rejectedDataPoints":"7","errorMessage":"too old"}}"#;
        assert_eq!(rejected(partly), Some((7, "too old".to_owned())));
    }
}
