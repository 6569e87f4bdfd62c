//! `/metrics` as a scraper reads it: series with their labels, kinds of families, and the lints of other people.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

/// One series and its value.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name, with `_bucket`, `_sum` or `_count` where it is of a histogram.
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// Everything one scrape gave.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Every series.
    pub series: Vec<Series>,
    /// `counter`, `gauge` or `histogram` by the name of the family.
    pub kinds: BTreeMap<String, String>,
    /// As it came.
    pub text: String,
}

impl Scrape {
    /// Reads the text format of Prometheus.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self { text: text.to_owned(), ..Self::default() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a name");
                scrape.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                scrape.series.push(series(line));
            }
        }
        scrape
    }

    /// The sum over the series of that name which have all of these labels; `None` when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has =
            |it: &Series| labels.iter().all(|(key, value)| it.labels.get(*key).is_some_and(|at| at == value));
        let found: Vec<f64> =
            self.series.iter().filter(|it| it.name == name && has(it)).map(|it| it.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// How many times something was counted or observed: a histogram's `_count`, else the series itself.
    pub fn times(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match self.kinds.get(family).map(String::as_str) {
            Some("histogram") => self.sum(&format!("{family}_count"), labels),
            _ => self.sum(family, labels),
        }
    }

    /// The names of a family's labels, less the `le` of buckets.
    pub fn label_names(&self, family: &str) -> BTreeSet<&str> {
        let of_family = self.series.iter().filter(|it| self.family_of(&it.name) == family);
        of_family.flat_map(|it| it.labels.keys()).map(String::as_str).filter(|it| *it != "le").collect()
    }

    /// The family that a series belongs to.
    pub fn family_of<'a>(&self, series: &'a str) -> &'a str {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|it| series.strip_suffix(it));
        parts
            .into_iter()
            .find(|it| self.kinds.get(*it).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(series)
    }

    /// Which series there are, without their values.
    pub fn identities(&self) -> BTreeSet<String> {
        self.series.iter().map(|it| format!("{}{:?}", it.name, it.labels)).collect()
    }
}

/// `name{label="value",…} 1.5`
fn series(line: &str) -> Series {
    let (head, value) = line.rsplit_once(' ').expect("a series has a value");
    let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    let Some((name, rest)) = head.split_once('{') else {
        return Series { name: head.to_owned(), labels: BTreeMap::new(), value };
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}: no end of its labels"));
    while let Some((label, after)) = rest.split_once("=\"") {
        // Values may hold escaped quotes, so the end is the first quote that no backslash precedes.
        let mut escaped = false;
        let end = after
            .find(|it| {
                let ends = it == '"' && !escaped;
                escaped = it == '\\' && !escaped;
                ends
            })
            .unwrap_or_else(|| panic!("{line}: no end of {label}"));
        labels.insert(label.trim_start_matches(',').to_owned(), after[..end].to_owned());
        rest = &after[end + 1..];
    }
    Series { name: name.to_owned(), labels, value }
}

/// What `promtool check metrics` complains of; `None` when it is not here (`TILLSTREAM_PROMTOOL`, which `make e2e` sets).
pub fn promtool_complaints(text: &str) -> Option<String> {
    let tool = std::env::var("TILLSTREAM_PROMTOOL").ok().filter(|it| !it.is_empty());
    if tool.is_none() {
        let required = std::env::var("TILLSTREAM_REQUIRE_OPS_TOOLS").is_ok_and(|it| it == "1");
        assert!(!required, "TILLSTREAM_PROMTOOL is not set; ops/dev/promtool.sh prints what it should be");
    }
    let mut child = Command::new(tool?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    // It exits 3 for lints, 1 for what it cannot read.
    Some(if output.status.success() { said } else { format!("{}: {said}", output.status) })
}
