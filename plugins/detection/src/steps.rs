//! What an operator's pattern may cost: how many steps each byte of a text takes that is made to be slow.

use regex_automata::{
    Anchored, Input,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    nfa::thompson::NFA,
};

/// Memory for the states of all that is followed together, while a configuration is checked.
const STATES: usize = 1 << 20;

/// A match that has begun and not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    since: usize,
    state: LazyStateID,
}

/// How many matches, of at most `longest` bytes, can be open at a time, counted little further than `most`: each of them takes a
/// step with each byte.
///
/// The text is made byte by byte, each time of the one that leaves most of them open, the oldest for choice. So the answer is an
/// estimate from below, and a good one for what people write: `[a-z ]{1,200}Q` has 200 open in a text of `a`, and
/// `password=.{1,64}` eight in one that says nothing but `password=`.
pub(crate) fn most_open(nfa: &NFA, longest: usize, most: usize) -> Result<usize, String> {
    let config = DFA::config().cache_capacity(STATES).skip_cache_capacity_check(true);
    let automaton = DFA::builder().configure(config).build_from_nfa(nfa.clone()).map_err(|error| error.to_string())?;
    let mut states = automaton.create_cache();
    let bytes: Vec<_> = automaton.byte_classes().representatives(..).filter_map(|unit| unit.as_u8()).collect();
    let (mut text, mut open, mut largest) = (Vec::new(), Vec::new(), 0);
    while text.len() < 2 * longest && largest <= most {
        let mut best: (usize, usize, u8, Vec<Open>) = (0, usize::MAX, 0, Vec::new());
        for byte in &bytes {
            // States that were forgotten cannot be gone on from: what is known by then has to do.
            let Some(next) = stepped(&automaton, &mut states, &mut text, &open, *byte) else { return Ok(largest) };
            let since = next.iter().map(|open| open.since).sum();
            if next.len() > best.0 || (next.len() == best.0 && since < best.1) {
                best = (next.len(), since, *byte, next);
            }
        }
        largest = largest.max(best.0);
        text.push(best.2);
        open = best.3;
    }
    Ok(largest)
}

/// What is open behind the byte, or nothing once states had to be forgotten.
fn stepped(automaton: &DFA, states: &mut Cache, text: &mut Vec<u8>, open: &[Open], byte: u8) -> Option<Vec<Open>> {
    let since = text.len();
    text.push(byte);
    let start = automaton.start_state_forward(states, &Input::new(text).range(since..).anchored(Anchored::Yes));
    text.pop();
    let begun = Open { since, state: start.ok()? };
    let mut next = Vec::with_capacity(open.len() + 1);
    for Open { since, state } in open.iter().copied().chain([begun]) {
        if states.clear_count() > 0 {
            return None;
        }
        let state = automaton.next_state(states, state, byte).ok()?;
        if !state.is_dead() {
            next.push(Open { since, state });
        }
    }
    (states.clear_count() == 0).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::nfa::thompson::Compiler;

    #[test]
    fn the_slowest_text_is_found() {
        for (expression, least, most) in [
            ("EMP-[0-9]{6}", 1, 2),
            ("[A-Z]{3}-[0-9]{6}", 3, 4),
            ("[a-z ]{1,200}Q", 200, 201),
            ("(?:ab){1,100}Q", 99, 101),
            ("password=.{1,64}", 7, 9),
            ("x.{0,40}y", 41, 42),
            ("[0-9a-f]{32}", 32, 33),
            (r"\b[A-Za-z0-9]{40}\b", 1, 2),
            (r"\b[a-z ]{1,200}Q", 100, 201),
            ("\"[^\"]{0,200}x", 1, 2),
            ("[0-9a-f]{8}-[0-9a-f]{4}", 8, 10),
        ] {
            let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(expression).unwrap();
            let nfa = Compiler::new().build_from_hir(&hir).unwrap();
            let open = most_open(&nfa, 256, 256).unwrap();
            assert!((least..=most).contains(&open), "{expression}: {open}");
        }
    }
}
