//! An operator's own pattern: a regular expression whose matches have a greatest length.
//!
//! It runs as a deterministic automaton, built as it is needed: from where a match may begin it takes one step a byte, no more
//! than the longest match has, whatever the expression. And it can be asked whether the bytes at the end of a chunk may become
//! a match, which is what decides how much is held back. One that a text can make slow is refused.

use crate::{
    find::{At, LONGEST},
    steps::most_open,
};
use regex_automata::{
    Anchored, Input,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{Compiler, Config},
};
use std::cell::RefCell;

/// Longest match in bytes, so that a stream is held back by little.
const MATCH: usize = 256;
const _: () = assert!(MATCH + 4 < LONGEST, "no pattern holds back more than is promised");
/// Most steps that a byte may be made to cost. At some 6 ns each they bound what a caller can make a filter do: a body of the
/// gateway's usual limit (1 MiB), all of it slow, takes a few tenths of a second, and what is written with `\b` far less.
const STEPS: usize = 40;
/// Largest expression in bytes of its compiled form: filters have little memory.
const COMPILED: usize = 256 << 10;
/// Memory for the automaton's states; when it is full, they are forgotten and made again.
const STATES: usize = 128 << 10;
/// Why stepping cannot fail: states may always be forgotten, and no byte is one to quit at.
const NEVER: &str = "an automaton that may forget its states never gives up";

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    automaton: DFA,
    states: RefCell<Cache>,
    begins: [bool; 256],
}

impl Pattern {
    /// Compiles the expression, or says what is wrong with it. It is about bytes: `\d`, `\w` and `(?i)` are those of ASCII.
    pub(crate) fn new(expression: &str) -> Result<Self, String> {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(expression);
        let hir = hir.map_err(|error| match &error {
            regex_syntax::Error::Parse(error) => error.kind().to_string(),
            regex_syntax::Error::Translate(error) => error.kind().to_string(),
            _ => error.to_string(),
        })?;
        if hir.properties().minimum_len().is_none_or(|least| least == 0) {
            return Err("it matches nothing at all, or the empty text: a pattern has to match at least one byte".to_owned());
        }
        let longest = hir.properties().maximum_len().ok_or(
            "its matches have no greatest length, which a stream cannot be held back for: write {1,64} in place of + or *",
        )?;
        if longest > MATCH {
            return Err(format!("it matches up to {longest} bytes; at most {MATCH} are looked at together"));
        }
        let nfa = Compiler::new()
            .configure(Config::new().utf8(false).nfa_size_limit(Some(COMPILED)))
            .build_from_hir(&hir)
            .map_err(|_| format!("it is too large: compiled, it may have {COMPILED} bytes"))?;
        if most_open(&nfa, longest, STEPS)? > STEPS {
            return Err(format!(
                "a text can be made that takes it more than {STEPS} steps a byte: let it begin with what is rare and does not \
                 stand in the rest of it, or with \\b, or let it repeat less"
            ));
        }
        let config = DFA::config().cache_capacity(STATES).skip_cache_capacity_check(true);
        let automaton = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|error| error.to_string())?;
        let mut states = automaton.create_cache();
        let begins = beginnings(&automaton, &mut states);
        Ok(Self { automaton, states: RefCell::new(states), begins })
    }

    /// Whether a match may begin with this byte.
    pub(crate) fn begins(&self, byte: u8) -> bool {
        self.begins[usize::from(byte)]
    }

    /// Whether a match begins at `at`.
    pub(crate) fn at(&self, text: &[u8], at: usize, end: bool) -> At {
        let (automaton, states) = (&self.automaton, &mut *self.states.borrow_mut());
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        let mut state = automaton.start_state_forward(states, &input).expect(NEVER);
        let mut stop = None;
        for (index, byte) in text.iter().enumerate().skip(at) {
            state = automaton.next_state(states, state, *byte).expect(NEVER);
            if state.is_match() {
                // The automaton says so one byte late, since what follows may decide.
                stop = Some(index);
            } else if state.is_dead() {
                return found(at, stop);
            }
        }
        if !end {
            return At::Incomplete;
        }
        if automaton.next_eoi_state(states, state).expect(NEVER).is_match() {
            stop = Some(text.len());
        }
        found(at, stop)
    }
}

