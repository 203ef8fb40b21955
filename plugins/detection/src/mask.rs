//! What stands in the place of what was found.

use crate::find::Detectors;

/// The text for each detector, as it is, as it stands inside a JSON string, and as it stands in a form.
#[derive(Debug)]
pub struct Mask {
    plain: Vec<String>,
    json: Vec<String>,
    form: Vec<String>,
}

impl Mask {
    /// `template` with `{detector}` replaced by the detector's name, for each of them.
    pub fn new(template: &str, detectors: &Detectors) -> Self {
        let plain: Vec<_> = detectors.names().iter().map(|name| template.replace("{detector}", name)).collect();
        let json = plain.iter().map(|text| within_quotes(text)).collect();
        let form = plain.iter().map(|text| within_form(text)).collect();
        Self { plain, json, form }
    }

    /// What stands in the place of what this detector finds.
    pub fn text(&self, detector: usize) -> &str {
        self.plain.get(detector).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> &[String] {
        &self.json
    }

    pub(crate) fn form(&self) -> &[String] {
        &self.form
    }
}

fn within_quotes(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// As the URL standard serialises forms.
fn within_form(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b' ' => "+".to_owned(),
        b'*' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}
