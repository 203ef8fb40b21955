//! Calls that mean something as a whole. Drawn by themselves, a service that is there, a map that is well made and a grant that fits
//! hardly ever meet, and what lies behind them is never reached.

/// One of them: a function, and what each of its parameters is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) function: &'static str,
    pub(crate) given: &'static [Given],
}

/// What a parameter is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Given {
    Text(&'static str),
    /// A map as Proxy-Wasm has it, of these fields.
    Map(&'static [(&'static str, &'static str)]),
    Number(u32),
    /// What the host has written to this place.
    LiesAt(u32),
}

pub(crate) const fn whole(function: &'static str, given: &'static [Given]) -> Whole {
    Whole { function, given }
}

/// The bytes of a map as Proxy-Wasm has it: a count, the lengths, and the texts with a zero behind each.
pub(crate) fn map(fields: &[(&str, &str)]) -> Vec<u8> {
    let texts = || fields.iter().flat_map(|(name, value)| [name, value]);
    let mut bytes = (fields.len() as u32).to_le_bytes().to_vec();
    bytes.extend(texts().flat_map(|text| (text.len() as u32).to_le_bytes()));
    bytes.extend(texts().flat_map(|text| text.bytes().chain([0])));
    bytes
}
