//! What of the page is asked for: how far back, and whether all rows.

use serde::Deserialize;

/// How far back the page looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Back {
    /// One hour.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// Six hours.
    #[serde(rename = "6h")]
    SixHours,
    /// A day.
    #[serde(rename = "24h")]
    Day,
    /// A week.
    #[serde(rename = "7d")]
    Week,
}

impl Back {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hour, Self::SixHours, Self::Day, Self::Week];

    /// In seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3600,
            Self::SixHours => 6 * 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
        }
    }

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// As it is read.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hour => "1 hour",
            Self::SixHours => "6 hours",
            Self::Day => "24 hours",
            Self::Week => "7 days",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// How far back.
    pub back: Back,
    /// All rows of the report, not the worst alone.
    pub all: bool,
}

/// The query of a request for the page.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    since: Back,
    rows: Option<Rows>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rows {
    All,
    Worst,
}

impl From<Asked> for View {
    fn from(asked: Asked) -> Self {
        Self {
            back: asked.since,
            all: matches!(asked.rows, Some(Rows::All)),
        }
    }
}

impl View {
    /// Views that differ.
    pub const COUNT: usize = 2 * Back::ALL.len();

    /// Its number among them.
    pub fn index(self) -> usize {
        let back = Back::ALL.iter().position(|back| *back == self.back).unwrap_or(0);
        back * 2 + usize::from(self.all)
    }

    /// Where it is had.
    pub fn address(self) -> String {
        let mut parts = Vec::new();
        if self.back != Back::default() {
            parts.push(format!("since={}", self.back.name()));
        }
        if self.all {
            parts.push("rows=all".to_owned());
        }
        if parts.is_empty() {
            "/".to_owned()
        } else {
            format!("/?{}", parts.join("&"))
        }
    }
}
