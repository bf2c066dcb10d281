//! Medians, spreads and ratios over rounds, and numbers as text.

/// A figure over the rounds of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` when there is no value. Of an even number of values the median is the mean of the
    /// middle two.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Some(Self { median, min, max })
    }

    /// As text: the median, and the range where the rounds differ in the digits shown.
    pub fn text(&self, digits: usize) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(|x| number(x, digits));
        if min == max { median } else { format!("{median} ({min}–{max})") }
    }

    /// The same, each value times `factor`.
    pub fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, min: self.min * factor, max: self.max * factor }
    }
}

/// A number with `digits` decimals and commas between thousands.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !zero { "-" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let table = [
            (vec![7.0], [7.0, 7.0, 7.0]),
            (vec![3.0, 1.0], [2.0, 1.0, 3.0]),
            (vec![9.0, 1.0, 5.0], [5.0, 1.0, 9.0]),
            (vec![4.0, 1.0, 3.0, 2.0], [2.5, 1.0, 4.0]),
        ];
        for (values, wanted) in table {
            let found = Spread::of(&values).map(|s| [s.median, s.min, s.max]);
            assert_eq!(found, Some(wanted), "{values:?}");
        }
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn numbers_as_text() {
        let table = [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (999.5, 0, "1,000"),
            (1234567.891, 2, "1,234,567.89"),
            (-0.001, 2, "0.00"),
            (-1234.5, 1, "-1,234.5"),
        ];
        for (value, digits, wanted) in table {
            assert_eq!(number(value, digits), wanted);
        }
        let spread = Spread { median: 9.6, min: 9.61, max: 9.79 };
        assert_eq!(spread.text(1), "9.6 (9.6–9.8)");
        assert_eq!(spread.text(0), "10");
        assert_eq!(spread.times(100.0).text(0), "960 (961–979)");
    }
}
