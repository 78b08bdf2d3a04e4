//! Numbers as people read them: grouped, rounded to what matters, with a unit that fits.

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits at least, and no digit before the point is lost: `1,234`, `85.3`, `0.042`.
pub fn rounded(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        return "not a number".to_owned();
    }
    if size < 1e-6 {
        return "0".to_owned();
    }
    let decimals = (2 - size.log10().floor() as i32).clamp(0, 9) as usize;
    if decimals == 0 {
        let sign = if number < 0.0 { "−" } else { "" };
        return format!("{sign}{}", grouped(size.round() as u64));
    }
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// For an axis: `0`, `200`, `1.5 k`, `20 k`, `3 M`.
pub fn short(number: f64) -> String {
    for (factor, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if number >= factor {
            return format!("{} {letter}", rounded(number / factor));
        }
    }
    rounded(number)
}

/// A time: `850 ns`, `12.3 µs`, `1.24 ms`, `2.5 s`.
pub fn time(ns: f64) -> String {
    for (factor, unit) in [(1e9, "s"), (1e6, "ms"), (1e3, "µs")] {
        // What is rounded up to the next unit belongs there.
        if ns >= 0.9995 * factor {
            return format!("{} {unit}", rounded(ns / factor));
        }
    }
    format!("{} ns", rounded(ns))
}

/// An amount of memory: `64 KiB`, `5.82 GiB`.
pub fn bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            return format!("{} {unit}", rounded(bytes as f64 / (1_u64 << shift) as f64));
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.042, 1.0, 85.34, 1234.4, 99_999.6].map(rounded),
            ["0", "0.042", "1", "85.3", "1,234", "100,000"]
        );
        assert_eq!([-1234.4, f64::NAN].map(rounded), ["−1,234", "not a number"]);
        assert_eq!([0.0, 200.0, 1500.0, 2e4, 3e6, 2.5e9].map(short), ["0", "200", "1.5 k", "20 k", "3 M", "2.5 G"]);
        assert_eq!([850.0, 12_345.0, 999_999.0, 2.5e9].map(time), ["850 ns", "12.3 µs", "1 ms", "2.5 s"]);
        assert_eq!([100, 64 << 10, 6_250_000_000].map(bytes), ["100 bytes", "64 KiB", "5.82 GiB"]);
    }
}
