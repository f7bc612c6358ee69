//! Names of the ways to choose a range.

use std::fmt;
use std::str::FromStr;

/// How a range is chosen from what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// From the least to the greatest value.
    MinMax,
    /// The range that holds this share of the values, in per cent; of the others, at most half lie on either side.
    Percentile(f64),
    /// The range with the least mean square of the error of rounding and clipping to a grid.
    Mse,
}

/// By how much of itself a range of 16 bits usually goes further on either side than what was seen. Its steps are so fine
/// that coarser ones cost nothing beside what rounded weights do, while a value beyond the range is cut, and prompts
/// that were not drawn have some.
pub const HEADROOM: f32 = 0.25;

/// The integers that stand for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// How many there are: 256 for 8 bits. At least 3.
    pub levels: u32,
    /// Whether zero is in the middle, with as many levels below it as above it: -127 to 127 for 256 levels. Otherwise
    /// zero is one of the levels, wherever the range puts it.
    pub symmetric: bool,
}

/// The name of a percentile, before its number.
const PERCENTILE: &str = "percentile";

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile(share) => write!(f, "{PERCENTILE}:{share}"),
            Self::Mse => f.write_str("mse"),
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected `min-max`, `mse` or `{PERCENTILE}:P` with P from 50 to 100, got `{text}`");
        match text.split_once(':') {
            None if text == "min-max" => Ok(Self::MinMax),
            None if text == "mse" => Ok(Self::Mse),
            Some((PERCENTILE, share)) => {
                let share = share.parse().ok().filter(|share| (50.0..=100.0).contains(share));
                share.map(Self::Percentile).ok_or_else(expected)
            }
            _ => Err(expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for method in [Method::MinMax, Method::Mse, Method::Percentile(99.99)] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for text in ["", "max", "percentile", "percentile:", "percentile:nan", "percentile:101", "mse:1"] {
            let error = text.parse::<Method>().unwrap_err();
            assert!(error.ends_with(&format!("got `{text}`")), "{error}");
        }
    }
}
