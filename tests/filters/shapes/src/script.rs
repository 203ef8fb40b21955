//! What a request asks of the filter: `phase verb words…; phase verb words…`, where `~` in a word is a space and `^`
//! a line feed.

/// One thing to do in one phase.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) phase: String,
    pub(crate) verb: String,
    words: Vec<String>,
}

/// The steps of `text`, in their order.
///
/// # Panics
/// At a step without a verb: the test is wrong, and must not pass.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    text.split(';').map(str::trim).filter(|step| !step.is_empty()).map(step).collect()
}

fn step(text: &str) -> Step {
    let mut words = text.split_whitespace().map(|word| word.replace('~', " ").replace('^', "\n"));
    let mut next = || words.next().unwrap_or_else(|| panic!("no phase and verb: {text:?}"));
    let (phase, verb) = (next(), next());
    Step { phase, verb, words: words.collect() }
}

impl Step {
    /// The word at `at`; empty where there are fewer.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The number at `at`; `all` is more than there ever is.
    pub(crate) fn number(&self, at: usize) -> usize {
        match self.word(at) {
            "all" => usize::MAX,
            word => word.parse().unwrap_or_else(|error| panic!("{self:?}: {word:?} is no number: {error}")),
        }
    }

    /// The `name=value,name=value` at `at`.
    pub(crate) fn pairs(&self, at: usize) -> Vec<(&str, &str)> {
        self.word(at).split(',').filter_map(|pair| pair.split_once('=')).collect()
    }
}
