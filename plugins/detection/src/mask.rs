//! What stands in the place of what was found.

use crate::find::Detectors;

/// The text for each detector, as it is and as it stands inside a JSON string.
#[derive(Debug)]
pub struct Mask {
    plain: Vec<String>,
    json: Vec<String>,
}

impl Mask {
    /// `template` with `{detector}` replaced by the detector's name, for each of them.
    pub fn new(template: &str, detectors: &Detectors) -> Self {
        let plain: Vec<_> = detectors.names().iter().map(|name| template.replace("{detector}", name)).collect();
        let json = plain.iter().map(|text| within_quotes(text)).collect();
        Self { plain, json }
    }

    /// What stands in the place of what this detector finds.
    pub fn text(&self, detector: usize) -> &str {
        self.plain.get(detector).map_or("", String::as_str)
    }

    pub(crate) fn json(&self, detector: usize) -> &str {
        self.json.get(detector).map_or("", String::as_str)
    }
}

fn within_quotes(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
