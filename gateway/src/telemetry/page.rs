//! One reading of every metric, and its Prometheus text (exposition format 0.0.4).
//!
//! The writer is our own: the numbers live in the modules that count them and in shards by worker, so a registry that
//! wants to own its metrics would only copy them; what is left to do is this much text.

use std::fmt::Write as _;

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
}

/// Metrics of one name.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name, such as `tidegate_exchanges_total`.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its series.
    pub samples: Vec<Sample>,
}

/// One number of a family.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What is appended to the family's name: `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// One reading of every metric.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

impl Page {
    /// Begins a family and returns it to add samples to.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> &mut Family {
        self.families.push(Family { name, help, kind, samples: Vec::new() });
        let last = self.families.len() - 1;
        &mut self.families[last]
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Kind::Counter, name, help).add(&[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: i64) {
        self.family(Kind::Gauge, name, help).put("", &[], value as f64);
    }

    /// The families read so far.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The page as Prometheus text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for family in self.families.iter().filter(|family| !family.samples.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
            for sample in &family.samples {
                text.push_str(family.name);
                text.push_str(sample.suffix);
                labels(&mut text, &sample.labels);
                let _ = writeln!(text, " {}", sample.value);
            }
        }
        text
    }
}

impl Family {
    /// Adds a sample that counts.
    pub fn add(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.put("", labels, value as f64);
    }

    /// Adds a sample.
    pub fn put(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
    }
}

fn labels(text: &mut String, labels: &[(&'static str, String)]) {
    for (place, (name, value)) in labels.iter().enumerate() {
        text.push(if place == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.counter("one_total", "Ones.", 1);
        page.family(Kind::Gauge, "two", "Twos.").put("", &[("name", "a\"b\\c\nd")], 2.5);
        page.family(Kind::Counter, "none_total", "Nothing was counted.");
        assert_eq!(
            page.text(),
            "# HELP one_total Ones.\n# TYPE one_total counter\none_total 1\n\
             # HELP two Twos.\n# TYPE two gauge\ntwo{name=\"a\\\"b\\\\c\\nd\"} 2.5\n"
        );
    }
}