/// The bytes that a match may begin with, whatever stands before it.
fn beginnings(automaton: &DFA, states: &mut Cache) -> [bool; 256] {
    let mut begins = [false; 256];
    // Each kind of byte that an expression can look back at, and the beginning of the text.
    for before in [&b""[..], b"a", b" ", b"\n", b"\r"] {
        for byte in u8::MIN..=u8::MAX {
            let text = [before, &[byte]].concat();
            let input = Input::new(&text).range(before.len()..).anchored(Anchored::Yes);
            let start = automaton.start_state_forward(states, &input).expect(NEVER);
            let next = automaton.next_state(states, start, byte).expect(NEVER);
            begins[usize::from(byte)] |= !next.is_dead();
        }
    }
    begins
}

fn found(at: usize, stop: Option<usize>) -> At {
    stop.map_or(At::Nothing, |stop| At::Found { span: at..stop, tail: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::{Detectors, Progress};
    use std::ops::Range;

    fn alone(pattern: Pattern) -> Detectors {
        Detectors::new(Vec::new(), vec![("own".to_owned(), pattern)])
    }

    fn matches(detectors: &Detectors, text: &str) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        assert_eq!(detectors.advance(&mut Progress::default(), text.as_bytes(), true, &mut spans), text.len());
        spans.into_iter().map(|span| span.range).collect()
    }

    #[test]
    fn patterns_match_as_expressions_do() {
        for (expression, text, wanted) in [
            (r"EMP-\d{6}", "EMP-123456 and EMP-654321", &[(0, 10), (15, 25)][..]),
            (r"(?i)secret", "a Secret", &[(2, 8)][..]),
            (r"\bcat\b", "cat concat cat", &[(0, 3), (11, 14)][..]),
            (r"^ab|cd$", "ab ab cd cd", &[(0, 2), (9, 11)][..]),
            (r"a|ab", "abab", &[(0, 1), (2, 3)][..]),
            (r"ab|a", "abab", &[(0, 2), (2, 4)][..]),
            (r"x.{0,3}y", "x12y34y", &[(0, 4)][..]),
            ("naïve", "so naïve", &[(3, 9)][..]),
        ] {
            let matches: Vec<_> =
                matches(&alone(Pattern::new(expression).unwrap()), text).iter().map(|at| (at.start, at.end)).collect();
            assert_eq!(matches, wanted, "{expression}");
        }
    }

    /// The engine's own search of a whole text answers too.
    #[test]
    fn every_text_over_a_small_alphabet_is_searched_as_the_engine_does() {
        use regex_automata::{hybrid::regex::Regex, util::syntax};
        let texts = (0_u32..3_u32.pow(8))
            .map(|number| (0..8).map(|at| char::from(b"ab "[(number / 3_u32.pow(at) % 3) as usize])).collect::<String>());
        let texts: Vec<_> = texts.collect();
        for expression in ["ab|a", "a{1,3}b?", r"\ba", "(?:ab){1,2}|b a", "^a|b$", r"[^b]{2}\B"] {
            let detectors = alone(Pattern::new(expression).unwrap());
            let engine = Regex::builder().syntax(syntax::Config::new().unicode(false).utf8(false)).build(expression).unwrap();
            let mut cache = engine.create_cache();
            for text in &texts {
                let wanted: Vec<_> = engine.find_iter(&mut cache, text).map(|found| found.range()).collect();
                assert_eq!(matches(&detectors, text), wanted, "{expression} in {text:?}");
            }
        }
    }

    #[test]
    fn patterns_without_a_bound_and_slow_ones_are_refused() {
        for (expression, word) in [
            ("a+", "greatest length"),
            ("(ab)*c", "greatest length"),
            ("a{0,3}", "empty"),
            ("", "empty"),
            ("a{257}", "257 bytes"),
            ("[a-z ]{1,200}Q", "steps"),
            ("(?:ab){1,100}Q", "steps"),
            ("[0-9a-z]{64}", "steps"),
            ("(a", "unclosed"),
            (r"\p{Greek}", "nicode"),
            ("[é]", "nicode"),
        ] {
            let mistake = Pattern::new(expression).unwrap_err();
            assert!(mistake.contains(word), "{expression}: {mistake}");
        }
        for fine in ["-((a|b){4}[a-z]{1,16}){10}", r"\b[0-9a-z]{64}", "[0-9a-f]{32}", "password=.{1,200}"] {
            Pattern::new(fine).unwrap();
        }
    }
}
